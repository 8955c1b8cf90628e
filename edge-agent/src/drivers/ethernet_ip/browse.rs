//! What a controller has, as a point list: `forebay browse ethernet-ip`.
//!
//! Tags of the controller and of its programs, from the class of symbols; members of structures from their templates. An
//! elementary value becomes a line with its type and whether it may be written, an array a line for each element. What is no
//! single value is a remark.

use std::collections::HashMap;
use std::time::Duration;

use model::DataType;

use super::cip;
use super::connection::{Connection, Settings, refused};
use super::template::{self, Access, Kind, Member, Symbol, TAGS_MAX};
use super::{PORT_DEFAULT, SIZE_DEFAULT, route, value};
use crate::drivers::found_points::{Line, list};
use crate::drivers::{DriverError, parse_target};
use crate::pace::Pace;

/// Elements of an array that get a line each.
const ELEMENTS_MAX: u64 = 100;
/// Structures in structures.
const DEPTH_MAX: usize = 16;
/// More is a mistake in `from`, or a controller without end.
const LINES_MAX: usize = 1_000_000;
const TEMPLATES_MAX: usize = 4096;
/// Bytes of a template that are asked for at once.
const PART_BYTES: usize = 440;

/// What to browse.
#[derive(Clone, Debug)]
pub struct BrowseOptions {
    /// `host` or `host:port`.
    pub address: String,
    /// As a device's `route`.
    pub route: String,
    /// Only what begins so, such as `Program:Main` or `Cells`.
    pub from: Option<String>,
    /// Time limit of a request.
    pub timeout: Duration,
}

/// The point list, as CSV.
pub async fn browse(options: &BrowseOptions) -> Result<String, DriverError> {
    let config = |rule: String| DriverError::Config(rule);
    let settings = Settings {
        target: parse_target(&options.address, PORT_DEFAULT).map_err(config)?,
        route: route::parse(&options.route).map_err(|rule| config(format!("route {rule}")))?,
        is_connected: true,
        size: u16::try_from(SIZE_DEFAULT).unwrap_or_default(),
        deadline: options.timeout,
    };
    let connection = Connection::open(&settings, Pace::default()).await?;
    let from = options.from.as_deref().unwrap_or_default().to_ascii_lowercase();
    let mut browser = Browser { connection, from, templates: HashMap::new(), lines: Vec::new() };
    let symbols = browser.symbols(None).await?;
    for symbol in &symbols {
        browser.tag("", symbol).await?;
    }
    for program in symbols.iter().filter(|symbol| symbol.name.starts_with("Program:")) {
        for symbol in browser.symbols(Some(&program.name)).await? {
            browser.tag(&format!("{}.", program.name), &symbol).await?;
        }
    }
    browser.connection.close().await;
    if browser.lines.is_empty() {
        return Err(DriverError::Config(match &options.from {
            Some(from) => format!("there is no tag that begins with {from}"),
            None => "there are no tags".into(),
        }));
    }
    Ok(list(browser.lines))
}

struct Browser {
    connection: Connection,
    /// In lower case.
    from: String,
    templates: HashMap<u16, Vec<Member>>,
    lines: Vec<Line>,
}

impl Browser {
    /// All tags of the controller or of a program.
    async fn symbols(&mut self, program: Option<&str>) -> Result<Vec<Symbol>, DriverError> {
        let (mut found, mut from, mut with_access): (Vec<Symbol>, u32, bool) = (Vec::new(), 0, true);
        loop {
            let request = template::symbols(program, from, with_access);
            let bytes = self.connection.exchange(&request).await?;
            let answer = cip::answer(&bytes, cip::INSTANCE_ATTRIBUTES).map_err(DriverError::Malformed)?;
            if !answer.status.is_ok() && !answer.status.is_partial() {
                if with_access && from == 0 {
                    with_access = false; // not before version 18
                    continue;
                }
                return Err(refused(&answer));
            }
            let part = template::parse_symbols(answer.data, with_access);
            let part = part.ok_or_else(|| DriverError::Malformed("a list of tags that is cut".into()))?;
            let last = part.last().map(|symbol| symbol.instance);
            found.extend(part);
            match last {
                Some(last) if answer.status.is_partial() && last >= from && found.len() <= TAGS_MAX => {
                    from = last.saturating_add(1);
                }
                _ if answer.status.is_partial() => {
                    return Err(DriverError::Malformed("a list of tags without end".into()));
                }
                _ => return Ok(found),
            }
        }
    }

