//! Topic filters compiled for comparing: [`Pattern::matches`] is asked for every PUBLISH, so it allocates nothing and
//! compares the part before the first wildcard in one go.
//!
//! Whether a *set* of filters covers a requested one is decided exactly ([`covers`]). A level that a request leaves
//! open (`+`) can be any text, so only an allowed `+` or `#` stands for it; a request that ends in `#` is covered if it
//! is for every number of further levels.

use super::super::topic_filter::unshared;

/// A path of the plant with room to spare.
const FILTER_BYTES_MAX: usize = 2_048;

/// One filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// Text before the first wildcard, with its `/`; all of a filter without any.
    prefix: Box<str>,
    /// Levels from the first `+` on; `None` is `+`.
    levels: Box<[Option<Box<str>>]>,
    /// Whether it ends in `#`.
    many: bool,
    /// `#` itself: everything but `$…`.
    all: bool,
}

impl Pattern {
    /// A filter that [`check_filter`] accepts.
    pub(super) fn new(filter: &str) -> Pattern {
        let all = filter == "#" || filter == "+/#"; // every topic has a first level
        let (body, many) = match filter.strip_suffix('#') {
            Some(body) => (body.strip_suffix('/').unwrap_or(body), true),
            None => (filter, false),
        };
        let mut at = 0;
        for level in body.split('/') {
            if level == "+" && !all {
                let levels = body.get(at..).unwrap_or("").split('/');
                let levels = levels.map(|level| (level != "+").then(|| level.into())).collect();
                return Pattern { prefix: body.get(..at).unwrap_or("").into(), levels, many, all };
            }
            at += level.len() + 1;
        }
        Pattern { prefix: if all { "" } else { body }.into(), levels: Box::default(), many, all }
    }

    /// Whether the topic is in the set. Wildcards do not stand for a first level that begins with `$` [MQTT-4.7.2-1].
    pub(super) fn matches(&self, topic: &str) -> bool {
        let Some(rest) = topic.strip_prefix(&*self.prefix) else { return false };
        if self.levels.is_empty() {
            if !self.many {
                return rest.is_empty();
            }
            if self.all {
                return !topic.starts_with('$');
            }
            return rest.is_empty() || rest.starts_with('/');
        }
        if self.prefix.is_empty() && topic.starts_with('$') {
            return false;
        }
        let mut levels = rest.split('/');
        for wanted in &self.levels {
            match (levels.next(), wanted) {
                (Some(_), None) => {}
                (Some(level), Some(wanted)) if level == &**wanted => {}
                _ => return false,
            }
        }
        self.many || levels.next().is_none()
    }
}

/// Whether every topic that `requested` can match is in one of the sets. A `$share/group/` is looked through.
pub(super) fn covers<'a>(allowed: impl Iterator<Item = &'a Pattern> + Clone, requested: &str) -> bool {
    let requested = unshared(requested);
    // A topic that `requested` matches, its open levels written `+`: no allowed text equals that.
    let mut topic = match requested.strip_suffix('#') {
        None => return allowed.into_iter().any(|pattern| pattern.matches(requested)),
        Some("") => "+".to_owned(),
        Some("/") => "/+".to_owned(), // there is no empty topic
        Some(body) => body.strip_suffix('/').unwrap_or(body).to_owned(),
    };
    loop {
        let mut found = false;
        for pattern in allowed.clone() {
            if pattern.matches(&topic) {
                if pattern.many {
                    return true; // and so does it every longer one
                }
                found = true;
            }
        }
        if !found {
            return false; // not later than after the longest allowed filter
        }
        topic.push_str("/+");
    }
}

/// Why a text is no topic filter [MQTT-4.7.1-1, MQTT-4.7.1-2, MQTT-4.7.3-1, MQTT-4.7.3-2].
pub(super) fn check_filter(filter: &str) -> Result<(), String> {
    if filter.is_empty() {
        return Err("is empty; write a topic filter such as \"plant/#\"".into());
    }
    if filter.len() > FILTER_BYTES_MAX {
        return Err(format!("is longer than {FILTER_BYTES_MAX} bytes"));
    }
    if filter.chars().any(char::is_control) {
        return Err("holds a control character".into());
    }
    if filter.starts_with("$share/") {
        return Err(
            "names a shared subscription; write the filter alone, it holds for shared ones too".into()
        );
    }
    let last = filter.split('/').count() - 1;
    for (nth, level) in filter.split('/').enumerate() {
        if level.contains('#') && (level != "#" || nth != last) {
            return Err("has a # that is not the whole last level".into());
        }
        if level.contains('+') && level != "+" {
            return Err("has a + that is not a whole level".into());
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
