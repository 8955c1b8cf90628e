//! Patterns against definitions that are slow and obviously right: every topic over a small alphabet is tried.

use super::*;

/// Levels of the exhaustive tests. `z` is in no filter: it stands for every text that a filter does not name.
const LEVELS: [&str; 5] = ["a", "b", "$s", "", "z"];
const DEPTH: usize = 5;

/// [MQTT-4.7.1-2], [MQTT-4.7.1-3] and [MQTT-4.7.2-1], word for word.
pub(in crate::broker::access) fn naive_matches(filter: &[&str], topic: &[&str]) -> bool {
    let is_system = topic.first().is_some_and(|level| level.starts_with('$'));
    if is_system && matches!(filter.first(), Some(&"+" | &"#")) {
        return false;
    }
    fn tail(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            ([], _) | (_, []) => false,
            ([wanted, filter @ ..], [level, topic @ ..]) => {
                (*wanted == "+" || wanted == level) && tail(filter, topic)
            }
        }
    }
    tail(filter, topic)
}

fn topics() -> Vec<String> {
    let mut all: Vec<String> = LEVELS.map(str::to_owned).into();
    let mut last = all.clone();
    for _ in 1..DEPTH {
        last = last.iter().flat_map(|topic| LEVELS.map(|level| format!("{topic}/{level}"))).collect();
        all.extend(last.iter().cloned());
    }
    all.retain(|topic| !topic.is_empty());
    all
}

/// Every filter of up to three levels over `a`, `b`, `$s`, the empty level and the wildcards.
fn filters() -> Vec<String> {
    let levels = ["a", "b", "$s", "", "+", "#"];
    let mut all: Vec<String> = levels.map(str::to_owned).into();
    let mut last = all.clone();
    for _ in 1..3 {
        last = last
            .iter()
            .filter(|filter| !filter.ends_with('#'))
            .flat_map(|filter| levels.map(|level| format!("{filter}/{level}")))
            .collect();
        all.extend(last.iter().cloned());
    }
    all.retain(|filter| check_filter(filter).is_ok());
    all
}

fn split(text: &str) -> Vec<&str> {
    text.split('/').collect()
}

#[test]
fn matching_is_the_standard_s() {
    let (filters, topics) = (filters(), topics());
    assert!(filters.len() > 150 && topics.len() > 3_000, "{} {}", filters.len(), topics.len());
    for filter in &filters {
        let pattern = Pattern::new(filter);
        for topic in &topics {
            assert_eq!(
                pattern.matches(topic),
                naive_matches(&split(filter), &split(topic)),
                "{filter:?} {topic:?}"
            );
        }
    }
}

/// One allowed filter and one requested one, all pairs; then every pair of allowed ones against those that end in `#`.
#[test]
fn covering_is_what_enumeration_says() {
    let (filters, topics) = (filters(), topics());
    // Which topics a filter matches, as a set of bits.
    let sets: Vec<Vec<bool>> = filters
        .iter()
        .map(|filter| topics.iter().map(|topic| naive_matches(&split(filter), &split(topic))).collect())
        .collect();
    let patterns: Vec<Pattern> = filters.iter().map(|filter| Pattern::new(filter)).collect();
    let mut covered = 0;
    for (nth, requested) in filters.iter().enumerate() {
        for (allowed, pattern) in patterns.iter().enumerate() {
            let right = (0..topics.len()).all(|topic| !sets[nth][topic] || sets[allowed][topic]);
            let found = covers(std::iter::once(pattern), requested);
            assert_eq!(found, right, "{:?} covers {requested:?}", filters[allowed]);
            covered += usize::from(found);
        }
    }
    assert!(covered > 1_000, "{covered}");
    let several: Vec<usize> = (0..filters.len()).filter(|nth| !filters[*nth].contains("$s")).collect();
    for requested in ["#", "a/#", "+/a/#", "/#", "a/+/#", "+/#"] {
        let nth = filters.iter().position(|filter| filter == requested).unwrap();
        for &one in &several {
            for &other in &several {
                let right = (0..topics.len())
                    .all(|topic| !sets[nth][topic] || sets[one][topic] || sets[other][topic]);
                let found = covers([&patterns[one], &patterns[other]].into_iter(), requested);
                assert_eq!(found, right, "{:?} {:?} cover {requested:?}", filters[one], filters[other]);
            }
        }
    }
}

#[test]
fn several_filters_cover_what_none_does_alone() {
    let together = |allowed: &[&str], requested: &str| {
        let patterns: Vec<Pattern> = allowed.iter().map(|filter| Pattern::new(filter)).collect();
        covers(patterns.iter(), requested)
    };
    assert!(together(&["a", "a/+/#"], "a/#"));
    assert!(together(&["a/+", "a", "a/+/+/#"], "a/#"));
    assert!(!together(&["a", "a/+/+/#"], "a/#"));
    assert!(!together(&["a/b/#", "a/c/#"], "a/#"));
    assert!(together(&["+/#"], "#") && together(&["#"], "+/#"));
    assert!(!together(&["#"], "$SYS/#") && together(&["$SYS/#"], "$SYS/broker/+"));
    assert!(together(&["a/#"], "$share/group/a/b/#") && !together(&["a/#"], "$share/group/#"));
    assert!(!together(&["#"], "$share/group") && !together(&["#"], "$share/group/$SYS/#"));
    assert!(!together(&[], "a"));
}

#[test]
fn texts_that_are_no_filter_are_told_so() {
    for good in ["a", "/", "a//b", "+", "#", "+/+/#", "$SYS/#", "Ölpumpe/+"] {
        assert_eq!(check_filter(good), Ok(()), "{good}");
    }
    let long = "x".repeat(FILTER_BYTES_MAX + 1);
    for bad in ["", "a#", "#/a", "a/#/b", "a+", "a/b+/c", "a\0b", "a\nb", "$share/g/a", &long] {
        assert!(check_filter(bad).is_err(), "{bad:?}");
    }
}
