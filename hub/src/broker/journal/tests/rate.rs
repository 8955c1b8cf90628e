//! Group commit on a real disk: whatever is submitted while a sync runs goes with the next one.

use super::*;

/// 100 publishers, each with one message of QoS 1 under way: the next is sent when it is acknowledged.
#[test]
fn a_hundred_publishers_share_syncs() {
    const PUBLISHERS: u64 = 100;
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(DiskStorage::create(folder.path()).unwrap());
    let mut rig = Rig::open_with(disk, JournalOptions::default()).unwrap();
    let payload = Bytes::from(vec![7; 100]);
    let begun = Instant::now();
    let mut acknowledged = 0;
    let mut waited = Duration::ZERO;
    while begun.elapsed() < Duration::from_millis(1500) {
        let under_way = rig.journal().next_position().0 - acknowledged;
        for publisher in under_way..PUBLISHERS {
            let mut message = message("plant/line/1/temperature", payload.clone());
            message.publisher = Some(SessionId(publisher));
            rig.append(to(&[1000], message));
        }
        rig.journal().submit();
        let from = Instant::now();
        acknowledged = rig.wait(|event| match event {
            JournalEvent::Durable(end) => Some(end.0),
            _ => None,
        });
        waited += from.elapsed();
    }
    let took = begun.elapsed();
    let commits = rig.metrics.counter("forebay_broker_journal_commits_total", "", &[]).get();
    println!(
        "{:.0} durable messages/s in {commits} commits, {:.1} µs of the core per message",
        acknowledged as f64 / took.as_secs_f64(),
        (took - waited).as_secs_f64() * 1e6 / acknowledged as f64
    );
    assert!(commits * 20 < acknowledged, "{commits} commits for {acknowledged} messages");
    rig.close();
}
