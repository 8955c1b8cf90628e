//! A plant whose devices' servers are killed and started again and again: what a source keeps (files, OPC UA with history)
//! is complete in the end, and everything else says honestly that it is away, and is soon back.
//!
//! One agent reads a Modbus server (pymodbus), an S7 server (snap7), an OPC UA server (asyncua) whose counter goes on while
//! it is away, and a folder in which a file grows. Each in turn is away for [`AWAY`] in every [`CYCLE`]; the folder is
//! renamed meanwhile, as a share that is unmounted, and its file is rotated.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use forebay_tests::campaign::{number, say};
use forebay_tests::peers::{python, script};
use forebay_tests::plant::{Plant, in_table};
use forebay_tests::process::{Running, eventually, free_address};
use runtime::clock::Clock;
use serde_json::{Value, json};

const CYCLE: Duration = Duration::from_secs(20);
const AWAY: Duration = Duration::from_secs(6);
/// `stale_after` of every device.
const STALE_AFTER: Duration = Duration::from_secs(2);
/// What is promised of a device that is there again.
const BACK_WITHIN: Duration = Duration::from_secs(2);
/// The counter of the OPC UA server, in µs; as in `soak_opcua.py`.
const STEP_US: i64 = 200_000;
/// What was on its way when a server was killed may still be accepted.
const ON_ITS_WAY_US: i64 = 500_000;

/// A device's server, and what was seen of its point.
struct Peer {
    name: &'static str,
    point: &'static str,
    state: State,
    /// `None` while it is away; the folder has none ever.
    process: Option<Running>,
    away: Vec<(i64, i64)>,
    longest_stale: Duration,
    longest_back: Duration,
    rounds: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// There since, and when its point was good again.
    Up { since: Instant, good: bool },
    /// Away since, and whether its point says so.
    Away { since: Instant, stale: bool },
    /// Started, not yet ready.
    Starting,
}

struct Soak {
    plant: Plant,
    ports: [u16; 3],
    base: i64,
    lines: u64,
    files: u64,
    /// Beyond what is promised, for a busy machine.
    slack: Duration,
}

fn now_us() -> i64 {
    Clock::machine().now().0
}

impl Soak {
    fn new() -> Soak {
        let plant = Plant::new(&["a"]);
        let ports = [free_address().port(), free_address().port(), free_address().port()];
        let device = |name: &str, keys: String, point: &str| {
            plant.write(&format!("{name}.csv"), &format!("name,address,type,path\n{point},soak/{name}\n"));
            format!(
                "[[edge.devices]]\nname = \"{name}\"\npoints = \"{name}.csv\"\nstale_after = \"2s\"\n{keys}"
            )
        };
        let [modbus, s7, opcua] = ports;
        let devices = [
            device(
                "modbus",
                format!("driver = \"modbus-tcp\"\naddress = \"127.0.0.1:{modbus}\"\npoll = \"200ms\"\n"),
                "n,hr:0,uint16",
            ),
            device(
                "s7",
                format!("driver = \"s7\"\naddress = \"127.0.0.1:{s7}\"\npoll = \"200ms\"\n"),
                "n,DB2.DBW0,uint16",
            ),
            device(
                "opcua",
                format!(
                    "driver = \"opcua\"\nurl = \"opc.tcp://127.0.0.1:{opcua}/soak\"\nsecurity = \"none\"\n\
                     publishing_interval = \"200ms\"\npoll = \"500ms\"\n"
                ),
                "n,nsu=urn:forebay:soak;s=Item.Counter,int32",
            ),
            device(
                "files",
                "driver = \"files\"\nfolder = \"machine\"\npoll = \"500ms\"\n".to_owned(),
                "n,n,int32",
            ),
        ];
        plant.agent("a", &devices.concat());
        std::fs::create_dir(plant.dir().join("machine")).unwrap();
        let slack = Duration::from_millis(number("FOREBAY_SLACK_MS", 3_000));
        Soak { plant, ports, base: now_us() / 1_000_000, lines: 0, files: 0, slack }
    }

