//! What points of one device have in common by their places: the same one twice, places that overlap, places beyond an end.
//!
//! Nothing of it is a mistake: two points may look at one register on purpose. All of it is a warning of `forebay check`.

use std::collections::HashMap;
use std::hash::Hash;

use model::DataType;
use runtime::config_file::{Located, Problems, Section};

use super::DeviceSetup;
use crate::points::PointConfig;

/// The bits or cells that a point takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Index in the device's list.
    pub(super) point: usize,
    /// What is not addressed together has different numbers.
    pub(super) area: u64,
    /// First of them ...
    pub(super) from: u64,
    /// ... and the one after the last.
    pub(super) to: u64,
}

/// Warns of points that are at the same place or overlap. Single bits may lie in whole numbers.
pub(super) fn warn_of_overlaps(setup: &DeviceSetup, mut extents: Vec<Extent>, problems: &mut Problems) {
    // The wider one first, so that bits find the number in which they lie.
    extents.sort_by_key(|extent| (extent.area, extent.from, std::cmp::Reverse(extent.to), extent.point));
    let mut reach: Option<(Extent, &PointConfig)> = None;
    let mut bit: Option<(Extent, &PointConfig)> = None;
    for extent in extents {
        let Some(point) = setup.points.get(extent.point) else { continue };
        let is_bit = extent.to - extent.from == 1;
        let meets = |(other, _): &(Extent, &PointConfig)| other.area == extent.area && other.to > extent.from;
        if let Some((_, other)) = bit.filter(meets).filter(|_| is_bit) {
            warn_of_pair(setup, other, point, problems);
        } else if let Some((_, other)) = reach.filter(meets)
            && !(is_bit && may_hold_bits(other.raw_type))
        {
            warn_of_pair(setup, other, point, problems);
        }
        if is_bit {
            bit = Some((extent, point));
        } else if reach.is_none_or(|(other, _)| other.area != extent.area || other.to < extent.to) {
            reach = Some((extent, point));
        }
    }
}

/// Warns of points with the same key: where an address names a thing, not a range.
pub(super) fn warn_of_twins<K: Hash + Eq>(
    setup: &DeviceSetup,
    keys: impl Iterator<Item = K>,
    problems: &mut Problems,
) {
    let mut first: HashMap<K, &PointConfig> = HashMap::new();
    for (key, point) in keys.zip(&setup.points) {
        match first.get(&key) {
            Some(other) => warn_of_pair(setup, other, point, problems),
            None => {
                first.insert(key, point);
            }
        }
    }
}

fn warn_of_pair(setup: &DeviceSetup, one: &PointConfig, other: &PointConfig, problems: &mut Problems) {
    let (first, later) = if one.line <= other.line { (one, other) } else { (other, one) };
    let (name, line) = (&first.definition.metric, first.line);
    let (ours, theirs) = (later.raw_type.name(), first.raw_type.name());
    let is_same = first.address.trim() == later.address.trim();
    let rule = match (is_same, ours == theirs) {
        (true, true) => format!("is the address of {name} in line {line} too, with the same type"),
        (true, false) => {
            format!("is the address of {name} in line {line} too, there as {theirs}, here as {ours}")
        }
        (false, _) => format!(
            "overlaps with {} of {name} in line {line}, {theirs} there and {ours} here",
            first.address.trim()
        ),
    };
    problems.warn(setup.address_problem(later, rule));
}

/// Status words and their bits are read side by side.
const fn may_hold_bits(data_type: DataType) -> bool {
    !matches!(data_type, DataType::Float | DataType::Double | DataType::String | DataType::DateTime)
}

/// `limits = { hr = 10000 }`: how many cells or bytes a device has of its areas, by their names.
pub(super) fn limits(
    section: &mut Section<'_>,
    is_area: impl Fn(&str) -> bool,
    names: &str,
    problems: &mut Problems,
) -> HashMap<String, Located<i64>> {
    let Some(mut table) = section.section("limits", problems) else { return HashMap::new() };
    let mut found = HashMap::new();
    for key in table.keys() {
        if !is_area(&key) {
            problems.push(table.problem(&key, format!("is no area; known: {names}")));
            table.has(&key);
        } else if let Some(limit) = table.integer(&key, problems, 0..=65_536) {
            found.insert(key, limit);
        }
    }
    table.finish(problems);
    found
}

