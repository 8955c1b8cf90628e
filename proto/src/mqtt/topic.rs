//! Topic names and filters (MQTT 5.0 and 3.1.1 §4.7, 5.0 §4.8.2): which are valid, which topics a filter matches, which
//! filters it covers.

/// Why a string is not a topic name or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No characters `[MQTT-4.7.3-1]`.
    #[error("has no characters")]
    Empty,
    /// More than 65 535 bytes `[MQTT-4.7.3-3]`.
    #[error("is longer than 65 535 bytes")]
    TooLong,
    /// A null character `[MQTT-4.7.3-2]`.
    #[error("has a null character")]
    Nul,
    /// A wildcard in a topic name `[MQTT-4.7.0-1]`.
    #[error("has a wildcard")]
    Wildcard,
    /// `#` that is not the last level, or `+` that is not a whole one `[MQTT-4.7.1-1]` `[MQTT-4.7.1-2]`.
    #[error("has a wildcard where none may be")]
    MisplacedWildcard,
    /// `$share/` without a valid share name and a filter behind it `[MQTT-4.8.2-1]` `[MQTT-4.8.2-2]`.
    #[error("is not $share/{{name}}/{{filter}}")]
    Share,
}

/// Whether `topic` may be published to.
pub fn validate_name(topic: &str) -> Result<(), Fault> {
    let bytes = topic.as_bytes();
    // One pass without an exit, so that it is compiled to vector instructions; nearly every topic is fine.
    let suspicious = bytes.iter().fold(false, |found, byte| found | matches!(byte, 0 | b'+' | b'#'));
    if suspicious {
        return Err(if bytes.contains(&0) { Fault::Nul } else { Fault::Wildcard });
    }
    length(bytes)
}

/// Whether `filter` may be subscribed to; a shared subscription's share name is checked too.
pub fn validate_filter(filter: &str) -> Result<(), Fault> {
    length(filter.as_bytes())?;
    if filter.as_bytes().contains(&0) {
        return Err(Fault::Nul);
    }
    let filter = match filter.strip_prefix("$share/") {
        None if filter == "$share" => return Err(Fault::Share),
        None => filter,
        Some(rest) => match rest.split_once('/') {
            Some((name, filter)) if !name.is_empty() && !filter.is_empty() && !name.contains(['+', '#']) => {
                filter
            }
            _ => return Err(Fault::Share),
        },
    };
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let fine = match level {
            "+" => true,
            "#" => levels.peek().is_none(),
            _ => !level.contains(['+', '#']),
        };
        if !fine {
            return Err(Fault::MisplacedWildcard);
        }
    }
    Ok(())
}

fn length(bytes: &[u8]) -> Result<(), Fault> {
    match bytes.len() {
        0 => Err(Fault::Empty),
        1..=65_535 => Ok(()),
        _ => Err(Fault::TooLong),
    }
}

/// Share name and filter of a shared subscription `$share/{name}/{filter}` (5.0 §4.8.2).
#[must_use]
pub fn shared(filter: &str) -> Option<(&str, &str)> {
    filter.strip_prefix("$share/")?.split_once('/')
}

/// Whether `filter` matches `topic`. `+` is one level, a final `#` any number; neither matches a leading `$` level.
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Whether every topic that `requested` matches is matched by `allowed`. A `$share/group/` prefix is looked through.
#[must_use]
pub fn covers(allowed: &str, requested: &str) -> bool {
    let requested = unshared(requested);
    if requested.starts_with('$') != allowed.starts_with('$') {
        return false;
    }
    let mut levels = requested.split('/');
    for permitted in allowed.split('/') {
        if permitted == "#" {
            return true;
        }
        match levels.next() {
            Some("#") | None => return false,
            Some(level) if permitted == "+" || permitted == level => {}
            Some(_) => return false,
        }
    }
    levels.next().is_none()
}

/// Whether some topic is matched by both filters.
#[must_use]
pub fn overlap(one: &str, other: &str) -> bool {
    let (mut left, mut right) = (unshared(one).split('/'), unshared(other).split('/'));
    loop {
        match (left.next(), right.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == "+" || b == "+" => {}
            _ => return false,
        }
    }
}

/// The filter without its `$share/group/` prefix.
#[must_use]
pub fn unshared(filter: &str) -> &str {
    shared(filter).map_or(filter, |(_, filter)| filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_the_standard_says() {
        assert!(matches("sport/tennis/player1/#", "sport/tennis/player1"));
        assert!(matches("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"));
        assert!(matches("#", "a/b"));
        assert!(matches("+/+", "/finance"));
        assert!(matches("/+", "/finance"));
        assert!(!matches("+", "/finance"));
        assert!(!matches("sport/+", "sport"));
        assert!(matches("sport/+", "sport/"));
        assert!(!matches("#", "$SYS/x"));
        assert!(matches("$SYS/#", "$SYS/x"));
    }

    #[test]
    fn covering_is_never_wider_than_allowed() {
        assert!(covers("a/#", "a/b/+"));
        assert!(covers("a/#", "a/#"));
        assert!(covers("a/+/c", "a/b/c"));
        assert!(covers("a/+/c", "a/+/c"));
        assert!(!covers("a/b", "a/+"));
        assert!(!covers("a/+", "a/#"));
        assert!(!covers("a/+", "#"));
        assert!(!covers("#", "$SYS/#"));
        assert!(covers("a/#", "$share/group/a/b"));
        assert!(!covers("a/#", "$share/group/b"));
    }

    #[test]
    fn overlap_finds_a_common_topic() {
        assert!(overlap("acme/#", "+/antwerp/x"));
        assert!(overlap("acme/#", "acme"));
        assert!(overlap("acme/#", "#"));
        assert!(!overlap("acme/#", "spBv1.0/#"));
        assert!(!overlap("a/b", "a/b/c"));
    }
}