    /// Starts the server of a device; the folder comes back.
    fn start(&self, name: &str) -> Option<Running> {
        let mut command = Command::new(python());
        match name {
            "modbus" => command.arg(script("plc.py")).arg(self.ports[0].to_string()),
            "s7" => command.arg(script("s7_server.py")).arg(self.ports[1].to_string()),
            "opcua" => {
                command.arg(script("soak_opcua.py")).args([self.ports[2].to_string(), self.base.to_string()])
            }
            _ => {
                let away = self.plant.dir().join("machine-away");
                if away.exists() {
                    std::fs::rename(away, self.plant.dir().join("machine")).unwrap();
                }
                return None;
            }
        };
        // These servers end with their input; the folder's file is no process.
        Some(Running::start_with_input(&mut command))
    }

    /// The server is killed; the folder goes, and its file is rotated meanwhile.
    fn take_away(&mut self, peer: &mut Peer) {
        if let Some(mut process) = peer.process.take() {
            assert!(!process.has_ended(), "{} ended by itself:\n{}", peer.name, process.output());
            process.kill();
            return;
        }
        let folder = self.plant.dir().join("machine-away");
        std::fs::rename(self.plant.dir().join("machine"), &folder).unwrap();
        self.files += 1;
        std::fs::rename(folder.join("log.csv"), folder.join(format!("log-{}.csv", self.files))).unwrap();
    }

    /// The machine goes on writing, whether anybody sees its folder or not.
    fn append(&mut self) {
        let places = ["machine", "machine-away"].map(|name| self.plant.dir().join(name));
        let Some(folder) = places.iter().find(|folder| folder.is_dir()) else { return };
        append_line(&folder.join("log.csv"), self.lines);
        self.lines += 1;
    }

    /// The quality that the hub shows of a point.
    fn quality(&self, point: &str) -> Option<String> {
        Some(self.plant.last(point)?["q"].as_str()?.to_owned())
    }

    /// Looks at a peer, and lets it go on to its next state when it is time.
    fn step(&mut self, peer: &mut Peer, goes: bool) {
        let quality = self.quality(peer.point);
        let is_good = quality.as_deref().is_some_and(|quality| quality.starts_with("good"));
        match peer.state {
            State::Up { since, good: false } => {
                if is_good {
                    peer.longest_back = peer.longest_back.max(since.elapsed());
                    peer.state = State::Up { since, good: true };
                }
                let most = BACK_WITHIN + self.slack;
                assert!(
                    since.elapsed() <= most,
                    "{} is {quality:?} {:?} after its return",
                    peer.name,
                    since.elapsed()
                );
            }
            State::Up { since, good: true } => {
                if goes && since.elapsed() >= CYCLE - AWAY {
                    self.take_away(peer);
                    peer.away.push((now_us() + ON_ITS_WAY_US, i64::MAX));
                    peer.state = State::Away { since: Instant::now(), stale: false };
                }
            }
            State::Away { since, stale } => {
                if stale {
                    assert!(!is_good, "{} became {quality:?} while it was away", peer.name);
                } else if !is_good {
                    peer.longest_stale = peer.longest_stale.max(since.elapsed());
                    peer.state = State::Away { since, stale: true };
                }
                let most = STALE_AFTER + Duration::from_millis(500) + self.slack;
                assert!(
                    !is_good || since.elapsed() <= most,
                    "{} is {quality:?} after {:?}",
                    peer.name,
                    since.elapsed()
                );
                if stale && since.elapsed() >= AWAY {
                    if let Some(last) = peer.away.last_mut() {
                        last.1 = now_us();
                    }
                    peer.process = self.start(peer.name);
                    peer.state = State::Starting;
                }
            }
            State::Starting => {
                let ready = |process: &Running| process.output().contains(['{', 'l']); // a JSON line, or "listening"
                if peer.process.as_ref().is_none_or(ready) {
                    peer.rounds += 1;
                    peer.state = State::Up { since: Instant::now(), good: false };
                }
            }
        }
    }
}

fn append_line(file: &Path, number: u64) {
    let is_new = !file.exists();
    let mut open = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
    let head = if is_new { "timestamp,n\n" } else { "" };
    writeln!(open, "{head}{},{number}", Clock::machine().now()).unwrap();
}

