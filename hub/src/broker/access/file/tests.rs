//! The file's rules: every mistake with its line, and what the template says.

use super::*;

const HASH: &str =
    "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ";

fn parse(text: &str) -> Result<AccessFile, Vec<String>> {
    AccessFile::parse(Path::new("access.toml"), text.to_owned())
        .map_err(|lines| lines.lines().map(str::to_owned).collect())
}

#[test]
fn the_template_is_good_and_has_nobody() {
    let file = parse(include_str!("../template.toml")).unwrap();
    let roles: Vec<&str> = file.roles.keys().map(|role| &**role).collect();
    assert_eq!(roles, ["agent", "operator", "reader"]);
    assert!(file.identities.is_empty());
}

#[test]
fn an_identity_has_what_its_table_says() {
    let token = "ab".repeat(32);
    let file = parse(&format!(
        "version = 1\n[roles.agent]\npublish = [\"%g/%n\"]\n[roles.quiet]\n[[identities]]\nname = \"line-3\"\n\
         node = \"antwerp/line-3\"\nroles = [\"agent\", \"quiet\"]\npassword = \"{HASH}\"\ntoken = \"sha256:{token}\"\n\
         certificate = true\ncertificates_from = \"2026-11-25T11:00:00+01:00\"\ndisabled = true\n\
         [[identities]]\nname = \"plain\"\nroles = []\n"
    ))
    .unwrap();
    let (nth, entry) = file.find("line-3").unwrap();
    assert_eq!((nth, entry.node.as_ref().unwrap().to_string().as_str()), (0, "antwerp/line-3"));
    assert_eq!(entry.roles.iter().map(|role| &**role).collect::<Vec<_>>(), ["agent", "quiet"]);
    assert_eq!((entry.password.as_ref().unwrap().text(), entry.token), (HASH, Some([0xab; 32])));
    assert!(entry.disabled && entry.certificate);
    let from = Timestamp(1_795_600_800_000_000); // 10:00 UTC
    assert_eq!(entry.certificates_from, Some(from));
    assert!(entry.accepts_certificate(from) && !entry.accepts_certificate(Timestamp(from.micros() - 1)));
    assert_eq!(file.find_token(&[0xab; 32]).unwrap().name, "line-3");
    let plain = file.find("plain").unwrap().1;
    assert!(!plain.disabled && !plain.accepts_certificate(from) && plain.password.is_none());
    assert!(file.find("nobody").is_none() && file.find_token(&[0; 32]).is_none());
}

#[test]
fn every_mistake_is_told_with_its_line() {
    let token = format!("sha256:{}", "00".repeat(32));
    let problems = parse(&format!(
        "version = 2\ncolour = 1\n[roles.agent]\npublish = [\"a/%x\", \"spBv1.0/+/NCMD/#\", \"$SYS/x\", \"a#\"]\n\
         subscribe = \"a\"\nsubscripe = []\n[roles.anonymous]\n[roles.node]\nsubscribe = [\"%g\"]\n\
         [[identities]]\nnode = \"x\"\npassword = \"secret\"\ntoken = \"sha256:12\"\n\
         [[identities]]\nname = \"a/b\"\nroles = [\"nonsense\", \"node\"]\ncertificates_from = \"yesterday\"\n\
         [[identities]]\nname = \"one\"\nnode = \"g/n\"\nroles = []\ntoken = \"{token}\"\n\
         [[identities]]\nname = \"one\"\nnode = \"g/n\"\nroles = []\ntoken = \"{token}\"\ndisabled = 1\n"
    ))
    .unwrap_err();
    let places: Vec<(usize, &str)> = problems
        .iter()
        .map(|line| {
            let mut parts = line.splitn(3, ':');
            assert_eq!(parts.next(), Some("access.toml"));
            let number = parts.next().unwrap().parse().unwrap();
            let rest = parts.next().unwrap().trim();
            (number, rest.split([' ', ':']).next().unwrap())
        })
        .collect();
    assert_eq!(
        places,
        [
            (1, "version"),
            (4, "roles.agent.publish"),
            (4, "roles.agent.publish"),
            (4, "roles.agent.publish"),
            (4, "roles.agent.publish"),
            (5, "roles.agent.subscribe"),
            (6, "roles.agent.subscripe"),
            (7, "roles.anonymous"),
            (10, "identities[1].name"),
            (11, "identities[1].node"),
            (10, "identities[1].roles"),
            (12, "identities[1].password"),
            (13, "identities[1].token"),
            (15, "identities[2].name"),
            (16, "identities[2].roles"),
            (16, "identities[2].roles"),
            (17, "identities[2].certificates_from"),
            (28, "identities[4].disabled"),
            (24, "identities[4].name"),
            (25, "identities[4].node"),
            (27, "identities[4].token"),
            (2, "colour"),
        ],
        "{problems:#?}"
    );
    assert!(
        !problems.iter().any(|line| line.contains("\"secret\"")),
        "a password is in no message: {problems:#?}"
    );
}

#[test]
fn names_that_mean_something_in_a_filter_are_refused() {
    for bad in ["", "a/b", "+", "a#", "$SYS", "a\0", "a\n", "anonymous", &"x".repeat(256)] {
        assert!(check_name(bad).is_err(), "{bad:?}");
    }
    for good in ["line-3", "Ölpumpe", "a b", "a.b.example", "100%", "%n"] {
        assert_eq!(check_name(good), Ok(()), "{good}");
    }
    assert!(check_node("$SYS/x").is_err() && check_node("g").is_err() && check_node("g/n/x").is_err());
}

#[test]
fn a_list_that_is_too_long_is_told_so() {
    let filters = vec!["\"a\""; FILTERS_PER_ROLE_MAX + 1].join(",");
    let roles = vec!["\"r\""; ROLES_PER_IDENTITY_MAX + 1].join(",");
    let problems = parse(&format!(
        "version = 1\n[roles.r]\npublish = [{filters}]\n[[identities]]\nname = \"x\"\nroles = [{roles}]\n"
    ))
    .unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:#?}");
}
