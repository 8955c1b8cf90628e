//! The access file: roles, and the identities that have them.
//!
//! ```toml
//! version = 1
//! [roles.agent]                        # %i identity's name, %g and %n group and node, %% a percent sign
//! publish = ["spBv1.0/%g/NDATA/%n"]    # topic filters
//! subscribe = ["spBv1.0/STATE/#"]
//! [[identities]]
//! name = "line-3"                      # no / + # or control characters, no $ in front
//! node = "antwerp/line-3"              # the Sparkplug node as which it speaks
//! roles = ["agent"]
//! password = "$argon2id$…"             # `forebay user add` writes it
//! token = "sha256:…"                   # SHA-256 of a long random text, in hex
//! certificate = true                   # may log in with a client certificate for this name
//! certificates_from = "2026-11-25T10:00:00Z"   # older certificates are refused
//! disabled = false
//! ```
//! Every mistake is told in one run, with line, value and rule. Names that are put into filters cannot widen them: what
//! has a meaning in a filter is no part of a name.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use model::{NodeId, Timestamp};
use runtime::config_file::{ConfigFile, Located, Problems, Section};

use super::password::{PasswordHash, parse_token_hash};
use super::pattern::check_filter;
use super::rights::{Reserved, Rights, expand};
use super::{AGENT_ROLE, ANONYMOUS};

/// Bytes of the file: 100 000 identities.
pub(super) const FILE_BYTES_MAX: u64 = 32 << 20;
/// Bytes of an identity's name: a host name fits.
const NAME_BYTES_MAX: usize = 255;
const ROLES_MAX: usize = 256;
const FILTERS_PER_ROLE_MAX: usize = 256;
const ROLES_PER_IDENTITY_MAX: usize = 16;
const IDENTITIES_MAX: usize = 100_000;

/// A role's name, shared by all who have it.
pub(super) type RoleName = Arc<str>;

/// Topic filters, with placeholders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) publish: Vec<String>,
    pub(super) subscribe: Vec<String>,
}

/// Somebody who may log in.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) node: Option<NodeId>,
    pub(super) roles: Vec<RoleName>,
    pub(super) password: Option<PasswordHash>,
    pub(super) token: Option<[u8; 32]>,
    pub(super) certificate: bool,
    pub(super) certificates_from: Option<Timestamp>,
    pub(super) disabled: bool,
}

/// The file, read and checked.
#[derive(Debug, Default)]
pub(super) struct AccessFile {
    pub(super) roles: BTreeMap<RoleName, Role>,
    pub(super) identities: Vec<Entry>,
    by_name: HashMap<String, usize>,
    by_token: HashMap<[u8; 32], usize>,
}

impl Entry {
    /// Whether a certificate for this name that is valid from that time on is a login.
    pub(super) fn accepts_certificate(&self, not_before: Timestamp) -> bool {
        self.certificate && self.certificates_from.is_none_or(|from| from.micros() <= not_before.micros())
    }
}

impl AccessFile {
    /// Reads the text; `path` is what messages say. Every mistake is in the error, one per line.
    pub(super) fn parse(path: &Path, text: String) -> Result<AccessFile, String> {
        let source = ConfigFile::from_text(path, text);
        let mut problems = Problems::default();
        let mut root = source.parse(&mut problems);
        if !root.has("version") {
            problems.push(root.problem("version", "is missing; write version = 1"));
        }
        root.integer("version", &mut problems, 1..=1);
        let mut file = AccessFile::default();
        if let Some(roles) = root.section("roles", &mut problems) {
            file.read_roles(roles, &mut problems);
        }
        let identities = root.sections("identities", &mut problems);
        if let Some(first) = identities.get(IDENTITIES_MAX) {
            problems.push(first.problem("", format!("is one too many: at most {IDENTITIES_MAX} identities")));
        }
        let mut nodes = HashMap::new();
        for entry in identities.into_iter().take(IDENTITIES_MAX) {
            file.read_identity(entry, &mut nodes, &mut problems);
        }
        root.finish(&mut problems);
        if problems.is_empty() {
            return Ok(file);
        }
        let lines: Vec<String> = problems.list.iter().map(ToString::to_string).collect();
        Err(lines.join("\n"))
    }

