//! What `forebay file try` shows.

use runtime::config_file::ConfigFile;

use super::super::preview::{Preview, preview};
use super::*;

/// What a file of these bytes would bring with these keys.
fn attempt(keys: &str, points: &[(&str, DataType)], bytes: &[u8]) -> Preview {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.csv");
    fs::write(&file, bytes).unwrap();
    let scratch = folder.path().join("scratch");
    let points = points.iter().map(|(address, data_type)| point(address, *data_type)).collect();
    let setup = conformance::setup(points, Clock::machine(), scratch.clone());
    let config = ConfigFile::from_text(Path::new("-k"), format!("folder = \".\"\n{keys}"));
    let mut problems = Problems::default();
    let mut section = config.parse(&mut problems);
    let found = preview(&mut section, &setup, &mut problems, &file, &scratch, 5);
    assert!(problems.is_empty(), "{:?}", problems.list);
    assert_eq!(fs::read(&file).unwrap(), bytes);
    found.unwrap().unwrap()
}

const GERMAN: &[u8] = b"Datum;Zeit;Druck [bar];n\n22.11.2026;06:00:00;1,5;1\n22.11.2026;06:00:01;1,6;2\n";

#[test]
fn a_file_is_shown_as_it_would_be_read() {
    let keys = "separator = \";\"\ndecimal = \",\"\ndate = \"Datum\"\ntime = \"Zeit\"\ntime_format = \"%d.%m.%Y %H:%M:%S\"\nunits = \"header\"";
    let bytes = [GERMAN, b"22.11.2026;25:00:00;1,7;3\n22.11.2026;06:00:03;x;4\n22.11".as_slice()].concat();
    let shown = attempt(keys, &[("Druck", DataType::Double), ("n", DataType::Int32)], &bytes);
    let values: Vec<Option<f64>> =
        shown.readings.iter().map(|r| r.value.as_ref().and_then(Value::as_f64)).collect();
    assert_eq!(values, [Some(1.5), Some(1.0), Some(1.6), Some(2.0), None]);
    assert_eq!(shown.readings[4].quality.to_string(), "bad:undecodable");
    let bad: Vec<(u64, bool)> = shown.bad.iter().map(|bad| (bad.line, bad.whole)).collect();
    assert_eq!((bad, shown.complete), (vec![(4, true), (5, false)], false));
    assert_eq!(shown.hints, ["units for the point list, as the header has them: Druck: bar"]);
    // Finished files are shown at once, whatever says that they are finished.
    let whole = format!("{keys}\nmode = \"whole\"\nfinished_marker = \".ok\"\nafter = \"delete\"");
    assert_eq!(attempt(&whole, &[("n", DataType::Int32)], GERMAN).readings.len(), 2);
}

#[test]
fn guesses_say_what_to_write() {
    let points = [("Druck", DataType::Double)];
    let shown = attempt("", &points, GERMAN);
    assert_eq!((shown.readings.len(), shown.bad.len()), (0, 1));
    for expected in [
        "separator = \";\"",
        "decimal = \",\"",
        "the header has no [\"timestamp\", \"Druck\"]",
        "units = \"header\"",
        "date = \"Datum\", time = \"Zeit\", time_format = \"%d.%m.%Y %H:%M:%S%.f\"",
    ] {
        assert!(shown.hints.iter().any(|hint| hint.contains(expected)), "{expected}: {:?}", shown.hints);
    }
    for (keys, bytes, expected) in [
        ("", b"timestamp,Druck\n1795327200000,1.5\n".as_slice(), "time_format = \"epoch-ms\""),
        ("", b"timestamp,Druck\n11/22/2026 01:14:15 PM,1.5\n", "time_format = \"%m/%d/%Y %I:%M:%S %p\""),
        ("", b"t,Druck\n2026-11-22 06:00,1.5\n", "time = \"t\", time_format = \"iso\""),
        ("", b"timestamp,Druck,\xd6l\n2026-11-22 06:00,1.5,2\n", "encoding = \"windows-1252\""),
        ("", b"\xff\xfet\0\n\0", "encoding = \"utf-16le\""),
        ("decimal = \",\"\nseparator = \";\"", b"timestamp;Druck\n2026-11-22 06:00;1.5\n", "decimal = \".\""),
        (
            "separator = \";\"",
            b"timestamp;Druck\n2026-11-22 06:00;1.234,5\n",
            "decimal = \",\", thousands = \".\"",
        ),
        (
            "separator = \";\"\ndecimal = \",\"",
            b"timestamp;Druck\n2026-11-22 06:00;1.234.567\n",
            "as if thousands = \".\"",
        ),
        ("", "timestamp,Druck\n2026-11-22 06:00,1\u{202f}234\n".as_bytes(), "as if thousands = \" \""),
        ("", b"timestamp,Druck\n2026-11-22 06:00,1'234.5\n", "as if thousands = \"'\""),
        (
            "separator = \";\"",
            b"timestamp;Druck\n2026-11-22 06:00;1,234\n",
            "decimal = \",\", or thousands = \",\"",
        ),
        (
            "separator = \";\"",
            b"timestamp;Druck\n2026-11-22 06:00;1,234\n2026-11-22 06:01;12.5\n",
            "as if thousands = \",\"",
        ),
        ("", b"timestamp,Druck\n2026-11-22 06:00,1.5", "it is read when it has one"),
    ] {
        let hints = attempt(keys, &points, bytes).hints;
        assert!(hints.iter().any(|hint| hint.contains(expected)), "{expected}: {hints:?}");
    }
    let hints =
        attempt("header = false\ntime = \"1\"", &[("2", DataType::Double)], b"2026-11-22 06:00,1.5\n").hints;
    assert!(hints[0].contains("numbers from 1 to 2"), "{hints:?}");
    // What is configured is no mistake.
    for (keys, bytes) in [
        (
            "separator = \";\"\ndecimal = \",\"\nthousands = \".\"",
            b"timestamp;Druck\n2026-11-22 06:00;1.234,5\n".as_slice(),
        ),
        ("separator = \";\"\nthousands = \",\"", b"timestamp;Druck\n2026-11-22 06:00;1,234\n"),
        ("", b"timestamp,Druck\n2026-11-22 06:00,1.234\n"),
    ] {
        let hints = attempt(keys, &points, bytes).hints;
        assert!(hints.is_empty(), "{keys}: {hints:?}");
    }
}
