//! The rules as a table.

use std::path::Path;

use model::QualityClass;
use runtime::config_file::Problems;

use super::*;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

/// A point from the cells `type,scale,offset,deadband,min,max`.
fn rules(cells: &str) -> PointRules {
    let text = format!("name,address,type,scale,offset,deadband,min,max\nx,1,{cells}\n");
    let mut problems = Problems::default();
    let points = crate::points::parse_list(Path::new("p.csv"), text.as_bytes(), "d", &mut problems);
    assert!(problems.is_empty(), "{:?}", problems.list);
    PointRules::new(&points[0])
}

fn reading(value: Option<Value>, quality: Quality) -> Reading {
    Reading { point: 0, time: None, value, quality }
}

#[test]
fn every_rule_of_the_table() {
    let good = Quality::GOOD;
    let device = Quality::with_detail(QualityClass::Bad, Reason::DeviceException, 2);
    let outside = Quality::uncertain(Reason::OutOfRange);
    let table = [
        ("i16,,,,,", Some(Value::Int16(5)), good, Some(Value::Int16(5)), good),
        ("i16,0.5,,,,", Some(Value::Int16(5)), good, Some(Value::Double(2.5)), good),
        ("i16,,-40,,,", Some(Value::Int16(5)), good, Some(Value::Double(-35.0)), good),
        ("f32,2,1,,,", Some(Value::Float(1.5)), good, Some(Value::Float(4.0)), good),
        ("f32,1e30,,,,", Some(Value::Float(1e30)), good, None, Quality::bad(Reason::OutOfRange)),
        ("i16,,,,,", Some(Value::Int32(5)), good, None, Quality::bad(Reason::TypeMismatch)),
        ("i16,,,,,", None, good, None, Quality::bad(Reason::NoData)),
        ("i16,,,,,", None, device, None, device),
        ("i16,2,,,,", Some(Value::Int16(1)), device, Some(Value::Double(2.0)), device),
        ("f64,,,,0,10", Some(Value::Double(10.0)), good, Some(Value::Double(10.0)), good),
        ("f64,,,,0,10", Some(Value::Double(10.1)), good, Some(Value::Double(10.1)), outside),
        ("f64,,,,0,", Some(Value::Double(-0.1)), good, Some(Value::Double(-0.1)), outside),
        ("f64,,,,0,10", Some(Value::Double(f64::NAN)), good, Some(Value::Double(f64::NAN)), outside),
        ("f64,,,,,", Some(Value::Double(f64::NAN)), good, Some(Value::Double(f64::NAN)), good),
        ("f64,2,,,,", Some(Value::Double(f64::INFINITY)), good, Some(Value::Double(f64::INFINITY)), good),
        ("bool,,,,,", Some(Value::Boolean(true)), good, Some(Value::Boolean(true)), good),
        ("string,,,,,", Some(Value::String("ü".into())), good, Some(Value::String("ü".into())), good),
    ];
    for (cells, value, quality, expected, expected_quality) in table {
        let found = rules(cells).apply(reading(value.clone(), quality), NOW);
        assert_eq!(
            found,
            Normalised { time: NOW, value: expected, quality: expected_quality },
            "{cells} {value:?}"
        );
    }
}

#[test]
fn long_texts_and_wrong_clocks_are_marked() {
    let text = |bytes: usize| reading(Some(Value::String("x".repeat(bytes))), Quality::GOOD);
    assert!(rules("string,,,,,").apply(text(VALUE_BYTES_MAX), NOW).quality.is_good());
    let long = rules("string,,,,,").apply(text(VALUE_BYTES_MAX + 1), NOW);
    assert_eq!((long.value, long.quality), (None, Quality::bad(Reason::Undecodable)));
    let early = Reading { time: Some(Timestamp(0)), ..reading(Some(Value::Int16(1)), Quality::GOOD) };
    let early = rules("i16,,,,,").apply(early, NOW);
    assert_eq!((early.time, early.quality), (Timestamp(0), Quality::uncertain(Reason::Clock)));
}

#[test]
fn the_dead_band_passes_changes_and_signs_of_life() {
    let rules = rules("f64,,,1,,");
    let mut band = DeadBand::default();
    let mut passes = |seconds: i64, value: f64, quality: Quality| {
        let time = Timestamp(NOW.0 + seconds * 1_000_000);
        band.passes(&rules, &Normalised { time, value: Some(Value::Double(value)), quality })
    };
    let uncertain = Quality::uncertain(Reason::OutOfRange);
    assert!(passes(0, 5.0, Quality::GOOD), "the first");
    assert!(!passes(1, 6.0, Quality::GOOD), "exactly the band");
    assert!(!passes(2, 5.9, Quality::GOOD), "compared with what passed");
    assert!(passes(3, 6.1, Quality::GOOD));
    assert!(passes(4, 6.1, uncertain), "quality");
    assert!(passes(5, 6.1, Quality::GOOD));
    assert!(!passes(64, 6.1, Quality::GOOD));
    assert!(passes(65, 6.1, Quality::GOOD), "silence");
    assert!(passes(66, f64::NAN, Quality::GOOD));
    assert!(!passes(67, f64::NAN, Quality::GOOD));
    assert!(passes(68, f64::INFINITY, Quality::GOOD));
    assert!(!passes(69, f64::INFINITY, Quality::GOOD));
    assert!(passes(70, 1.0, Quality::GOOD));
    assert!(passes(-5_000, 1.0, Quality::GOOD), "a clock that jumped back");
}