    async fn tag(&mut self, scope: &str, symbol: &Symbol) -> Result<(), DriverError> {
        let is_hidden = symbol.is_system
            || symbol.access == Access::None
            || symbol.name.starts_with("__")
            || ["Program:", "Routine:", "Task:", "Map:", "Cxn:"]
                .iter()
                .any(|kind| symbol.name.starts_with(kind));
        let address = format!("{scope}{}", symbol.name);
        let is_meant = address.to_ascii_lowercase().starts_with(&self.from);
        if is_hidden || !is_meant {
            return Ok(());
        }
        // What is left to look at, the next one last.
        let mut open: Vec<(String, Kind, Vec<u32>, usize)> =
            vec![(address, symbol.kind, symbol.sizes.clone(), 0)];
        let is_writable = symbol.access == Access::ReadWrite;
        while let Some((address, kind, sizes, depth)) = open.pop() {
            if self.lines.len() >= LINES_MAX {
                let reason = format!("more than {LINES_MAX} values: browse a part, with --from");
                return Err(DriverError::Config(reason));
            }
            let line = |address: &str, data_type| Line {
                name: address.replace('.', "/"),
                address: address.to_owned(),
                data_type,
                is_writable: is_writable && data_type.is_some(),
                ..Line::default()
            };
            if !sizes.is_empty() {
                let is_bits = kind == Kind::Elementary(value::DWORD) && sizes.len() == 1;
                let sizes: Vec<u64> =
                    sizes.iter().map(|size| u64::from(*size) * if is_bits { 32 } else { 1 }).collect();
                let count = sizes.iter().fold(1_u64, |product, size| product.saturating_mul(*size));
                if count == 0 || count > ELEMENTS_MAX {
                    self.lines.push(line(&address, None));
                    continue;
                }
                let kind = if is_bits { Kind::Elementary(value::BOOL) } else { kind };
                for nth in (0..count).rev() {
                    open.push((format!("{address}{}", index(nth, &sizes)), kind, Vec::new(), depth));
                }
                continue;
            }
            match kind {
                Kind::Elementary(code) => self.lines.push(line(&address, value::data_type(code))),
                Kind::Structure(_) if depth >= DEPTH_MAX => self.lines.push(line(&address, None)),
                Kind::Structure(number) => {
                    let members = self.members(number).await?;
                    if template::is_text(&members) {
                        self.lines.push(line(&address, Some(DataType::String)));
                        continue;
                    }
                    for member in members.iter().rev() {
                        let sizes = if member.size == 0 { Vec::new() } else { vec![u32::from(member.size)] };
                        open.push((format!("{address}.{}", member.name), member.kind, sizes, depth + 1));
                    }
                }
            }
        }
        Ok(())
    }

    /// The members of a structure; of one whose template cannot be read, none.
    async fn members(&mut self, number: u16) -> Result<Vec<Member>, DriverError> {
        if let Some(known) = self.templates.get(&number) {
            return Ok(known.clone());
        }
        let bytes = self.connection.exchange(&template::template_size(number)).await?;
        let answer = cip::answer(&bytes, cip::ATTRIBUTE_LIST).map_err(DriverError::Malformed)?;
        if !answer.status.is_ok() {
            return Ok(Vec::new());
        }
        let malformed = || DriverError::Malformed(format!("template {number} cannot be understood"));
        let (members, size) = template::parse_template_size(answer.data).ok_or_else(malformed)?;
        let mut text: Vec<u8> = Vec::new();
        while text.len() < size {
            let part = (size - text.len()).min(PART_BYTES);
            let bytes = self.connection.exchange(&template::read_template(number, text.len(), part)).await?;
            let answer = cip::answer(&bytes, cip::READ).map_err(DriverError::Malformed)?;
            let is_there = answer.status.is_ok() || answer.status.is_partial();
            if !is_there {
                return Err(refused(&answer));
            }
            if answer.data.is_empty() {
                break;
            }
            text.extend(answer.data.iter().take(part));
        }
        let found = template::parse_template(&text, members).ok_or_else(malformed)?;
        if self.templates.len() < TEMPLATES_MAX {
            self.templates.insert(number, found.clone());
        }
        Ok(found)
    }
}

/// `[1,2]` of the element with this number; the last index goes round first.
fn index(nth: u64, sizes: &[u64]) -> String {
    let (mut rest, mut indices) = (nth, Vec::new());
    for size in sizes.iter().rev() {
        indices.push((rest % size).to_string());
        rest /= size;
    }
    indices.reverse();
    format!("[{}]", indices.join(","))
}
