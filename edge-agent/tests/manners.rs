//! Dead and hostile devices beside forty-nine healthy ones: what they cost them.
//!
//! A whole agent polls forty-nine Modbus TCP devices that answer at once, and others that misbehave: a fiftieth of Modbus, or
//! one of every other kind of driver that has a device behind a socket. The healthy ones note when each request arrives; the
//! jitter is how far the time between two polls is off the poll time. The figures are printed
//! (`cargo test -p edge-agent --test manners -- --nocapture`); the bounds leave room for a busy machine.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use edge_agent::Handle;
use runtime::clock::Clock;
use runtime::config_file::{ConfigFile, PlantNames, Problems};
use runtime::tasks::{CancellationToken, Tasks};
use runtime::telemetry::Metrics;

const HEALTHY: usize = 49;
const POLL: Duration = Duration::from_millis(100);
const MEASURED: Duration = Duration::from_secs(3);
const REGISTERS: usize = 20;
/// The issue asks for 5 ms; other tests may run beside this one.
const JITTER_BOUND: Duration = Duration::from_millis(25);
/// The issue asks for 1 MB a device; the allocator gives back when it likes.
const MEMORY_BOUND_KB: i64 = 4096;
/// On a busy machine.
const TRIES: usize = 3;
/// Devices of other kinds: name, and keys with `PORT` and `DIR` in them. Their lists have one point.
const KINDS: [(&str, &str, &str); 5] = [
    ("opcua", "driver = \"opcua\"\nurl = \"opc.tcp://127.0.0.1:PORT\"\nsecurity = \"none\"", "ns=2;s=x"),
    ("s7", "driver = \"s7\"\naddress = \"127.0.0.1:PORT\"", "DB1.REAL0"),
    ("ethernet-ip", "driver = \"ethernet-ip\"\naddress = \"127.0.0.1:PORT\"", "Rate"),
    (
        "sftp",
        "driver = \"files\"\nurl = \"sftp://me@127.0.0.1:PORT/in\"\npassword_file = \"DIR/password\"\n\
         host_key = \"SHA256:0123456789012345678901234567890123456789012\"",
        "x",
    ),
    (
        "ftps",
        "driver = \"files\"\nurl = \"ftps://me@127.0.0.1:PORT/in\"\npassword_file = \"DIR/password\"",
        "x",
    ),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Conduct {
    Answers,
    NeverAnswers,
    AnswersGarbage,
    AnswersLate,
    ClosesAtOnce,
    FloodsExceptions,
    Speaks,
}

/// When requests arrived at the healthy devices.
type Arrivals = Arc<Mutex<Vec<Instant>>>;

/// A device on a thread of its own; its port.
fn device(conduct: Conduct, arrivals: Arrivals, over: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("it works on loopback");
    let port = listener.local_addr().expect("it works on loopback").port();
    listener.set_nonblocking(true).expect("it works on loopback");
    thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).expect("it works on loopback");
                    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("it works on loopback");
                    drop(serve(stream, conduct, &arrivals, &over)); // however it ended, the next one comes
                }
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    });
    port
}

