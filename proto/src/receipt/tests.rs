//! Receipts and command reports: round trips, bounds, and bytes that are neither.

use model::RangeSet;
use proptest::prelude::*;

use super::*;

fn ranges(bounds: &[std::ops::Range<u64>]) -> RangeSet {
    let mut set = RangeSet::new();
    for range in bounds {
        set.insert(range.clone());
    }
    set
}

fn raw(durable: Vec<wire::EpochRanges>) -> Vec<u8> {
    wire::Receipt { hub_time: Some(1), durable, holding: None, takes_health: None }.encode_to_vec()
}

fn epoch_ranges(epoch: u64, bounds: &[u64]) -> wire::EpochRanges {
    wire::EpochRanges { epoch: Some(epoch), bounds: bounds.to_vec() }
}

#[test]
fn a_receipt_survives() {
    let receipt = Receipt {
        hub_time: Timestamp(-5),
        durable: vec![(Epoch(7), ranges(&[0..10, 12..u64::MAX])), (Epoch(i64::MAX as u64), RangeSet::new())],
        holding: Some("disk full: /var/lib/forebay".into()),
        takes_health: true,
    };
    assert_eq!(Receipt::decode(&receipt.encode()), Ok(receipt));
    let empty = Receipt::default();
    assert_eq!(Receipt::decode(&empty.encode()), Ok(empty));
}

#[test]
fn a_receipt_that_breaks_a_rule_is_refused() {
    assert!(Receipt::decode(&raw(vec![epoch_ranges(7, &[0, 3, 3, 5])])).is_ok());
    for bounds in [&[0u64, 3, 2, 5][..], &[3, 3], &[5, 3], &[1], &[0, 1, 2]] {
        assert!(Receipt::decode(&raw(vec![epoch_ranges(7, bounds)])).is_err(), "{bounds:?}");
    }
    for epochs in [&[0u64][..], &[7, 7], &[u64::MAX]] {
        let durable = epochs.iter().map(|epoch| epoch_ranges(*epoch, &[])).collect();
        assert!(Receipt::decode(&raw(durable)).is_err(), "{epochs:?}");
    }
    assert!(Receipt::decode(&[]).is_err(), "no hub time");
    assert!(Receipt::decode(&vec![0; RECEIPT_BYTES_MAX + 1]).is_err());
}

#[test]
fn ranges_are_bounded_on_both_sides() {
    let many: Vec<u64> = (0..2 * RECEIPT_RANGES_MAX as u64).map(|i| i * 2).collect();
    assert!(Receipt::decode(&raw(vec![epoch_ranges(7, &many)])).is_ok());
    assert!(Receipt::decode(&raw(vec![epoch_ranges(7, &many), epoch_ranges(8, &[0, 1])])).is_err());
    let set = |count: u64| ranges(&(0..count).map(|i| i * 3..i * 3 + 1).collect::<Vec<_>>());
    let durable = vec![(Epoch(1), set(RECEIPT_RANGES_MAX as u64 - 1)), (Epoch(2), set(5))];
    let receipt = Receipt { durable, ..Receipt::default() };
    let read = Receipt::decode(&receipt.encode()).unwrap();
    assert_eq!(read.durable[0], receipt.durable[0]);
    assert_eq!(read.durable[1], (Epoch(2), set(1)), "what does not fit is left out, never invented");
}

#[test]
fn a_report_survives_and_is_cut_at_a_character() {
    let report = CommandReport {
        id: CommandId([9; 16]),
        outcome: CommandOutcome::Refused("range: 5 is above 3".into()),
        path: "line/druck".into(),
        read_back: String::new(),
    };
    assert_eq!(CommandReport::decode(&report.encode()), Ok(report.clone()));
    let long = CommandReport {
        outcome: CommandOutcome::Unknown("é".repeat(REASON_BYTES_MAX)),
        read_back: "ü".repeat(READ_BACK_BYTES_MAX),
        ..report
    };
    let read = CommandReport::decode(&long.encode()).unwrap();
    assert!(matches!(read.outcome, CommandOutcome::Unknown(why) if why.starts_with("éé")));
    assert_eq!(read.read_back.len(), READ_BACK_BYTES_MAX);
    assert!(CommandReport::decode(&[]).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(receipt) = Receipt::decode(&bytes) {
            prop_assert_eq!(Receipt::decode(&receipt.encode()), Ok(receipt));
        }
        if let Ok(report) = CommandReport::decode(&bytes) {
            prop_assert_eq!(CommandReport::decode(&report.encode()), Ok(report));
        }
    }
}
