//! MQTT topic filters (3.1.1 §4.7): which topics they match and which other filters they cover.

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
#[allow(dead_code, reason = "the access book decides by sets; moves to proto with its tests")]
#[must_use]
pub(super) fn covers(allowed: &str, requested: &str) -> bool {
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
pub(super) fn overlap(one: &str, other: &str) -> bool {
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
    filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')).map_or(filter, |(_, rest)| rest)
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