fn serve(
    mut stream: TcpStream,
    conduct: Conduct,
    arrivals: &Arrivals,
    over: &AtomicBool,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; 300];
    if conduct == Conduct::Speaks {
        // FTP and SSH servers speak first; a line that never ends.
        while !over.load(Ordering::Relaxed) {
            stream.write_all(&[b'2'; 1000])?;
            thread::sleep(Duration::from_millis(1));
        }
    }
    while !over.load(Ordering::Relaxed) {
        if conduct == Conduct::ClosesAtOnce {
            return Ok(());
        }
        let length = match stream.read(&mut request) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(error) => return Err(error),
        };
        if conduct == Conduct::Answers && length < 12 {
            continue;
        }
        let head = [request[0], request[1], 0, 0];
        match conduct {
            Conduct::Answers => {
                arrivals.lock().expect("nobody panicked").push(Instant::now());
                let bytes = request[11] * 2;
                let mut answer = head.to_vec();
                answer.extend([0, bytes + 3, request[6], request[7], bytes]);
                answer.resize(answer.len() + usize::from(bytes), 7);
                stream.write_all(&answer)?;
            }
            Conduct::NeverAnswers | Conduct::ClosesAtOnce | Conduct::Speaks => {}
            Conduct::AnswersGarbage => stream.write_all(&[0x5a; 700])?,
            Conduct::AnswersLate => {
                for _ in 0..300 {
                    if over.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    thread::sleep(Duration::from_millis(100));
                }
            }
            Conduct::FloodsExceptions => {
                let exception = [head[0], head[1], 0, 0, 0, 3, request[6], request[7] | 0x80, 2];
                for _ in 0..100 {
                    stream.write_all(&exception.repeat(100))?;
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }
    Ok(())
}

/// What one run showed.
struct Run {
    p99: Duration,
    polls: usize,
    grown_kb: i64,
    /// The devices beside the healthy ones.
    others: Vec<edge_agent::health::DeviceStatus>,
}

/// A device beside the healthy ones: its keys, and the address of its one point; none for a list like theirs.
type Other = (String, Option<&'static str>);

fn modbus(port: u16) -> Other {
    (format!("driver = \"modbus-tcp\"\naddress = \"127.0.0.1:{port}\""), None)
}

/// One of every other kind.
fn of_every_kind(conduct: Conduct, dir: &std::path::Path, over: &Arc<AtomicBool>) -> Vec<Other> {
    std::fs::write(dir.join("password"), "secret").expect("it works on loopback");
    let one = |(_, keys, address): (&str, &str, &'static str)| {
        let port = device(conduct, Arrivals::default(), over.clone()).to_string();
        (keys.replace("PORT", &port).replace("DIR", &dir.display().to_string()), Some(address))
    };
    KINDS.into_iter().map(one).collect()
}

async fn run(others: impl Fn(&std::path::Path, &Arc<AtomicBool>) -> Vec<Other>) -> Run {
    let over = Arc::new(AtomicBool::new(false));
    let healthy: Vec<Arrivals> = (0..HEALTHY).map(|_| Arrivals::default()).collect();
    let dir = tempfile::tempdir().expect("it works on loopback");
    let mut devices: Vec<Other> = healthy
        .iter()
        .map(|arrivals| modbus(device(Conduct::Answers, arrivals.clone(), over.clone())))
        .collect();
    devices.extend(others(dir.path(), &over));
    let tasks = Tasks::new(CancellationToken::new());
    let handle = agent(dir.path(), &devices, tasks.clone()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (from, before) = (Instant::now(), resident_kb());
    tokio::time::sleep(MEASURED).await;
    let grown_kb = resident_kb() - before;
    let others = handle.status().devices.split_off(HEALTHY);
    tasks.drain().await;
    over.store(true, Ordering::Relaxed);
    let mut jitter = Vec::new();
    for arrivals in &healthy {
        let arrivals = arrivals.lock().expect("nobody panicked");
        let late: Vec<Instant> = arrivals.iter().copied().filter(|at| *at >= from).collect();
        jitter.extend(late.windows(2).map(|pair| (pair[1] - pair[0]).abs_diff(POLL)));
    }
    jitter.sort_unstable();
    let p99 = jitter[(jitter.len() * 99 / 100).min(jitter.len() - 1)];
    Run { p99, polls: jitter.len(), grown_kb, others }
}

async fn agent(dir: &std::path::Path, devices: &[Other], tasks: Tasks) -> Handle {
    let mut list = String::from("name,address,type\n");
    for register in 0..REGISTERS {
        list.push_str(&format!("r{register},hr:{register},uint16\n"));
    }
    std::fs::write(dir.join("points.csv"), list).expect("it works on loopback");
    let mut text = String::from(
        "[edge]\ngroup = \"g\"\nnode = \"n\"\ndata_dir = \"data\"\nhub = \"mqtt://127.0.0.1:1\"\n",
    );
    for (nth, (keys, address)) in devices.iter().enumerate() {
        let points = address.map_or_else(|| "points.csv".to_owned(), |_| format!("points-{nth}.csv"));
        if let Some(address) = address {
            let list = format!("name,address,type\nx,{address},float\n");
            std::fs::write(dir.join(&points), list).expect("it works on loopback");
        }
        text.push_str(&format!(
            "[[edge.devices]]\nname = \"d{nth}\"\n{keys}\npoll = \"{}ms\"\npoints = \"{points}\"\n",
            POLL.as_millis()
        ));
    }
    let file = ConfigFile::from_text(&dir.join("edge.toml"), text);
    let mut problems = Problems::default();
    let mut root = file.parse(&mut problems);
    let plant = PlantNames { enterprise: "acme".into(), site: "antwerp".into() };
    let section = root.section("edge", &mut problems).expect("it works on loopback");
    let config = edge_agent::config::validate(section, &plant, &mut problems);
    let config = config.unwrap_or_else(|| panic!("{:?}", problems.list));
    edge_agent::start(config, Clock::machine(), Metrics::default(), tasks)
        .await
        .expect("it works on loopback")
}

fn resident_kb() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it works on loopback");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it works on loopback");
    line.split_whitespace().nth(1).expect("it works on loopback").parse().expect("it works on loopback")
}

#[expect(clippy::print_stdout, reason = "figures, for whoever asks with --nocapture")]
fn say(name: &str, run: &Run) {
    let (polls, grown) = (run.polls, run.grown_kb);
    println!("{name}: p99 jitter {:?} of {polls} polls, memory {grown:+} kB", run.p99);
    for other in &run.others {
        println!("    {} is {:?}: {:?}", other.driver, other.state, other.error);
    }
}

/// The healthy devices did not notice, and of the others nothing is good. What the machine does beside is measured too: a run
/// that seems bad is held against a new quiet one and tried again.
async fn judge(
    name: &str,
    quiet: &mut Run,
    others: impl Fn(&std::path::Path, &Arc<AtomicBool>) -> Vec<Other>,
) {
    let mut troubles = Vec::new();
    for _ in 0..TRIES {
        let found = run(&others).await;
        say(name, &found);
        let hostile = i64::try_from(found.others.len()).expect("few");
        for other in &found.others {
            assert_eq!(
                other.qualities.good, 0,
                "{name}: nothing of {} is good: {:?}",
                other.name, other.qualities
            );
        }
        let is_calm = found.p99 <= quiet.p99 + JITTER_BOUND;
        let is_complete = found.polls * 10 >= quiet.polls * 9;
        let is_small = found.grown_kb <= quiet.grown_kb.max(0) + hostile * MEMORY_BOUND_KB;
        if is_calm && is_complete && is_small {
            return;
        }
        troubles.push(format!(
            "{:?} after {:?}, {} polls after {}, {:+} kB",
            found.p99, quiet.p99, found.polls, quiet.polls, found.grown_kb
        ));
        *quiet = run(fiftieth(Conduct::Answers)).await;
    }
    panic!("{name}: {troubles:?}");
}

fn fiftieth(conduct: Conduct) -> impl Fn(&std::path::Path, &Arc<AtomicBool>) -> Vec<Other> {
    move |_, over| vec![modbus(device(conduct, Arrivals::default(), over.clone()))]
}

async fn quiet() -> Run {
    run(fiftieth(Conduct::Answers)).await; // warms up
    let quiet = run(fiftieth(Conduct::Answers)).await;
    say("fifty healthy devices", &quiet);
    assert!(quiet.others[0].figures.per_second > 5.0, "{:?}", quiet.others[0].figures);
    assert_eq!(quiet.others[0].qualities.good, REGISTERS);
    quiet
}

/// In one test, one after the other: they measure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_devices_of_every_kind_cost_their_neighbours_nothing() {
    let mut quiet = quiet().await;
    let conducts = [
        Conduct::NeverAnswers,
        Conduct::AnswersGarbage,
        Conduct::AnswersLate,
        Conduct::ClosesAtOnce,
        Conduct::FloodsExceptions,
    ];
    for conduct in conducts {
        judge(&format!("Modbus, {conduct:?}"), &mut quiet, fiftieth(conduct)).await;
    }
    for conduct in conducts.into_iter().chain([Conduct::Speaks]) {
        let others = |dir: &std::path::Path, over: &Arc<AtomicBool>| of_every_kind(conduct, dir, over);
        judge(&format!("every other kind, {conduct:?}"), &mut quiet, others).await;
    }
}
