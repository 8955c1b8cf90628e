//! Exports as the vendors document them, and what becomes of them: every line is in the list or left out with a reason.

use super::*;

fn done(source: Source, bytes: &[u8], options: &ImportOptions) -> Imported {
    import(Path::new("export"), bytes, source, options).unwrap()
}

fn lines(imported: &Imported) -> Vec<&str> {
    imported.list.lines().filter(|line| !line.starts_with('#')).skip(1).collect()
}

fn left_out(imported: &Imported) -> Vec<String> {
    imported.left_out.iter().map(ToString::to_string).collect()
}

/// A list passes the check of a configuration that says of its device what the list's remarks say.
fn passes(imported: &Imported, extra: &str) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("d.csv"), &imported.list).unwrap();
    let keys: Vec<&str> = imported
        .list
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| line.contains(" = "))
        .collect();
    let text = format!(
        "[edge]\ngroup = \"g\"\nnode = \"n\"\ndata_dir = \"x\"\nhub = \"mqtt://h\"\n[[edge.devices]]\nname = \"d\"\n\
         points = \"d.csv\"\n{extra}\n{}\n",
        keys.join("\n")
    );
    let file = ConfigFile::from_text(&dir.path().join("plant.toml"), text);
    let mut problems = Problems::default();
    let mut root = file.parse(&mut problems);
    let plant = runtime::config_file::PlantNames { enterprise: "acme".into(), site: "antwerp".into() };
    let edge = root.section("edge", &mut problems).unwrap();
    let config = crate::config::validate(edge, &plant, &mut problems);
    assert!(problems.is_empty(), "{:?}", problems.list);
    assert_eq!(config.unwrap().devices[0].points.len(), imported.taken);
}

const MODBUS: &[u8] = include_bytes!("examples/kepware_modbus.csv");

#[test]
fn kepware_modbus_tags_become_points() {
    let imported = done(Source::Kepware, MODBUS, &ImportOptions::default());
    assert_eq!(
        lines(&imported),
        [
            "Press.Temperature,hr:0,int16,0.1,,Cel,,,false,Ram temperature",
            "Press.Speed,hr:9 CDAB,float,,,{rev}/min,,,false,Main drive",
            "Press.SetPoint,hr:20,uint16,0.004,4,mA,4,20,false,",
            "Press.Fault,hr:29.3,boolean,,,,,,false,",
            "Press.Run,co:4,boolean,,,,,,false,",
            "Press.Total,ir:99 CDAB,uint32,,,{pieces},,,false,",
            "Press.Serial,hr:199 len=16,string,,,,,,false,",
            "Press.Bcd,hr:299 CDAB bcd,uint32,,,,,,false,",
        ]
    );
    let found = left_out(&imported);
    for (nth, expected) in [
        "export:10: Press.Curve = Word Array: is an array",
        "export:11: Press.Flow = Square Root: is square root, which is no factor and term",
        "export:12: Press.Reset = WO: is write only",
        "export:13: Press.Odd = 470000: \"470000\" is no Modbus address",
    ]
    .into_iter()
    .enumerate()
    {
        assert!(found[nth].starts_with(expected), "{expected}\nnot in\n{found:?}");
    }
    assert_eq!(found.len(), 4);
    assert!(imported.notes.iter().any(|note| note.contains("order of words")), "{:?}", imported.notes);
    passes(&imported, "address = \"plc\"");
}

#[test]
fn options_say_what_the_export_does_not() {
    let options = ImportOptions {
        order: Some("ABCD".into()),
        writable: true,
        groups: true,
        ..ImportOptions::default()
    };
    let imported = done(Source::Kepware, MODBUS, &options);
    let found = lines(&imported);
    assert_eq!(found[1], "Press.Speed,hr:9,float,,,{rev}/min,,,false,Main drive,1s");
    assert_eq!(found[4], "Press.Run,co:4,boolean,,,,,,true,,100ms");
    assert!(
        imported.list.contains("# groups = { \"100ms\" = \"100ms\", \"1s\" = \"1s\" }"),
        "{}",
        imported.list
    );
    passes(&imported, "address = \"plc\"");
}

#[test]
fn negated_and_reversed_scales_are_right() {
    let row = |rest: &str| {
        format!(
            "Tag Name,Address,Data Type,Client Access,Scaling,Raw Low,Raw High,Scaled Low,Scaled High,Clamp Low,Clamp High,Negate Value\n\
             a,400001,Short,RO,Linear,{rest}\n"
        )
    };
    for (rest, expected) in [
        ("0,100,0,10,0,0,1", "-0.1,,"),
        ("0,100,10,0,0,0,0", "-0.1,10,"),
        ("100,200,0,10,1,1,1", "-0.1,10,,-10,0,"),
        ("0,100,0,100,0,0,0", ",,"),
    ] {
        let imported = done(Source::Kepware, row(rest).as_bytes(), &ImportOptions::default());
        let line = lines(&imported)[0];
        assert!(line.starts_with(&format!("a,hr:0,int16,{expected}")), "{rest}: {line}");
    }
    let imported = done(Source::Kepware, row("5,5,0,10,0,0,0").as_bytes(), &ImportOptions::default());
    assert_eq!((imported.taken, imported.left_out.len()), (0, 1));
}

