//! What roles allow, what they never do, and a million random lists against an oracle that is naive on purpose.

use std::time::Instant;

use super::super::pattern::check_filter;
use super::super::pattern::tests::naive_matches;
use super::*;

fn reserved() -> Arc<Reserved> {
    Arc::new(Reserved::new("forebay"))
}

fn rights(publish: &[&str], subscribe: &[&str], name: &str, node: Option<&str>) -> Rights {
    let owned = |filters: &[&str]| filters.iter().map(|filter| (*filter).to_owned()).collect();
    let (role, name_of_role) = (Role { publish: owned(publish), subscribe: owned(subscribe) }, "role".into());
    let node = node.map(|node| NodeId::parse(node).unwrap());
    Rights::new(std::iter::once((&name_of_role, &role)), name, node.as_ref(), reserved())
}

#[test]
fn nobody_publishes_what_is_the_hub_s() {
    let all = rights(&["#", "$SYS/#", "spBv1.0/+/NCMD/+"], &["#"], "root", None);
    for refused in [
        "$SYS/broker/uptime",
        "$sparkplug/certificates/spBv1.0/g/NBIRTH/n",
        "$",
        "spBv1.0/g/NCMD/n",
        "spBv1.0/g/DCMD/n/d",
        "spBv1.0/g/DCMD",
        "spBv1.0//NCMD/",
        "spBv1.0/STATE/forebay",
        "spBv1.0/STATE/forebay/x",
    ] {
        assert!(!all.may_publish(refused), "{refused}");
        assert!(matches!(all.judge_publish(refused), Verdict::Reserved(_)), "{refused}");
    }
    for allowed in [
        "spBv1.0/g/NDATA/n",
        "spBv1.0/STATE/another",
        "spBv1.0/STATE/forebay2",
        "spBv1.0/STATE",
        "acme/g/NCMD/n",
        "spBv1.0/NCMD/x/y",
        "spBv1.0/g/NCMDX/n",
        "STATE/forebay",
        "a",
    ] {
        assert!(all.may_publish(allowed), "{allowed}");
    }
}

#[test]
fn names_stand_where_the_role_says() {
    let who = rights(&["%g/%n/%i", "x/%%/%i-%n"], &["cmd/%i/#"], "line-3", Some("antwerp/n 7"));
    assert!(who.may_publish("antwerp/n 7/line-3") && who.may_publish("x/%/line-3-n 7"));
    assert!(!who.may_publish("antwerp/n 7/line-4") && !who.may_publish("x/%%/line-3-n 7"));
    assert!(who.may_subscribe("cmd/line-3/+/x") && !who.may_subscribe("cmd/+"));
    assert!(who.may_receive("cmd/line-3") && !who.may_receive("cmd/line-33"));
    let without = rights(&["%g/x", "y"], &[], "line-3", None);
    assert!(without.may_publish("y") && !without.may_publish("/x") && !without.may_publish("%g/x"));
}

#[test]
fn a_name_never_widens_a_filter() {
    assert_eq!(expand("%i/#", "$SYS", None), None, "a name does not lead below $");
    assert_eq!(expand("%g/#", "x", NodeId::parse("$SYS/n").ok().as_ref()), None);
    assert_eq!(expand("$SYS/%i", "x", None).as_deref(), Some("$SYS/x"));
    assert_eq!(expand("a/%x", "x", None), None);
    assert_eq!(expand("a/%", "x", None), None);
    assert_eq!(expand("%i", "%n", None).as_deref(), Some("%n"), "what a name holds is not read again");
}

#[test]
fn verdicts_name_role_and_filter() {
    let who = rights(&["a/%i"], &["b", "b/+/#", "c/#"], "x", None);
    let allowed = |filter: &str| Verdict::Allowed { role: "role".into(), filter: filter.into() };
    assert_eq!(who.judge_publish("a/x"), allowed("a/x"));
    assert_eq!(who.judge_publish("a/y"), Verdict::NoRole);
    assert_eq!(who.judge_subscribe("c/d/#"), allowed("c/#"));
    assert_eq!(who.judge_subscribe("b/#"), Verdict::AllowedTogether);
    assert_eq!(who.judge_subscribe("#"), Verdict::NoRole);
}

#[test]
fn without_a_login_one_reads_and_nothing_else() {
    let anonymous = Rights::anonymous(reserved());
    assert!(anonymous.may_subscribe("#") && anonymous.may_receive("a/b"));
    assert!(!anonymous.may_subscribe("$SYS/#") && !anonymous.may_receive("$SYS/x"));
    assert!(!anonymous.may_publish("a"));
}

// ---- a million random lists -------------------------------------------------------------------------------------------

/// xorshift64*: the same cases in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let roll = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(roll).unwrap() % end
    }

    fn one_of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len())]
    }
}

const WORDS: [&str; 12] =
    ["a", "b", "spBv1.0", "STATE", "NCMD", "DCMD", "NDATA", "forebay", "$SYS", "line-3", "g", ""];

/// Topics mostly use the words of filters; now and then one that no filter has.
fn topic(dice: &mut Dice, out: &mut Vec<&'static str>) {
    out.clear();
    if dice.below(4) == 0 {
        out.extend(["spBv1.0", dice.one_of(&["g", "STATE", "h"])]);
    }
    for _ in 0..=dice.below(4) {
        out.push(if dice.below(12) == 0 { "other" } else { dice.one_of(&WORDS) });
    }
    if out == &[""] {
        out.push("x"); // there is no empty topic
    }
}

