//! What `forebay browse` found in a device, as a point list: CSV that [`crate::points`] reads, each name once. Pure.

use std::collections::HashSet;

use model::DataType;

/// A point's name is read by people and becomes a metric.
const NAME_BYTES_MAX: usize = 200;

/// A line of the list.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) address: String,
    /// None: it is no single value.
    pub(super) data_type: Option<DataType>,
    pub(super) unit: String,
    pub(super) range: Option<(f64, f64)>,
    pub(super) is_writable: bool,
    pub(super) description: String,
}

/// The file.
pub(super) fn list(lines: Vec<Line>) -> String {
    let mut names: HashSet<String> = HashSet::new();
    let mut remarks = String::new();
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = ["name", "address", "type", "unit", "min", "max", "writable", "description"];
    writer.write_record(header).ok(); // into memory
    for line in lines {
        let Some(data_type) = line.data_type else {
            remarks.push_str(&format!(
                "# {}: {} is no single value\n",
                clean(&line.address),
                clean(&line.name)
            ));
            continue;
        };
        let name = unique(&line.name, &mut names);
        let (min, max) = match line.range.filter(|(low, high)| low < high && data_type.is_numeric()) {
            Some((low, high)) => (low.to_string(), high.to_string()),
            None => (String::new(), String::new()),
        };
        let unit = if data_type.is_numeric() { line.unit.as_str() } else { "" };
        let writable = if line.is_writable { "true" } else { "false" };
        let description: String = line.description.chars().filter(|c| *c != '\0').take(250).collect();
        let record =
            [&name, line.address.as_str(), data_type.name(), unit, &min, &max, writable, &description];
        writer.write_record(record).ok(); // into memory
    }
    let bytes = writer.into_inner().unwrap_or_default();
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    text.push_str(&remarks);
    text
}

fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A name that no other point has, and that is none of a remark.
fn unique(path: &str, names: &mut HashSet<String>) -> String {
    let mut name = clean(path).trim().trim_start_matches('#').to_owned();
    while name.len() > NAME_BYTES_MAX {
        name.remove(0);
    }
    if name.is_empty() {
        name.push_str("point");
    }
    let mut nth = 2;
    let mut candidate = name.clone();
    while !names.insert(candidate.clone()) {
        candidate = format!("{name}~{nth}");
        nth += 1;
    }
    candidate
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use runtime::config_file::Problems;

    use super::*;
    use crate::points::parse_list;

    #[test]
    fn what_is_written_is_a_point_list() {
        let line = |name: &str, data_type| Line {
            name: name.into(),
            address: "ns=2;s=a, \"b\"".into(),
            data_type,
            unit: "Cel".into(),
            range: Some((-1.0, 1.0)),
            is_writable: true,
            description: "Line\nof \"text\", long".into(),
        };
        let long = "x/".repeat(300);
        let lines = vec![
            line("a", Some(DataType::Double)),
            line("a", Some(DataType::Boolean)),
            line("#b", Some(DataType::String)),
            line(&long, Some(DataType::Int16)),
            line("state", None),
        ];
        let text = list(lines);
        let mut problems = Problems::default();
        let points = parse_list(Path::new("p.csv"), text.as_bytes(), "d", &mut problems);
        assert!(problems.is_empty(), "{:?}\n{text}", problems.list);
        assert_eq!(points.len(), 4);
        assert_eq!((points[0].definition.unit.as_str(), points[0].definition.max), ("Cel", Some(1.0)));
        assert_eq!(points[0].address, "ns=2;s=a, \"b\"");
        assert_eq!(points[1].definition.metric, "a~2");
        assert!(text.contains("# ns=2;s=a, \"b\": state is no single value"), "{text}");
    }
}
