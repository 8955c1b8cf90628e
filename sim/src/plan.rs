//! What a run is like: sizes, paces and how often what breaks, chosen from its seed.

use std::time::Duration;

use crate::dice::Dice;

/// One run's choices. Rates are "once in so many"; 0 is never.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) agents: usize,
    pub(crate) devices: usize,
    /// Longest pause between two reads of a device, ms.
    pub(crate) read_every: u64,
    /// Samples of one read at most.
    pub(crate) samples: u64,
    /// How long things break.
    pub(crate) chaos: Duration,
    /// Whether the broker is not part of the hub's process.
    pub(crate) outside_broker: bool,
    /// Whether agents are born only while their host is online.
    pub(crate) primary_host: bool,
    /// Values per second of the history stream.
    pub(crate) history_rate: u64,
    /// Per tick and process.
    pub(crate) power_cut: u64,
    pub(crate) killed: u64,
    pub(crate) stopped: u64,
    /// Per tick and link.
    pub(crate) link_cut: u64,
    pub(crate) half_open: u64,
    /// Per tick.
    pub(crate) broker_restart: u64,
    /// Longest time away, ms.
    pub(crate) away: u64,
    /// Per message.
    pub(crate) delayed: u64,
    pub(crate) delivered_twice: u64,
    pub(crate) message_lost: u64,
    /// Per call of a disk.
    pub(crate) write_error: u64,
    pub(crate) sync_error: u64,
    pub(crate) read_error: u64,
    pub(crate) short: u64,
    /// Per tick and process: the disk fills up for a while.
    pub(crate) disk_full: u64,
    /// Per call of the target.
    pub(crate) target_fails: u64,
    /// Per call of the feed.
    pub(crate) feed_fails: u64,
    /// Whether a second bridge runs on the same cursor.
    pub(crate) two_bridges: bool,
    /// Whether backups of agents are made and restored.
    pub(crate) restores: bool,
    /// Whether the hub gets an empty disk.
    pub(crate) wipes_hub: bool,
    /// Per tick and clock.
    pub(crate) clock_steps: u64,
    /// Bytes of a segment of the agents' logs, and of the plant log.
    pub(crate) segment: u64,
}

impl Plan {
    pub(crate) fn of(dice: &mut Dice) -> Self {
        // Each kind of fault is left out of half of the runs, so that others can be seen undisturbed.
        let mut sometimes = |rate: u64| match dice.below(2) {
            0 => 0,
            _ => (rate / 2 + dice.below(rate.max(1))).max(1),
        };
        let (power_cut, killed, stopped) = (sometimes(90), sometimes(120), sometimes(400));
        let (link_cut, half_open, broker_restart) = (sometimes(80), sometimes(250), sometimes(250));
        let (delayed, delivered_twice, message_lost) = (sometimes(10), sometimes(40), sometimes(60));
        let (write_error, sync_error, read_error, short) =
            (sometimes(3000), sometimes(25), sometimes(4000), sometimes(6));
        let (disk_full, target_fails, feed_fails) = (sometimes(150), sometimes(6), sometimes(8));
        let clock_steps = sometimes(200);
        let restores = dice.one_in(6);
        // A machine is restored while it is down.
        let killed = if restores { 50 } else { killed };
        Plan {
            agents: if dice.one_in(3) { 2 } else { 1 },
            devices: if dice.one_in(2) { 2 } else { 1 },
            read_every: [120, 200, 600, 1500][usize::try_from(dice.below(4)).unwrap_or(0)],
            samples: dice.between(1, 8),
            chaos: dice.millis(5_000, 40_000),
            outside_broker: dice.one_in(3),
            primary_host: dice.one_in(2),
            history_rate: [200, 5_000, 1_000_000][usize::try_from(dice.below(3)).unwrap_or(0)],
            power_cut,
            killed,
            stopped,
            link_cut,
            half_open,
            broker_restart,
            away: [300, 3_000, 12_000][usize::try_from(dice.below(3)).unwrap_or(0)],
            delayed,
            delivered_twice,
            message_lost,
            write_error,
            sync_error,
            read_error,
            short,
            disk_full,
            target_fails,
            feed_fails,
            two_bridges: dice.one_in(8),
            restores,
            wipes_hub: dice.one_in(15),
            clock_steps,
            segment: [400, 1024, 8 * 1024][usize::try_from(dice.below(3)).unwrap_or(0)],
        }
    }

    /// Nothing breaks by itself: two agents read each of two devices every 10 s on average, for so long.
    pub(crate) const fn calm(lasts: Duration) -> Self {
        Plan {
            agents: 2,
            devices: 2,
            read_every: 20_000,
            samples: 8,
            chaos: lasts,
            outside_broker: true,
            primary_host: true,
            history_rate: 20_000,
            power_cut: 0,
            killed: 0,
            stopped: 0,
            link_cut: 0,
            half_open: 0,
            broker_restart: 0,
            away: 300,
            delayed: 0,
            delivered_twice: 0,
            message_lost: 0,
            write_error: 0,
            sync_error: 0,
            read_error: 0,
            short: 0,
            disk_full: 0,
            target_fails: 0,
            feed_fails: 0,
            two_bridges: false,
            restores: false,
            wipes_hub: false,
            clock_steps: 0,
            segment: 256 * 1024,
        }
    }
}
