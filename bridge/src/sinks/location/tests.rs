//! Places as they are written, good and bad.

use runtime::config_file::ConfigFile;

use super::*;

fn read(keys: &str) -> (Option<Location>, Vec<String>) {
    let file = ConfigFile::from_text(Path::new("/etc/plant.toml"), format!("[sink]\n{keys}\n"));
    let mut problems = Problems::default();
    let mut root = file.parse(&mut problems);
    let mut section = root.section("sink", &mut problems).unwrap();
    let location = Location::of_section(&mut section, &mut problems);
    section.finish(&mut problems);
    (location, problems.list.iter().map(|p| p.to_string().replace("/etc/plant.toml:", "")).collect())
}

#[test]
fn every_kind_of_place_is_read() {
    for (keys, shown) in [
        ("path = \"lake\"", "/etc/lake"),
        ("path = \"s3://plant-lake/hall/1\"\nregion = \"eu-central-1\"", "s3://plant-lake/hall/1"),
        (
            "path = \"s3://plant-lake\"\nendpoint = \"http://minio:9000\"\npath_style = true\ncredentials_file = \"key\"",
            "s3://plant-lake",
        ),
        ("path = \"az://lake/a=b\"\naccount = \"plant\"", "az://lake/a=b"),
        (
            "path = \"abfss://lake@plant.dfs.core.windows.net/x/\"",
            "abfss://lake@plant.dfs.core.windows.net/x",
        ),
        ("path = \"gs://plant_lake/x\"", "gs://plant_lake/x"),
    ] {
        let (location, problems) = read(keys);
        assert_eq!(problems, Vec::<String>::new(), "{keys}");
        assert_eq!(location.unwrap().to_string(), shown);
    }
}

#[test]
fn every_mistake_of_a_place_is_told_and_no_secret() {
    let (location, problems) = read(
        "path = \"gs://plant/x\"\nregion = \"eu\"\naccount = \"plant\"\nendpoint = \"minio:9000\"\npath_style = 1\n\
         secret_access_key = \"hush\"\nwhat = 1",
    );
    assert!(location.is_none());
    let expected = [
        "1: sink.secret_access_key: must not be in this file: put it into a file of its own and name that as `credentials_file`",
        "5: sink.endpoint = \"minio:9000\": must be http://HOST[:PORT] or https://HOST[:PORT], without user, password or query",
        "6: sink.path_style = 1: must be true or false",
        "1: sink.region: is for s3:// only",
        "1: sink.account: is for az:// only",
    ];
    assert_eq!(problems[..expected.len()], expected);
    assert!(problems.last().unwrap().contains("unknown key"), "{problems:?}");
    assert!(!problems.concat().contains("hush"));
    for bad in [
        "ftp://x/y",
        "s3://Up/x",
        "s3://plant/../x",
        "s3://plant/a b",
        "s3://plant//x",
        "abfss://lake/x",
        "s3://plant/ü",
    ] {
        let (location, problems) = read(&format!("path = \"{bad}\""));
        assert!(
            location.is_none() && problems.len() == 1 && problems[0].contains("must be a folder, s3://"),
            "{bad}: {problems:?}"
        );
    }
    let (_, problems) = read("path = \"az://lake/x?sig=hush\"");
    assert!(problems.len() == 1 && !problems[0].contains("hush"), "{problems:?}");
    let (_, problems) = read("path = \"lake\"\nregion = \"eu\"\nendpoint = \"http://x\"");
    assert_eq!(problems.len(), 2);
}

#[test]
fn a_file_of_credentials_is_read_in_both_styles_and_its_mistakes_show_no_value() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let far = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut far = Far::of("s3://lake/x").unwrap();
        far.credentials_file = Some(file.clone());
        far.client().map(|store| store.to_string()).map_err(|error| super::super::in_one_line(&error))
    };
    let good = "[default]\n# ours\naws_access_key_id = AKIA\naws_secret_access_key = hush\naws_region = eu-central-1\n";
    far(good).unwrap();
    far("export AWS_ACCESS_KEY_ID=\"AKIA\"\nAWS_SECRET_ACCESS_KEY='hush'\n").unwrap();
    for (bad, why) in [
        ("hush", "line 1: must be KEY = VALUE"),
        ("\nsecret = hush", "line 2: secret is no setting of this store"),
        ("[a]\naws_access_key_id=hush\n[b]\n", "more than one [profile]"),
        ("", "has no KEY = VALUE line"),
    ] {
        let said = far(bad).unwrap_err();
        assert!(said.contains(why) && !said.contains("hush"), "{said}");
    }
    std::fs::remove_file(&file).unwrap();
    let mut gone = Far::of("s3://lake/x").unwrap();
    gone.credentials_file = Some(file);
    assert!(gone.client().unwrap_err().to_string().contains("cannot read credentials_file"));
}