#[test]
fn without_a_band_all_pass_and_zero_means_changes() {
    let sample = Normalised { time: NOW, value: Some(Value::Boolean(true)), quality: Quality::GOOD };
    let mut band = DeadBand::default();
    assert!(band.passes(&rules("bool,,,,,"), &sample) && band.passes(&rules("bool,,,,,"), &sample));
    let mut band = DeadBand::default();
    assert!(band.passes(&rules("bool,,,0,,"), &sample) && !band.passes(&rules("bool,,,0,,"), &sample));
    let off = Normalised { value: Some(Value::Boolean(false)), ..sample.clone() };
    assert!(band.passes(&rules("bool,,,0,,"), &off));
    band.replace(Normalised { quality: Quality::stale(Reason::Timeout), ..off.clone() });
    assert!(band.passes(&rules("bool,,,0,,"), &off), "back after a Stale mark");
}

#[test]
fn a_command_becomes_a_raw_value_or_a_refusal() {
    let tenths = rules("i16,0.1,-40,,-40,150");
    assert_eq!(tenths.raw_for_write(&Value::Double(-27.7)), Ok(Value::Int16(123)));
    assert!(tenths.raw_for_write(&Value::Double(-27.75)).unwrap_err().contains("cannot hold"));
    assert!(tenths.raw_for_write(&Value::Double(150.1)).unwrap_err().contains("above 150"));
    assert!(tenths.raw_for_write(&Value::Double(f64::NAN)).unwrap_err().contains("finite"));
    assert!(tenths.raw_for_write(&Value::Int16(1)).unwrap_err().contains("double"));
    assert_eq!(rules("bool,,,,,").raw_for_write(&Value::Boolean(true)), Ok(Value::Boolean(true)));
    assert_eq!(rules("f32,2,,,,").raw_for_write(&Value::Float(3.0)), Ok(Value::Float(1.5)));
    // A third of a count is no rounding, however large the number; the last digit of a double is.
    let thousandths = rules("u32,0.001,,,0,4294967.295");
    assert!(thousandths.raw_for_write(&Value::Double(4_000_000.000_4)).unwrap_err().contains("cannot hold"));
    assert_eq!(thousandths.raw_for_write(&Value::Double(4_000_000.001)), Ok(Value::UInt32(4_000_000_001)));
    assert_eq!(thousandths.raw_for_write(&Value::Double(4_294_967.295)), Ok(Value::UInt32(u32::MAX)));
    assert_eq!(rules("i16,0.1,-40,,,").raw_for_write(&Value::Double(-39.9)), Ok(Value::Int16(1)));
    // A limit that a Float cannot hold admits the nearest Float, and a reading of it is Good.
    let share = rules("f32,,,,0.1,0.7");
    for limit in [0.1f32, 0.7] {
        assert_eq!(share.raw_for_write(&Value::Float(limit)), Ok(Value::Float(limit)));
        let read = Reading { point: 0, time: None, value: Some(Value::Float(limit)), quality: Quality::GOOD };
        assert_eq!(share.apply(read, NOW).quality, Quality::GOOD);
    }
    assert!(share.raw_for_write(&Value::Float(0.700_000_1)).unwrap_err().contains("above"));
    let exact = rules("u64,,,,,9007199254740992");
    assert!(exact.raw_for_write(&Value::UInt64((1 << 53) + 1)).unwrap_err().contains("above"));
}

#[test]
fn clocks_that_are_apart_make_good_values_uncertain_and_keep_their_times() {
    const MINUTE: i64 = 60_000_000;
    let now = Timestamp(1_790_000_000_000_000);
    let rules = ClockRules { skew_max_micros: MINUTE, behind_max_micros: None };
    let strict = ClockRules { behind_max_micros: Some(10 * MINUTE), ..rules };
    let made = |offset: i64, quality| Normalised {
        time: Timestamp(now.0 + offset),
        value: Some(Value::Double(1.0)),
        quality,
    };
    let judge = |rules: &ClockRules, offset, own, hub| {
        let out = rules.apply(made(offset, Quality::GOOD), own, now, hub);
        assert_eq!(out.time.0, now.0 + offset, "the time is kept");
        out.quality
    };
    let off = Quality::uncertain(Reason::Clock);
    // The source's own clock: ahead beyond the bound; behind only where the device says so.
    assert_eq!(judge(&rules, MINUTE, true, None), Quality::GOOD);
    assert_eq!(judge(&rules, MINUTE + 1, true, None), off);
    assert_eq!(judge(&rules, -1000 * MINUTE, true, None), Quality::GOOD);
    assert_eq!(judge(&strict, -10 * MINUTE, true, None), Quality::GOOD);
    assert_eq!(judge(&strict, -10 * MINUTE - 1, true, None), off);
    assert_eq!(judge(&rules, i64::MAX - now.0, true, None), off);
    // The agent's clock beside the hub's, either way; it says nothing of a source's own time.
    for (ahead, quality) in [(None, Quality::GOOD), (Some(MINUTE), Quality::GOOD), (Some(MINUTE + 1), off)] {
        assert_eq!(judge(&rules, 0, false, ahead), quality);
        assert_eq!(judge(&rules, 0, false, ahead.map(|ahead| -ahead)), quality);
        assert_eq!(judge(&rules, 0, true, ahead), Quality::GOOD);
    }
    assert_eq!(judge(&rules, 0, false, Some(i64::MIN)), off);
    let bad = Quality::bad(Reason::Timeout);
    assert_eq!(rules.apply(made(2 * MINUTE, bad), true, now, None).quality, bad, "a fault is not hidden");
}