fn template(dice: &mut Dice, out: &mut Vec<&'static str>) {
    out.clear();
    if dice.below(3) == 0 {
        out.push("spBv1.0");
    }
    for _ in 0..=dice.below(4) {
        out.push(match dice.below(8) {
            0 | 1 => "+",
            2 => dice.one_of(&["%i", "%g", "%n"]),
            _ => dice.one_of(&WORDS),
        });
    }
    if dice.below(3) == 0 {
        out.push("#");
    }
    if out == &[""] || (out.len() > 1 && out[0] == "$share") {
        out.push("a");
    }
}

/// What stands for a placeholder, level by level: no text is ever put into another.
fn named<'a>(levels: &[&'a str], name: &'a str, (group, node): (&'a str, &'a str)) -> Option<Vec<&'a str>> {
    let replaced: Vec<&str> = levels
        .iter()
        .map(|level| match *level {
            "%i" => name,
            "%g" => group,
            "%n" => node,
            other => other,
        })
        .collect();
    let begins = |levels: &[&str]| levels.first().is_some_and(|level| level.starts_with('$'));
    (begins(levels) == begins(&replaced)).then_some(replaced)
}

fn is_reserved(topic: &[&str]) -> bool {
    topic[0].starts_with('$')
        || (topic.len() >= 3 && topic[0] == "spBv1.0" && (topic[2] == "NCMD" || topic[2] == "DCMD"))
        || (topic.len() >= 3 && topic[..3] == ["spBv1.0", "STATE", "forebay"])
}

/// Whether every topic of the requested filter is in one of the allowed. A level that the request leaves open is filled
/// with a text that nobody allows by name, and a `#` with 0 to 7 such levels, more than any filter here has.
fn naive_may_subscribe(allowed: &[Vec<&str>], requested: &[&str]) -> bool {
    let closed: Vec<&str> = requested
        .iter()
        .filter(|level| **level != "#")
        .map(|level| if *level == "+" { "?" } else { level })
        .collect();
    let more = if requested.last() == Some(&"#") { 0..=7 } else { 0..=0 };
    more.map(|count| closed.iter().copied().chain(std::iter::repeat_n("?", count)).collect::<Vec<&str>>())
        .filter(|topic| !topic.is_empty() && topic.as_slice() != [""])
        .all(|topic| allowed.iter().any(|filter| naive_matches(filter, &topic)))
}

/// Cases of a debug build on the machine of a developer take seconds; CI runs the same.
const CASES: usize = 1_000_000;

#[test]
fn a_million_random_lists_equal_the_naive_oracle() {
    let begun = Instant::now();
    let mut dice = Dice(0x5EED_0004);
    let (mut asked, mut request, mut levels) = (Vec::new(), Vec::new(), Vec::new());
    let (mut yes, mut no) = ([0_usize; 3], [0_usize; 3]);
    let mut cases = 0;
    while cases < CASES {
        // A list of filters for one of several identities, then twenty questions about it.
        let name = dice.one_of(&["line-3", "a", "$SYS", "%n"]);
        let node = (dice.one_of(&["g", "$SYS", "STATE"]), dice.one_of(&["line-3", "NCMD", "b"]));
        let mut lists: [Vec<Vec<&str>>; 2] = Default::default();
        let mut texts: [Vec<String>; 2] = Default::default();
        for nth in 0..2 {
            for _ in 0..dice.below(5) {
                template(&mut dice, &mut levels);
                texts[nth].push(levels.join("/"));
                lists[nth].extend(named(&levels, name, node));
            }
        }
        let as_texts = |nth: usize| texts[nth].iter().map(String::as_str).collect::<Vec<_>>();
        let node = format!("{}/{}", node.0, node.1);
        let who = rights(&as_texts(0), &as_texts(1), name, Some(&node));
        for _ in 0..20 {
            topic(&mut dice, &mut asked);
            let text = asked.join("/");
            let may = lists[0].iter().any(|filter| naive_matches(filter, &asked)) && !is_reserved(&asked);
            assert_eq!(who.may_publish(&text), may, "publish {text:?} with {:?}", texts[0]);
            let hears = lists[1].iter().any(|filter| naive_matches(filter, &asked));
            assert_eq!(who.may_receive(&text), hears, "receive {text:?} with {:?}", texts[1]);
            // Half of the requests are close to what is allowed, or nearly all would be refused.
            if dice.below(2) == 0 && !lists[1].is_empty() {
                request.clone_from(&lists[1][dice.below(lists[1].len())]);
                let nth = dice.below(request.len());
                match (dice.below(4), request[nth]) {
                    (0, "#") => drop(request.pop()),
                    (0 | 1, level) if level != "#" => request[nth] = dice.one_of(&["+", "a", "g", "other"]),
                    (2, _) if request.last() != Some(&"#") => request.push("#"),
                    _ => {}
                }
            } else {
                template(&mut dice, &mut levels);
                request =
                    levels.iter().map(|level| if level.starts_with('%') { "a" } else { level }).collect();
            }
            let filter = request.join("/");
            if check_filter(&filter).is_err() {
                continue;
            }
            let subscribes = naive_may_subscribe(&lists[1], &request);
            let shared = format!("$share/group/{filter}");
            let filter = if dice.below(4) == 0 { &shared } else { &filter };
            assert_eq!(who.may_subscribe(filter), subscribes, "subscribe {filter:?} with {:?}", texts[1]);
            for (nth, answer) in [may, hears, subscribes].into_iter().enumerate() {
                if answer { yes[nth] += 1 } else { no[nth] += 1 }
            }
            cases += 1;
        }
    }
    println!("{cases} cases, yes {yes:?}, no {no:?}, {:?}", begun.elapsed());
    for nth in 0..3 {
        assert!(yes[nth] > CASES / 50 && no[nth] > CASES / 50, "both answers are asked for: {yes:?} {no:?}");
    }
}