/// Warns of a point that ends beyond what its device has: `end` is the cell or byte after its last.
pub(super) fn warn_beyond(
    setup: &DeviceSetup,
    point: &PointConfig,
    end: u64,
    size: u64,
    whose: &str,
    problems: &mut Problems,
) {
    if end > size {
        let rule = format!("needs {end}, and {whose} {size}: it cannot be read");
        problems.warn(setup.address_problem(point, rule));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::config_file::ConfigFile;
    use std::path::Path;

    use crate::drivers::KINDS;

    /// The warnings for a list of a device of that kind.
    fn warnings(kind: &str, keys: &str, list: &str) -> Vec<String> {
        let file = ConfigFile::from_text(Path::new("d.toml"), keys.to_owned());
        let mut problems = Problems::default();
        let mut section = file.parse(&mut problems);
        let points_file = Path::new("p.csv").to_owned();
        let points = crate::points::parse_list(&points_file, list.as_bytes(), "d", &mut problems);
        let setup = DeviceSetup {
            name: "d".into(),
            points,
            points_file,
            state_dir: "state".into(),
            clock: runtime::clock::Clock::machine(),
            pace: crate::pace::Pace::default(),
            shared: crate::shared::Shared::default(),
        };
        let kind = KINDS.iter().find(|known| known.name == kind).unwrap();
        let driver = (kind.validate)(&mut section, &setup, &mut problems);
        section.finish(&mut problems);
        assert!(problems.is_empty() && driver.is_some(), "{:?}", problems.list);
        problems.warnings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn modbus_points_that_share_registers_are_told() {
        let found = warnings(
            "modbus-tcp",
            "address = \"h\"\nlimits = { hr = 1000, co = 8 }\n",
            "name,address,type,scale\n\
             a,hr:1,float,\nb,hr:2,int16,\nc,hr:1,float,\nd,hr:10,uint16,\nbit,hr:10.3,boolean,\nbit2,hr:10.3,boolean,\n\
             e,hr:20,uint8,\nf,hr:20 byte=little,uint8,\ng,ir:1,float,\nh,hr:30,uint16,\ni,hr:30,int16,\n\
             in_float,hr:1.5,boolean,\nend,hr:999,uint32,\nlast,hr:998,uint32,\ncoil,co:8,boolean,\nm,hr:40 as=int16 sf=42,double,\n\
             n,hr:41 as=int16 sf=42,double,\no,sunspec:103:50 as=int16 sf=51,double,\np,sunspec:103:52,uint16,\n\
             q,sunspec:103:51,int16,\nr,sunspec:203:52,uint16,\n",
        );
        assert_eq!(
            found,
            [
                "p.csv:14: address = hr:999: needs 1001, and limits says that the device has 1000: it cannot be read",
                "p.csv:16: address = co:8: needs 9, and limits says that the device has 8: it cannot be read",
                "p.csv:20: address = sunspec:103:52: needs 53, and model 103 has 52: it cannot be read",
                "p.csv:4: address = hr:1: is the address of a in line 2 too, with the same type",
                "p.csv:13: address = hr:1.5: overlaps with hr:1 of a in line 2, float there and boolean here",
                "p.csv:3: address = hr:2: overlaps with hr:1 of a in line 2, float there and int16 here",
                "p.csv:7: address = hr:10.3: is the address of bit in line 6 too, with the same type",
                "p.csv:12: address = hr:30: is the address of h in line 11 too, there as uint16, here as int16",
                "p.csv:15: address = hr:998: overlaps with hr:999 of end in line 14, uint32 there and uint32 here",
            ]
        );
    }

    #[test]
    fn s7_points_that_share_bytes_or_lie_beyond_the_end_are_told() {
        let found = warnings(
            "s7",
            "address = \"h\"\nlimits = { M = 8192, DB5 = 20 }\n",
            "name,address,type\n\
             a,DB1.DBD4,float\nb,DB1.DBW6,int16\nc,DB2.DBW6,int16\nd,DB1.DBX4.1,boolean\ne,DB1.DBW0,uint16\nf,DB1.DBX0.1,boolean\n\
             g,%DB1.DBD4,float\nh,MW8192,uint16\ni,DB5.STRING10[20],string\nj,DB5.DBW18,int16\nk,QW32767,int16\nl,T2048,uint32\n",
        );
        let text = found.join("\n");
        for expected in [
            "p.csv:3: address = DB1.DBW6: overlaps with DB1.DBD4 of a in line 2",
            "p.csv:5: address = DB1.DBX4.1: overlaps with DB1.DBD4 of a in line 2",
            "p.csv:8: address = %DB1.DBD4: overlaps with DB1.DBD4 of a in line 2, float there and float here",
            "p.csv:9: address = MW8192: needs 8194, and limits says that the device has 8192",
            "p.csv:10: address = DB5.STRING10[20]: needs 32, and limits says that the device has 20",
            "p.csv:11: address = DB5.DBW18: overlaps with DB5.STRING10[20] of i in line 10",
            "p.csv:12: address = QW32767: needs 32769, and the largest CPU has 32768",
            "p.csv:13: address = T2048: needs 2049, and the largest CPU has 2048",
        ] {
            assert!(text.contains(expected), "{expected}\nnot in\n{text}");
        }
        assert_eq!(found.len(), 8, "{text}");
    }

    #[test]
    fn nodes_and_columns_that_are_read_twice_are_told() {
        let list = "name,address,type\na,ns=2;s=X,double\nb,ns=2;s=X sampling=1s,double\nc,ns=2;s=X[1],double\nd,ns=2;s=X,float\n";
        let found = warnings("opcua", "url = \"opc.tcp://h:4840\"\nsecurity = \"none\"\n", list);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[1].contains("there as double, here as float"), "{found:?}");
        let list = "name,address,type\na,Temp,double\nb,Temp,double\n";
        let found = warnings("files", "folder = \"f\"\n", list);
        assert_eq!(found, ["p.csv:3: address = Temp: is the address of a in line 2 too, with the same type"]);
    }

    #[test]
    fn a_limit_of_an_unknown_area_is_a_mistake() {
        let file = ConfigFile::from_text(Path::new("d.toml"), "limits = { hx = 5, hr = -1 }\n".to_owned());
        let mut problems = Problems::default();
        let mut section = file.parse(&mut problems);
        limits(&mut section, |name| name == "hr", "hr", &mut problems);
        assert_eq!(problems.list.len(), 2, "{:?}", problems.list);
    }
}
