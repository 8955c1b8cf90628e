//! Lists with their defaults, and every mistake in them.

use super::*;

fn parse(text: &str) -> (Vec<PointConfig>, Vec<String>) {
    let mut problems = Problems::default();
    let points = parse_list(Path::new("p.csv"), text.as_bytes(), "press-1", &mut problems);
    (points, problems.list.iter().map(ToString::to_string).collect())
}

#[test]
fn a_list_gives_points_with_their_defaults() {
    let (points, problems) = parse(
        "\u{feff}# a remark\nName,Address,Type,Scale,Offset,Unit,Dead band,Min,Max,Writable,Path,Description\n\
         Öl/temp,40001,i16,0.1,-40,Cel,0.5,-40,150,,hall/oil,\"Oil, hot\"\n\
         run,1,BOOL,,,,0,,,true,,\n\
         flow,40010,Float,2,,m3/h,,,,,,\n",
    );
    assert_eq!(problems, Vec::<String>::new());
    let [temperature, run, flow] = &points[..] else { panic!("{points:?}") };
    assert_eq!(temperature.definition.path.as_str(), "hall/oil");
    assert_eq!(temperature.definition.metric, "Öl/temp");
    assert_eq!((temperature.raw_type, temperature.definition.data_type), (DataType::Int16, DataType::Double));
    assert_eq!((temperature.scale, temperature.offset), (Some(0.1), Some(-40.0)));
    assert_eq!(temperature.definition.dead_band, Some(0.5));
    assert_eq!(temperature.definition.description, "Oil, hot");
    assert_eq!(run.definition.path.as_str(), "press-1/run");
    assert!(run.definition.writable && !temperature.definition.writable);
    assert_eq!(run.definition.dead_band, Some(0.0));
    assert_eq!((flow.raw_type, flow.definition.data_type), (DataType::Float, DataType::Float));
    assert_eq!(flow.line, 5);
    let (points, problems) = parse("type;name;address\nu8;a;1\n");
    assert_eq!((points.len(), problems.len()), (1, 0));
}

#[test]
fn every_mistake_is_reported_with_its_line() {
    let (points, problems) = parse(
        "name,address,type,scale,offset,unit,deadband,min,max,writable,path,colour\n\
         a,1,int12,,,,,,,,,\n\
         b,2,i16,0,,,-1,5,3,perhaps,,\n\
         b,3,f32,\"0,5\",inf,°C,,,,,,\n\
         c,4,string,2,,m h,1,,,,press-1/b,\n\
         ,5,bool,,,,,,,,,\n\
         d,6,bool,,,[degF,,,,,,\n\
         good,7,u64,,,,,,,,,\n",
    );
    assert_eq!(
        problems,
        [
            "p.csv:1: header = colour: unknown column; known: name, address, type, scale, offset, unit, deadband, min, max, writable, path, description, group",
            "p.csv:2: type = int12: must be one of bool, i8, i16, i32, i64, u8, u16, u32, u64, f32, f64, string, bytes, datetime",
            "p.csv:3: scale = 0: must not be 0",
            "p.csv:3: deadband = -1: must not be negative",
            "p.csv:3: min = 5: must not be above max, which is 3",
            "p.csv:3: writable = perhaps: must be true or false",
            "p.csv:4: name = b: is already the name of line 3",
            "p.csv:4: path = press-1/b: is already the path of line 3",
            "p.csv:4: scale = 0,5: must be a number with a decimal point, such as 0.1",
            "p.csv:4: offset = inf: must be a number with a decimal point, such as 0.1",
            "p.csv:4: unit = °C: is not UCUM; write Cel",
            "p.csv:5: path = press-1/b: is already the path of line 4",
            "p.csv:5: scale = 2: the point's type is no number",
            "p.csv:5: unit = m h: must be UCUM text: ASCII without spaces, such as Cel, bar, m3/h, %",
            "p.csv:5: deadband = 1: the point's type is no number",
            "p.csv:6: name: must not be empty",
            "p.csv:7: unit = [degF: has an open or closing bracket too many",
        ]
    );
    assert_eq!(points.len(), 1);
}

#[test]
fn bytes_that_are_no_list_are_reported() {
    let mut problems = Problems::default();
    let file = Path::new("p.csv");
    assert!(parse_list(file, b"name,address,type\na,\xff,i16\n", "d", &mut problems).is_empty());
    assert!(problems.list[0].rule.contains("UTF-8"), "{:?}", problems.list);
    for text in ["", "name,address,type\n", "nonsense"] {
        assert!(!parse(text).1.is_empty(), "{text:?}");
    }
}
