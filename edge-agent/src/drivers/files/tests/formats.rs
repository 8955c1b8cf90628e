//! Every format: what its files bring, cut at any byte, and with any bytes.

use super::*;

/// A reading as text: point, time, value, quality if it is not good.
fn shown(readings: &[Reading]) -> Vec<String> {
    let one = |reading: &Reading| {
        let time = reading.time.map_or("-".to_owned(), |time| time.to_string()[8..19].to_owned());
        let value = match &reading.value {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.as_f64().map_or_else(|| format!("{value:?}"), |number| number.to_string()),
            None => reading.quality.to_string(),
        };
        format!("{} {time} {value}", reading.point)
    };
    readings.iter().map(one).collect()
}

/// One way to write the same two records: keys, addresses of the points, name and bytes of the file.
struct Writing {
    keys: &'static str,
    addresses: [&'static str; 2],
    name: &'static str,
    bytes: Vec<u8>,
}

const fn writing(
    keys: &'static str,
    addresses: [&'static str; 2],
    name: &'static str,
    bytes: Vec<u8>,
) -> Writing {
    Writing { keys, addresses, name, bytes }
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// All say: at 06:00:00 and 06:00:01 UTC a double of 1234.5 and -2, and a text "x, y" and "Öl".
fn line_formats() -> Vec<Writing> {
    const AB: [&str; 2] = ["a", "b"];
    vec![
        writing("", AB, "x.csv", b"timestamp,a,b\n2026-11-22T06:00:00Z,1234.5,\"x, y\"\n2026-11-22T06:00:01Z,-2,\xc3\x96l\n".to_vec()),
        writing(
            "separator = \"tab\"\nquote = \"'\"\nskip_lines = 2\ncomment = \"#\"\nencoding = \"windows-1252\"\nzone = \"Europe/Berlin\"\n\
             time = \"Zeit\"\ndate = \"Datum\"\ntime_format = \"%d.%m.%Y %H:%M:%S\"\ndecimal = \",\"\nthousands = \".\"\nunits = \"header\"",
            AB,
            "x.csv",
            b"Export of the press\n\n# a remark\nDatum\tZeit\ta [\xb0C]\tb\n22.11.2026\t07:00:00\t1.234,5\t'x, y'\n#\n22.11.2026\t07:00:01\t-2\t\xd6l\n".to_vec(),
        ),
        writing(
            "header = false\ntime = \"2\"\ntime_format = \"epoch-s\"\nseparator = \";\"\nquoted_lines = true",
            ["1", "4"],
            "x.csv",
            "1234.5;1795327200;\"a\nb\";x, y\n-2;1795327201;;Öl\n".into(),
        ),
        writing(
            "encoding = \"utf-16le\"\nseparator = \"|\"\nquoted_lines = true",
            AB,
            "x.csv",
            utf16("\u{feff}timestamp|a|b|\u{0a0a}\n2026-11-22T06:00:00Z|1234.5|x, y|\n2026-11-22T06:00:01Z|-2|Öl|\"\n\n\"\n"),
        ),
        writing(
            "format = \"fixed\"\ncolumns = [\"timestamp 1-19\", \"a 20-27\", \"b 29-32\"]",
            AB,
            "x.txt",
            "2026-11-22 06:00:00  1234.5 x, y\n2026-11-22 06:00:01      -2 Öl\n".into(),
        ),
        writing(
            "format = \"ndjson\"\ntime = \"t\"\ntime_format = \"epoch-ms\"",
            ["v[0].n", "\"v.b\""],
            "x.ndjson",
            "{\"t\":1795327200000,\"v\":[{\"n\":1234.5}],\"v.b\":\"x, y\"}\n{\"t\":1795327201000,\"v\":[{\"n\":-2}],\"v.b\":\"\\u00d6l\"}\n".into(),
        ),
        writing(
            "format = \"key-value\"\ntime = \"t\"",
            AB,
            "x.txt",
            "t=2026-11-22T06:00:00Z a=1234.5 b=\"x, y\"\nt=2026-11-22T06:00:01Z a=-2 b=Öl c=9\n".into(),
        ),
        writing(
            "name_time = \"%Y%m%d\"\ntime = \"clock\"\ntime_format = \"%H%M%S\"\nname_column = \"tag\"\nvalue_column = \"value\"",
            AB,
            "x_20261122.csv",
            "clock,tag,value\n060000,a,1234.5\n060000,b,\"x, y\"\n060000,c,7\n060001,a,-2\n060001,b,Öl\n".into(),
        ),
    ]
}

fn expected() -> [&'static str; 4] {
    ["0 22T06:00:00 1234.5", "1 22T06:00:00 x, y", "0 22T06:00:01 -2", "1 22T06:00:01 Öl"]
}

impl Writing {
    fn plant(&self) -> Plant {
        let mut plant = Plant::new(&format!("pattern = \"*\"\n{}", self.keys));
        plant.points =
            vec![point(self.addresses[0], DataType::Double), point(self.addresses[1], DataType::String)];
        plant
    }
}

#[tokio::test]
async fn the_same_records_in_every_format() {
    for writing in line_formats() {
        let mut plant = writing.plant();
        plant.append(writing.name, &writing.bytes);
        let (readings, quarantined) = plant.run_all().await;
        assert_eq!(
            (shown(&readings), quarantined),
            (expected().map(str::to_owned).to_vec(), 0),
            "{}",
            writing.keys
        );
    }
}

#[tokio::test]
async fn documents_have_records_too() {
    let documents = [
        writing(
            "format = \"json\"\nrecords = \"data.rows\"\ntime = \"t\"",
            ["n", "$.name"],
            "x.json",
            "{\"name\":\"x\",\"data\":{\"rows\":[{\"t\":\"2026-11-22 06:00\",\"n\":1},{\"t\":\"2026-11-22 06:01\",\"n\":\"2\"}]}}".into(),
        ),
        writing(
            "format = \"key-value\"\nrecord = \"file\"\nassign = \":\"\nname_time = \"%Y%m%d-%H%M\"",
            ["oven.temp", "batch"],
            "20261122-0600.txt",
            "batch: x\n[oven]\ntemp : 1\n".into(),
        ),
        writing(
            "format = \"xml\"\nrecords = \"/Log/Row\"\ntime = \"@t\"",
            ["S[@id='T1']", "/Log/@batch"],
            "x.xml",
            "<Log batch='x'><Row t='2026-11-22T06:00'><S id='T0'>9</S><S id='T1'>1</S></Row>\n<Row t='2026-11-22T06:01'><S id='T1'>2</S></Row></Log>".into(),
        ),
    ];
    let expected = [
        vec!["0 22T06:00:00 1", "1 22T06:00:00 x", "0 22T06:01:00 2", "1 22T06:01:00 x"],
        vec!["0 22T06:00:00 1", "1 22T06:00:00 x"],
        vec!["0 22T06:00:00 1", "1 22T06:00:00 x", "0 22T06:01:00 2", "1 22T06:01:00 x"],
    ];
    for (writing, expected) in documents.iter().zip(expected) {
        let mut plant = writing.plant();
        plant.keys += "\nmode = \"whole\"\nfinished = \"rename\"";
        plant.append(writing.name, &writing.bytes);
        let (readings, quarantined) = plant.run_all().await;
        assert_eq!((shown(&readings), quarantined), (expected.into_iter().map(str::to_owned).collect(), 0));
    }
}

/// A workbook as openpyxl writes it: text, numbers, times in three ways, an error, a cell far away, an empty row.
const WORKBOOK: &str = r##"
import sys, datetime, openpyxl
book = openpyxl.Workbook()
book.active.title = "cover"
sheet = book.create_sheet("data")
sheet.append(["Report of the press"])
sheet.append([])
sheet.append(["when", "a [°C]", "b", "day", "clock", "serial"])
for n in range(3):
    at = datetime.datetime(2026, 11, 22, 6, 0, n)
    sheet.append([at, n + 0.5 if n else 1234.5, f"Öl {n}", at.date(), at.time(), 46348.25 + n / 86400])
sheet["B5"] = "#DIV/0!"
sheet["A6"] = None
sheet["XFD1000000"] = 1
book.save(sys.argv[1])
"##;

#[tokio::test]
async fn a_workbook_has_rows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let venv = std::env::var_os("FOREBAY_VENV").map_or_else(|| root.join(".venv"), Into::into);
    let whole = "format = \"excel\"\nmode = \"whole\"\nfinished = \"rename\"\nsheet = \"data\"\nskip_lines = 2\nunits = \"header\"";
    for (time, count) in [
        ("time = \"when\"", 2),
        ("date = \"day\"\ntime = \"clock\"", 3),
        ("time = \"serial\"\ntime_format = \"excel\"", 3),
    ] {
        let mut plant = Plant::new(&format!("{whole}\n{time}"));
        plant.points = vec![point("a", DataType::Double), point("b", DataType::String)];
        let file = plant.folder().join("x.xlsx");
        let made =
            std::process::Command::new(venv.join("bin/python")).args(["-c", WORKBOOK]).arg(&file).status();
        assert!(made.expect("no Python: run `make peers`").success());
        let (readings, quarantined) = plant.run_all().await;
        let mut expected = vec![
            "0 22T06:00:00 1234.5",
            "1 22T06:00:00 Öl 0",
            "0 22T06:00:01 bad:undecodable",
            "1 22T06:00:01 Öl 1",
        ];
        expected.extend(["0 22T06:00:02 2.5", "1 22T06:00:02 Öl 2"].iter().filter(|_| count == 3));
        // A cell that is no number, and a row whose time is missing; what is far away is nothing.
        let noted = if count == 3 { 1 } else { 2 };
        assert_eq!(
            (shown(&readings), quarantined),
            (expected.into_iter().map(str::to_owned).collect(), noted),
            "{time}"
        );
        assert!(plant.quarantine().iter().any(|entry| entry["line"] == 5), "the row's number in the sheet");
        // The same bytes, cut or damaged: a reason, never a panic.
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(plant.run().await, (Vec::new(), 1));
    }
}

#[tokio::test]
async fn what_a_file_says_against_its_configuration_is_a_reason() {
    for (keys, unit, bytes, reason) in [
        (
            "units = \"header\"",
            "Cel",
            "timestamp,a [°F]\n".as_bytes().to_vec(),
            "is in \"°F\" ([degF]), but the point list says \"Cel\"",
        ),
        ("", "", utf16("\u{feff}timestamp,a\n"), "it is UTF-16LE: write encoding = \"utf-16le\""),
        ("name_time = \"%Y%m%d\"", "", b"timestamp,a\n".to_vec(), "its name does not hold the time"),
        ("time_from = \"arrival\"", "", b"timestamp,x\n".to_vec(), "no column of any point"),
    ] {
        let mut plant = Plant::new(keys);
        plant.points.truncate(1);
        plant.points[0].definition.unit = unit.to_owned();
        plant.append("a.csv", bytes);
        assert_eq!(plant.run().await, (Vec::new(), 1), "{reason}");
        let found = plant.quarantine()[0]["reason"].as_str().unwrap().to_owned();
        assert!(found.contains(reason), "{found}");
    }
    let mut plant = Plant::new("time_from = \"arrival\"\nunits = \"header\"");
    plant.append("a.csv", "a (bar)\n1.5\n");
    assert_eq!(shown(&plant.run_all().await.0), ["0 - 1.5"]);
}

/// Readings, and what is in the quarantine, of a file that grew in these parts.
fn grown(writing: &Writing, parts: &[&[u8]]) -> (Vec<String>, Vec<(u64, u64, String)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut plant = writing.plant();
    let mut seen = Vec::new();
    for part in parts {
        plant.append(writing.name, part);
        seen.extend(shown(&runtime.block_on(plant.run_all()).0));
    }
    let entries = plant.quarantine().into_iter().map(|entry| {
        let number = |key: &str| entry[key].as_u64().unwrap();
        (number("line"), number("byte"), entry["reason"].as_str().unwrap().to_owned())
    });
    // What the whole file is refused for may be seen before all of its first line is there.
    (seen, entries.collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_file_cut_at_any_byte_brings_the_same(
        format in 0_usize..8,
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), prop_oneof![
            Just(b"\"".to_vec()), Just(b"\n".to_vec()), Just(b",".to_vec()), Just(b"\n\n".to_vec()),
            any::<u8>().prop_map(|byte| vec![byte]),
        ]), 0..3),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 1..4),
    ) {
        let writing = &line_formats()[format];
        // The head stays: a file whose header is damaged is refused as a whole, in the one or the other state.
        let head = writing.bytes.len() / 2;
        let mut bytes = [writing.bytes.as_slice(), &writing.bytes[head..]].concat();
        for (at, new) in &damage {
            let at = head + at.index(bytes.len() - head);
            bytes.splice(at..at, new.iter().copied());
        }
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        places.sort_unstable();
        let mut parts = Vec::new();
        let mut from = 0;
        for place in places.into_iter().chain([bytes.len()]) {
            parts.push(&bytes[from..place]);
            from = place;
        }
        prop_assert_eq!(grown(writing, &parts), grown(writing, &[&bytes]));
    }

    #[test]
    fn any_bytes_as_any_format_are_read_or_put_aside(
        format in 0_usize..13,
        bytes in proptest::collection::vec(prop_oneof![
            6 => any::<u8>().prop_map(|byte| vec![byte]),
            1 => Just(b"\n".to_vec()),
            1 => Just(b"\"".to_vec()),
            1 => Just(b"{\"t\":[".to_vec()),
            1 => Just(b"=".to_vec()),
            1 => (0_usize..9).prop_map(|n| row(n).into_bytes()),
        ], 0..200),
    ) {
        let formats = line_formats();
        let bytes = bytes.concat();
        let whole = "mode = \"whole\"\nfinished = \"rename\"\ntime_from = \"modified\"\n";
        let mut plant = match formats.get(format) {
            Some(writing) => writing.plant(),
            None => {
                let keys = ["format = \"json\"", "format = \"key-value\"\nrecord = \"file\"", "format = \"json\"\nrecords = \"t\"",
                    "format = \"xml\"\nrecords = \"/a\"", "format = \"excel\""];
                Plant::new(&format!("pattern = \"*\"\n{whole}{}", keys[format - formats.len()]))
            }
        };
        let head = formats.get(format).map_or(&[][..], |writing| &writing.bytes[..writing.bytes.len() / 2]);
        plant.append("x_20261122", [head, &bytes].concat());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(plant.run_all());
        prop_assert!(runtime.block_on(plant.run_all()).0.is_empty());
    }
}