#[test]
fn kepware_s7_tags_become_points() {
    let imported =
        done(Source::Kepware, include_bytes!("examples/kepware_s7.csv"), &ImportOptions::default());
    let found: Vec<String> =
        lines(&imported).iter().map(|line| line.split(",,").next().unwrap().to_owned()).collect();
    assert_eq!(
        found,
        [
            "Level,DB1.DBD4,float",
            "Valve,DB1.DBX0.3,boolean",
            "Count,DB1.DBD8,int32",
            "Name,DB2.STRING10[20],string",
            "Word,MW10,uint16",
            "In,I0.1,boolean",
            "Timer,T5,uint32",
        ]
    );
    let found = left_out(&imported).join("\n");
    assert!(found.contains("Periphery = PIW256: is peripheral memory") && found.contains("Grid"), "{found}");
    passes(&imported, "address = \"plc\"");
}

#[test]
fn tags_of_logix_are_told_from_those_of_an_s7() {
    let text = "Tag Name,Address,Data Type\na,Motor1,Long\nb,Program:Main.Level[3].PV,Float\n";
    let mut found = Found {
        file: Path::new("x"),
        options: &ImportOptions::default(),
        driver: "",
        unit: None,
        drafts: Vec::new(),
        left_out: Vec::new(),
        notes: BTreeSet::new(),
    };
    kepware::read(text.as_bytes(), &mut found).unwrap();
    assert_eq!(found.driver, "ethernet-ip");
    assert_eq!(found.drafts[1].address, "Program:Main.Level[3].PV");
}

const TIA: &[u8] = include_bytes!("examples/tia.csv");

fn check_tia(imported: &Imported) {
    assert_eq!(
        lines(imported),
        [
            "Level sensor,MD20,float,,,,,,false,\"Level, raw\"",
            "Pump on,Q0.1,boolean,,,,,,false,",
            "Start,I0.0,boolean,,,,,,false,",
            "Motors/Cycle,MW10,int16,,,,,,false,",
            "Line 2/Cycle,MD12,int32,,,,,,false,",
            "Run time,MTIME40,int32,,,,,,false,",
            "Delay,T5,uint32,,,,,,false,",
            "Letter,MCHAR60[1],string,,,,,,false,",
            "Block,DB5.DBD4,float,,,,,,false,",
        ]
    );
    let found = left_out(imported);
    assert!(found[0].starts_with("export:10: Direct = %IW64:P: is direct access"), "{found:?}");
    assert!(found[1].contains("Recipe = \"Recipe_UDT\": is a type of the project's own"), "{found:?}");
    assert!(found[2].contains("Wrong = Int: does not fit the length of its address"), "{found:?}");
    assert_eq!(found.len(), 3);
    passes(imported, "address = \"plc\"");
}

#[test]
fn a_tag_table_of_tia_becomes_points() {
    check_tia(&done(Source::Tia, TIA, &ImportOptions::default()));
    let writable = done(Source::Tia, TIA, &ImportOptions { writable: true, ..ImportOptions::default() });
    let found: Vec<&str> = lines(&writable);
    assert!(
        found[1].contains(",true,") && found[2].contains(",false,") && found[6].contains(",false,"),
        "{found:?}"
    );
    passes(&writable, "address = \"plc\"");
}

#[test]
fn a_workbook_with_other_sheets_is_the_same_as_csv() {
    // Written by openpyxl, which is not ours, in the form of TIA's export.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let venv = std::env::var_os("FOREBAY_VENV").map_or_else(|| root.join(".venv"), Into::into);
    let python = venv.join("bin/python");
    let dir = tempfile::tempdir().unwrap();
    let (csv, book) = (dir.path().join("tia.csv"), dir.path().join("tia.xlsx"));
    std::fs::write(&csv, TIA).unwrap();
    let script = "import csv, sys, openpyxl\nbook = openpyxl.Workbook()\nbook.active.title = 'TagTable Properties'\n\
                  book.active.append(['Path', 'BelongsToUnit'])\nsheet = book.create_sheet('PLC Tags')\n\
                  [sheet.append(row) for row in csv.reader(open(sys.argv[1], encoding='utf-8'))]\nbook.save(sys.argv[2])\n";
    let status =
        std::process::Command::new(python).args(["-c", script]).args([&csv, &book]).status().unwrap();
    assert!(status.success());
    check_tia(&done(Source::Tia, &std::fs::read(&book).unwrap(), &ImportOptions::default()));
}