#[test]
fn devices_come_and_go_and_nothing_is_hidden() {
    let time = Duration::from_secs(number("FOREBAY_SECONDS", 40));
    let mut soak = Soak::new();
    let _hub = soak.plant.start_hub();
    let _bridge = soak.plant.start("bridge");
    let names =
        [("modbus", "soak/modbus"), ("s7", "soak/s7"), ("opcua", "soak/opcua"), ("files", "soak/files")];
    soak.append();
    let mut peers = names.map(|(name, point)| Peer {
        name,
        point,
        state: State::Starting,
        process: soak.start(name),
        away: Vec::new(),
        longest_stale: Duration::ZERO,
        longest_back: Duration::ZERO,
        rounds: 0,
    });
    let _agent = soak.plant.start("a");
    eventually(Duration::from_secs(60), "every point is good", || {
        soak.append();
        let good = |peer: &Peer| soak.quality(peer.point).is_some_and(|quality| quality.starts_with("good"));
        peers.iter().all(good).then_some(())
    });
    let begun = Instant::now();
    for (nth, peer) in (0_u32..).zip(&mut peers) {
        // One after the other: the first goes at once, the next a quarter of a cycle later.
        let head_start = (CYCLE - AWAY).saturating_sub(CYCLE / 4 * nth);
        let since = begun.checked_sub(head_start).unwrap_or(begun);
        peer.state = State::Up { since, good: true };
    }
    let mut told = begun;
    loop {
        let tick = Instant::now();
        let goes = begun.elapsed() < time;
        soak.append();
        peers.iter_mut().for_each(|peer| soak.step(peer, goes));
        if !goes && peers.iter().all(|peer| matches!(peer.state, State::Up { good: true, .. })) {
            break;
        }
        if told.elapsed() >= Duration::from_secs(60) {
            told = Instant::now();
            say(&format!("{:.0?}: {}", begun.elapsed(), figures(&peers)));
        }
        std::thread::sleep(Duration::from_millis(100).saturating_sub(tick.elapsed()));
    }
    // What the OPC UA server said by now is there two seconds later; then all servers end, so that nothing new comes.
    let last_number = (now_us() - soak.base * 1_000_000) / STEP_US;
    std::thread::sleep(Duration::from_secs(3));
    for peer in &mut peers {
        peer.process.take();
    }
    eventually(Duration::from_secs(30), "the last line of the file", || {
        let last = soak.plant.last("soak/files")?;
        (last["v"].as_u64()? + 1 == soak.lines).then_some(())
    });
    eventually(Duration::from_secs(30), "everything else is stale", || {
        let stale =
            |peer: &&Peer| soak.quality(peer.point).is_some_and(|quality| quality.starts_with("stale"));
        (peers.iter().filter(stale).count() >= 3).then_some(())
    });
    let report = soak.plant.settle(soak.lines);
    let lines = report["lines"].as_array().unwrap();
    assert!(lines.iter().all(|line| line["verdict"] == "equal"), "{report:#}");
    let wanted = json!({
        "complete": {
            "soak/files": {"first": 0, "last": soak.lines - 1, "base_us": null, "step_us": 0},
            "soak/opcua": {"first": null, "last": last_number, "base_us": soak.base * 1_000_000, "step_us": STEP_US},
        },
        "away": { "soak/modbus": peers[0].away, "soak/s7": peers[1].away },
    });
    let found = check(&soak.plant, &wanted);
    assert_eq!(found["problems"], json!([]), "{found:#}");
    assert!(peers.iter().all(|peer| peer.rounds > 0), "{}", figures(&peers));
    assert!(found["found"]["soak/opcua"]["historical"].as_u64().unwrap() > 0, "{found:#}");
    say(&format!(
        "{:.0?}, {} rows, reconcile equal; {}; {}",
        begun.elapsed(),
        in_table(&report),
        figures(&peers),
        found["found"]
    ));
}

/// How often each was away, and the longest times that its point took.
fn figures(peers: &[Peer; 4]) -> String {
    let one = |peer: &Peer| {
        format!(
            "{}: {} times away, not good after {:.1?}, good again after {:.1?}",
            peer.name, peer.rounds, peer.longest_stale, peer.longest_back
        )
    };
    peers.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// What `check_soak.py` finds in the table.
fn check(plant: &Plant, wanted: &Value) -> Value {
    let mut command = Command::new(python());
    command.arg(script("check_soak.py")).arg(plant.dir().join("lake"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(wanted.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}
