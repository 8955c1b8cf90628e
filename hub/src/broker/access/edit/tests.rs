//! Changes keep comments, are checked as a whole, and do not undo each other.

use super::*;

const HAND_WRITTEN: &str = "# ours\nversion = 1\n\n[roles.reader] # screens\nsubscribe = [\"#\"]\n\n\
    # the SCADA of hall 2\n[[identities]]\nname = \"scada\" # node 17\nroles = [\"reader\"]   # all of it\n\
    \n# last words\n[[identities]]\nname = \"lab\"\nroles = [\"reader\"]\n";

fn hand_written() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.toml");
    std::fs::write(&path, HAND_WRITTEN).unwrap();
    (folder, path)
}

fn reader() -> Change {
    Change { roles: Some(vec!["reader".into()]), ..Change::default() }
}

#[test]
fn a_new_file_is_private_and_says_how_it_works() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/folder/access.toml");
    ensure(&path).unwrap();
    ensure(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), TEMPLATE);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(list(&path).unwrap(), []);
}

#[test]
fn changes_keep_what_people_wrote() {
    let (_folder, path) = hand_written();
    edit(&path, |file| {
        file.update(
            "scada",
            &Change { disabled: Some(true), roles: Some(vec!["reader".into()]), ..Change::default() },
        )
    })
    .unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, HAND_WRITTEN.replace("# all of it\n", "# all of it\ndisabled = true\n"));
    edit(&path, |file| file.add("screen", &reader())).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.ends_with("\n\n[[identities]]\nname = \"screen\"\nroles = [\"reader\"]\n"), "{text}");
    edit(&path, |file| file.remove("scada")).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.starts_with("# ours\nversion = 1\n")
            && text.contains("# last words")
            && !text.contains("scada\"")
    );
    let names: Vec<String> = list(&path).unwrap().into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["lab", "screen"]);
}

#[test]
fn what_enrolment_does_with_an_identity() {
    let (_folder, path) = hand_written();
    ensure(&path).unwrap();
    let (first, later) = (Timestamp(1_795_600_800_000_000), Timestamp(1_795_600_800_000_001));
    let change = Change {
        node: NodeId::parse("antwerp/line-3").ok(),
        certificate: Some(true),
        certificates_from: Some(first),
        ..reader()
    };
    edit(&path, |file| file.put("line-3", &change)).unwrap();
    let found = edit(&path, |file| Ok(file.find("line-3"))).unwrap().unwrap();
    assert!(found.certificate && !found.password && found.certificates_from == Some(first));
    edit(&path, |file| file.put("line-3", &Change { certificates_from: Some(later), ..Change::default() }))
        .unwrap();
    let found = edit(&path, |file| Ok(file.find("line-3"))).unwrap().unwrap();
    assert!(found.certificate && found.node.is_some(), "what is not given stays");
    assert_eq!(found.certificates_from, Some(Timestamp(first.micros() + 1_000_000)), "rounded up");
}

#[test]
fn a_change_that_would_be_a_mistake_changes_nothing() {
    let (_folder, path) = hand_written();
    let refused = |change: Result<(), EditError>| {
        assert_eq!(std::fs::read_to_string(&path).unwrap(), HAND_WRITTEN);
        change.unwrap_err().to_string()
    };
    let unknown_role = Change { roles: Some(vec!["king".into()]), ..Change::default() };
    assert!(refused(edit(&path, |file| file.add("x", &unknown_role))).contains("\"king\" is no role"));
    assert!(refused(edit(&path, |file| file.add("scada", &reader()))).contains("already"));
    assert!(refused(edit(&path, |file| file.add("a/b", &reader()))).contains("must not hold"));
    assert!(refused(edit(&path, |file| file.remove("x"))).contains("no identity"));
    assert!(refused(edit(&path, |file| file.update("x", &reader()))).contains("no identity"));
    let bad_hash = Change { password: Some("plain".into()), ..reader() };
    assert!(refused(edit(&path, |file| file.add("x", &bad_hash))).contains("argon2id"));
}

#[test]
fn a_file_with_mistakes_is_not_touched() {
    let (_folder, path) = hand_written();
    for broken in [
        "version = 1\n[[identities]]\nname = 5\n",
        "version = 1\nidentities = [{ name = \"x\", roles = [] }]\n",
    ] {
        std::fs::write(&path, broken).unwrap();
        assert!(edit(&path, |file| file.put("x", &reader())).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), broken);
    }
}

#[test]
fn two_who_edit_at_a_time_do_not_undo_each_other() {
    let (_folder, path) = hand_written();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let path = &path;
            scope.spawn(move || {
                for nth in 0..10 {
                    edit(path, |file| file.add(&format!("{thread}-{nth}"), &reader())).unwrap();
                }
            });
        }
    });
    assert_eq!(list(&path).unwrap().len(), 42);
    let left: Vec<_> =
        std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".new")), "{left:?}");
}

#[test]
fn permissions_that_somebody_gave_stay() {
    let (_folder, path) = hand_written();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    edit(&path, |file| file.add("x", &reader())).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
}

/// `sudo forebay user add` before or while the hub runs as a user of its own.
#[test]
fn what_root_makes_belongs_to_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    if std::os::unix::fs::chown(folder.path(), Some(12_345), Some(12_346)).is_err() {
        return; // only root can give files away
    }
    let path = folder.path().join("access.toml");
    for name in ["one", "two"] {
        edit(&path, |file| file.add(name, &reader())).unwrap();
        for made in [path.clone(), folder.path().join(".access.toml.lock")] {
            let owner = std::fs::metadata(&made).unwrap();
            assert_eq!((owner.uid(), owner.gid()), (12_345, 12_346), "{}", made.display());
        }
    }
}