#[test]
fn tags_of_neuron_become_points() {
    let bytes = include_bytes!("examples/neuron.csv");
    let imported = done(Source::Neuron, bytes, &ImportOptions::default());
    assert_eq!(
        lines(&imported),
        [
            "fast/temp,hr:0,int16,0.1,-5,,,,false,Ram",
            "status,hr:9.4,boolean,,,,,,false,",
            "energy,ir:2 CDAB,uint32,,,,,,false,",
            "slow/temp,hr:19 DCBA,float,,,,,,false,",
            "serial,hr:99 len=20 byte=little,string,,,,,,false,",
            "coil,co:0,boolean,,,,,,false,",
        ]
    );
    let found = left_out(&imported).join("\n");
    for expected in
        ["other = 2: is of unit 2", "odd = 1!500001", "half = 1!400200.8D: has one character in a register"]
    {
        assert!(found.contains(expected), "{expected}\nnot in\n{found}");
    }
    passes(&imported, "address = \"plc\"");
    let second = done(Source::Neuron, bytes, &ImportOptions { unit: Some(2), ..ImportOptions::default() });
    assert_eq!(lines(&second), ["other,hr:0,int16,,,,,,false,"]);
    assert!(second.list.contains("# unit = 2\n"), "{}", second.list);
    let opcua = b"group,interval,name,address,attribute,type\ng,100,a,2!Device1.Temp,Read,DOUBLE\ng,100,b,0!2258,1,4\n";
    let opcua = done(Source::Neuron, opcua, &ImportOptions::default());
    assert_eq!(
        lines(&opcua),
        ["a,ns=2;s=Device1.Temp,double,,,,,,false,", "b,ns=0;i=2258,uint16,,,,,,false,"]
    );
    passes(&opcua, "url = \"opc.tcp://h:4840\"");
    let s7 = b"name,address,type\na,DB10.DBW2,FLOAT\nb,F4.1,BIT\nc,I0,INT16\n";
    let s7 = done(Source::Neuron, s7, &ImportOptions::default());
    assert_eq!(
        lines(&s7),
        ["a,DB10.DBD2,float,,,,,,false,", "b,M4.1,boolean,,,,,,false,", "c,IW0,int16,,,,,,false,"]
    );
    passes(&s7, "address = \"plc\"");
}

#[test]
fn telegrafs_registers_and_requests_become_points() {
    let bytes = include_bytes!("examples/telegraf.toml");
    let imported = done(Source::Telegraf, bytes, &ImportOptions::default());
    assert_eq!(
        lines(&imported),
        [
            "motor_run,co:4,boolean,,,,,,false,",
            "start,di:0,boolean,,,,,,false,",
            "power_factor,hr:8,int16,0.01,,,,,false,",
            "energy,hr:5,int32,0.001,,,,,false,",
            "power,hr:3 CDAB,uint32,0.1,,,,,false,",
            "level,ir:0 DCBA,float,,,,,,false,",
            "low,ir:9,uint8,,,,,,false,",
            "drive/power,hr:40,int16,0.1,,,,,false,",
            "hours,hr:42 CDAB,uint32,,,,,,false,",
            "label,hr:44 len=8,string,,,,,,false,",
        ]
    );
    let found = left_out(&imported).join("\n");
    for expected in [
        "half = FLOAT16-IEEE: FLOAT16-IEEE is not read here",
        "holes = [30, 32]: needs its registers",
        "elsewhere = 4: is of unit 4",
    ] {
        assert!(found.contains(expected), "{expected}\nnot in\n{found}");
    }
    assert!(imported.left_out.iter().all(|problem| problem.line > 20), "{found}");
    passes(&imported, "address = \"meter\"");
}

#[test]
fn what_is_no_export_is_said() {
    for (source, text) in [
        (Source::Kepware, "a,b\n1,2\n"),
        (Source::Tia, ""),
        (Source::Neuron, "PK\u{3}\u{4}nonsense"),
        (Source::Telegraf, "[[inputs.cpu]]\n"),
        (Source::Telegraf, "= nonsense"),
    ] {
        assert!(
            import(Path::new("x"), text.as_bytes(), source, &ImportOptions::default()).is_err(),
            "{text:?}"
        );
    }
    let unknown = ImportOptions { driver: Some("profibus".into()), ..ImportOptions::default() };
    assert!(import(Path::new("x"), MODBUS, Source::Kepware, &unknown).unwrap_err().contains("no driver"));
}

#[test]
fn any_bytes_are_read_or_refused() {
    bolero::check!().for_each(|bytes: &[u8]| {
        for source in [Source::Kepware, Source::Tia, Source::Neuron, Source::Telegraf] {
            import(Path::new("x"), bytes, source, &ImportOptions::default()).ok();
        }
    });
}