    /// The identity of that name and its place.
    pub(super) fn find(&self, name: &str) -> Option<(usize, &Entry)> {
        let nth = *self.by_name.get(name)?;
        Some((nth, self.identities.get(nth)?))
    }

    /// The identity whose token has this hash.
    pub(super) fn find_token(&self, hash: &[u8; 32]) -> Option<&Entry> {
        self.identities.get(*self.by_token.get(hash)?)
    }

    /// What an identity may do.
    pub(super) fn rights(&self, entry: &Entry, reserved: &Arc<Reserved>) -> Rights {
        let roles = entry.roles.iter().filter_map(|role| self.roles.get_key_value(role));
        Rights::new(roles, &entry.name, entry.node.as_ref(), Arc::clone(reserved))
    }

    fn read_roles(&mut self, mut roles: Section<'_>, problems: &mut Problems) {
        let names = roles.keys();
        if names.len() > ROLES_MAX {
            problems.push(roles.problem("", format!("holds more than {ROLES_MAX} roles")));
        }
        for name in names.into_iter().take(ROLES_MAX) {
            let Some(mut section) = roles.section(&name, problems) else { continue };
            if name == ANONYMOUS {
                problems.push(section.problem(
                    "",
                    "cannot be changed: clients without a login read everything where a listener has \
                     anonymous_read = true, and never write",
                ));
            }
            let publish = filters(&mut section, "publish", problems, publish_problem);
            let subscribe = filters(&mut section, "subscribe", problems, |_| None);
            section.finish(problems);
            self.roles.insert(name.into(), Role { publish, subscribe });
        }
    }

    fn read_identity(
        &mut self,
        mut section: Section<'_>,
        nodes: &mut HashMap<NodeId, String>,
        problems: &mut Problems,
    ) {
        if !section.has("name") {
            problems.push(section.problem("name", "is missing; write a text in quotes"));
        }
        let name = section.checked("name", problems, |text| check_name(text).map(|()| text.to_owned()));
        let node = section.checked("node", problems, check_node);
        let roles = self.roles_of(&mut section, node.is_some(), problems);
        let password = secret(&mut section, "password", problems, PasswordHash::parse);
        let token = secret(&mut section, "token", problems, parse_token_hash);
        let certificate = section.boolean("certificate", problems).is_some_and(|l| l.value);
        let certificates_from = section.checked("certificates_from", problems, parse_time).map(|l| l.value);
        let disabled = section.boolean("disabled", problems).is_some_and(|l| l.value);
        section.finish(problems);
        let Some(name) = name else { return };
        let nth = self.identities.len();
        if self.by_name.insert(name.value.clone(), nth).is_some() {
            problems.push(name.problem("is the name of two identities"));
        }
        if let Some(node) = &node
            && let Some(other) = nodes.insert(node.value.clone(), name.value.clone())
        {
            problems.push(node.problem(format!("is the node of two identities: also of {other}")));
        }
        if let Some(token) = &token
            && self.by_token.insert(token.value, nth).is_some()
        {
            problems.push(token.problem("is the token of two identities: make a new one for each"));
        }
        self.identities.push(Entry {
            name: name.value,
            node: node.map(|l| l.value),
            roles,
            password: password.map(|l| l.value),
            token: token.map(|l| l.value),
            certificate,
            certificates_from,
            disabled,
        });
    }

    fn roles_of(&self, section: &mut Section<'_>, has_node: bool, problems: &mut Problems) -> Vec<RoleName> {
        if !section.has("roles") {
            problems.push(section.problem("roles", format!("is missing; write roles = [\"{AGENT_ROLE}\"]")));
        }
        let Some(wanted) = section.texts("roles", problems) else { return Vec::new() };
        if wanted.value.len() > ROLES_PER_IDENTITY_MAX {
            problems.push(wanted.problem(format!("names more than {ROLES_PER_IDENTITY_MAX} roles")));
        }
        let mut roles = Vec::new();
        for name in wanted.value.iter().take(ROLES_PER_IDENTITY_MAX) {
            let Some((known, role)) = self.roles.get_key_value(name.as_str()) else {
                let all: Vec<&str> = self.roles.keys().map(|role| &**role).collect();
                problems
                    .push(wanted.problem(format!("\"{name}\" is no role; roles are: {}", all.join(", "))));
                continue;
            };
            let mut filters = role.publish.iter().chain(&role.subscribe);
            if !has_node && filters.any(|filter| needs_node(filter)) {
                let rule = format!(
                    "role \"{name}\" speaks of a node (%g, %n): write node = \"GROUP/NODE\" beside it"
                );
                problems.push(wanted.problem(rule));
            }
            roles.push(Arc::clone(known));
        }
        roles
    }
}

