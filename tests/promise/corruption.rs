//! Bytes that arrive changed, on plain TCP: no value that was not read is ever stored, and in the end nothing is missing.
//!
//! TCP's own checksum has 16 bits, and what stands between two machines (a broken switch, a proxy, a driver) may change
//! bytes behind it. TLS would close the connection; this is about links without it.

use std::time::{Duration, Instant};

use forebay_tests::campaign::{Campaign, Load, Role, number, seed};
use forebay_tests::fault_proxy::Corruption;

#[test]
fn changed_bytes_are_never_stored() {
    let wanted = number("FOREBAY_CHANGED", 80);
    let mut campaign = Campaign::new(Load { agents: 2, points: 20, poll: Duration::from_millis(50) });
    let one_in = number("FOREBAY_ONE_IN", 1_500);
    let seed = seed();
    campaign.uplink.corrupt(Some(Corruption { one_in, seed }));
    campaign.feed.corrupt(Some(Corruption { one_in: one_in * 3, seed: seed + 1 }));
    campaign.start_all();
    let begun = Instant::now();
    while campaign.uplink.changed() < wanted || begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(200));
        // Whatever is in the table by now is right: what came in a changed payload was never taken.
        assert!(
            begun.elapsed() < Duration::from_secs(60 + wanted),
            "too few bytes pass: {}",
            campaign.uplink.bytes()
        );
    }
    campaign.uplink.corrupt(None);
    campaign.feed.corrupt(None);
    let (uplink, feed) = (campaign.uplink.changed(), campaign.feed.changed());
    campaign.kill(Role::Bridge);
    campaign.start(Role::Bridge);
    let refused = campaign.metric("forebay_hub_problems_total{problem=\"damaged-on-the-way\"}");
    assert!(refused > 0, "the hub noticed");
    let samples = campaign.settle_and_check(Duration::from_secs(240));
    println!(
        "{uplink} bytes changed of {} between agents and hub in {} connections, {refused} payloads refused by the hub; {feed} between bridge and hub; \
         {samples} samples, every one as it was read",
        campaign.uplink.bytes(),
        campaign.uplink.connections()
    );
}