/// A text that is shown to nobody, were it even wrong: somebody may have written the password itself.
fn secret<T>(
    section: &mut Section<'_>,
    key: &str,
    problems: &mut Problems,
    rule: impl FnOnce(&str) -> Result<T, String>,
) -> Option<Located<T>> {
    let found = Located { text: "(not shown)".into(), ..section.text(key, problems)? };
    match rule(&found.value) {
        Ok(value) => Some(found.map(|_| value)),
        Err(why) => {
            problems.push(found.problem(why));
            None
        }
    }
}

fn filters(
    section: &mut Section<'_>,
    key: &str,
    problems: &mut Problems,
    further: impl Fn(&str) -> Option<&'static str>,
) -> Vec<String> {
    let Some(found) = section.texts(key, problems) else { return Vec::new() };
    if found.value.len() > FILTERS_PER_ROLE_MAX {
        problems.push(found.problem(format!("holds more than {FILTERS_PER_ROLE_MAX} filters")));
    }
    for filter in &found.value {
        let wrong = check_template(filter).err().or_else(|| further(filter).map(str::to_owned));
        if let Some(wrong) = wrong {
            problems.push(Located { text: format!("\"{filter}\""), ..found.clone() }.problem(wrong));
        }
    }
    found.value
}

/// A filter with placeholders, checked as it will be with names in place.
fn check_template(template: &str) -> Result<(), String> {
    let mut rest = template;
    while let Some((_, after)) = rest.split_once('%') {
        if !after.starts_with(['i', 'g', 'n', '%']) {
            return Err(
                "has a % that is none of %i (name), %g (group), %n (node) and %% (a percent sign)".into()
            );
        }
        rest = after.get(1..).unwrap_or("");
    }
    let example = NodeId::new("group", "node").map_err(|error| error.to_string())?;
    check_filter(&expand(template, "name", Some(&example)).unwrap_or_default())
}

/// What would be promised in vain.
fn publish_problem(filter: &str) -> Option<&'static str> {
    let mut levels = filter.split('/');
    if filter.starts_with('$') {
        return Some("nobody but the hub publishes topics that begin with $");
    }
    let is_command = levels.next() == Some("spBv1.0") && matches!(levels.nth(1), Some("NCMD" | "DCMD"));
    is_command.then_some("nobody but the hub publishes commands (NCMD, DCMD); writes go through its API")
}

fn needs_node(template: &str) -> bool {
    let plain = template.replace("%%", "");
    plain.contains("%g") || plain.contains("%n")
}

/// Why a text is no identity's name.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(format!("must have from 1 to {NAME_BYTES_MAX} bytes"));
    }
    if name.contains(['/', '+', '#']) || name.starts_with('$') || name.chars().any(char::is_control) {
        return Err(
            "must not hold / + # or control characters, nor begin with $: they have a meaning in topics"
                .into(),
        );
    }
    if name == ANONYMOUS {
        return Err("is the name of clients without a login".into());
    }
    Ok(())
}

fn check_node(text: &str) -> Result<NodeId, String> {
    let node = NodeId::parse(text).map_err(|error| format!("must be GROUP/NODE: {error}"))?;
    if node.group().starts_with('$') || text.chars().any(char::is_control) {
        return Err("must not begin with $ nor hold control characters".into());
    }
    Ok(node)
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    let time = chrono::DateTime::parse_from_rfc3339(text)
        .map_err(|_| "must be a time such as \"2026-11-25T10:00:00Z\"".to_owned())?;
    Ok(Timestamp(time.timestamp_micros()))
}

#[cfg(test)]
mod tests;
