//! Every kind of line against pymodbus: TCP, RTU and ASCII over TCP and on serial lines, with texts, BCD, dates, scale factors
//! and SunSpec; several units behind one address, one of them dead.

use std::time::{Duration, Instant};

use edge_agent::driver_conformance::{self as conformance, Candidate, point};
use edge_agent::drivers::{Driver, DriverError, Readings};
use edge_agent::probe::{Probe, read};
use edge_agent::shared::Shared;
use model::{DataType, Value};
use runtime::clock::Clock;
use serde_json::Value as Json;

use super::peer::Server;
use edge_agent::driver_conformance::value;

/// The five lines: driver and keys of each.
fn devices(server: &Server) -> [(&'static str, String); 5] {
    let tcp = |name: &str, framing: &str| {
        ("modbus-tcp", format!("address = \"127.0.0.1:{}\"\nframing = \"{framing}\"\n", server.hello()[name]))
    };
    let serial = |name: &str, framing: &str| {
        let port = server.hello()[name].as_str().expect("a port");
        (
            "modbus-serial",
            format!("port = \"{port}\"\nframing = \"{framing}\"\nbaud = 115200\ndata_bits = 8\n"),
        )
    };
    [
        tcp("tcp", "tcp"),
        tcp("rtu", "rtu"),
        tcp("ascii", "ascii"),
        serial("serial_rtu", "rtu"),
        serial("serial_ascii", "ascii"),
    ]
}

fn candidate(
    device: &(&'static str, String),
    keys: &str,
    points: &[(String, DataType)],
    shared: &Shared,
) -> Candidate {
    let points = points.iter().map(|(address, data_type)| point(address, *data_type)).collect();
    let mut setup = conformance::setup(points, Clock::machine(), std::env::temp_dir().join("not-written"));
    setup.shared = shared.clone();
    Candidate { driver: device.0, text: format!("{}{keys}", device.1), setup }
}

/// Address, type and value (none: the device says that it has none) of a list.
fn listed(server: &Server, list: &str) -> Vec<(String, DataType, Option<Value>)> {
    let entries = server.hello()[list].as_array().expect("a list");
    let entry = |entry: &Json| {
        let data_type = DataType::from_name(entry["type"].as_str().expect("a type")).expect("a type");
        let held = entry["value"].as_str().map(|text| value(text, data_type));
        (entry["address"].as_str().expect("an address").to_owned(), data_type, held)
    };
    entries.iter().map(entry).collect()
}

async fn check(driver: &mut dyn Driver, listed: &[(String, DataType, Option<Value>)], line: &str) {
    let mut readings = Readings::default();
    driver.read(&mut readings).await.expect("read");
    assert_eq!(readings.list.len(), listed.len(), "{line}");
    for reading in readings.list {
        let (address, _, expected) = &listed[reading.point];
        assert_eq!(&reading.value, expected, "{line}: {address}");
        let quality = if expected.is_some() { "good" } else { "bad:no-data" };
        assert_eq!(reading.quality.to_string(), quality, "{line}: {address}");
    }
}

#[tokio::test]
async fn every_form_is_read_and_written_on_every_line() {
    let mut server = Server::of("modbus_lines.py");
    let mut points = listed(&server, "points");
    points.extend(listed(&server, "models"));
    let addresses: Vec<(String, DataType)> = points.iter().map(|(a, t, _)| (a.clone(), *t)).collect();
    for device in devices(&server) {
        let name = device.1.replace('\n', " ");
        let mut driver = candidate(&device, "unit = 2\n", &addresses, &Shared::default()).driver();
        driver.open(None).await.unwrap();
        check(driver.as_mut(), &points, &name).await;
        for (nth, (address, _, held)) in points.iter().enumerate() {
            let Some(held) =
                held.as_ref().filter(|_| !address.contains("sf=") && !address.contains("sunspec"))
            else {
                continue;
            };
            driver.write(nth, held).await.unwrap();
            server.next_write();
            assert_eq!(driver.read_one(nth).await.unwrap().value.as_ref(), Some(held), "{name}: {address}");
        }
        check(driver.as_mut(), &points, &name).await;
        driver.close().await;
    }
}

#[tokio::test]
async fn every_function_writes_on_every_line() {
    let mut server = Server::of("modbus_lines.py");
    let points = [
        ("co:3", DataType::Boolean, Value::Boolean(true), 5),
        ("co:4 fc=15", DataType::Boolean, Value::Boolean(true), 15),
        ("hr:201", DataType::UInt16, Value::UInt16(4711), 6),
        ("hr:202 fc=16", DataType::UInt16, Value::UInt16(4712), 16),
        ("hr:204", DataType::Float, Value::Float(2.5), 16),
        ("hr:206.4", DataType::Boolean, Value::Boolean(true), 22),
        ("hr:208 fc=23", DataType::UInt32, Value::UInt32(0x1234_5678), 23),
    ];
    let addresses: Vec<(String, DataType)> = points.iter().map(|(a, t, ..)| ((*a).to_owned(), *t)).collect();
    for device in devices(&server) {
        let name = device.1.replace('\n', " ");
        let mut driver = candidate(&device, "unit = 3\n", &addresses, &Shared::default()).driver();
        driver.open(None).await.unwrap();
        for (nth, (address, _, written, function)) in points.iter().enumerate() {
            driver.write(nth, written).await.unwrap();
            assert_eq!(server.next_write()["function"], *function, "{name}: {address}");
            assert_eq!(
                driver.read_one(nth).await.unwrap().value.as_ref(),
                Some(written),
                "{name}: {address}"
            );
        }
        driver.close().await;
    }
}

#[tokio::test]
async fn every_line_keeps_the_contract() {
    let server = Server::of("modbus_lines.py");
    let points: Vec<(String, DataType)> =
        (200..210).map(|at| (format!("hr:{at}"), DataType::UInt16)).collect();
    for device in devices(&server) {
        let candidate = candidate(&device, "timeout = \"500ms\"\n", &points, &Shared::default());
        conformance::validate_is_pure(&candidate);
        conformance::reads_are_bounded_and_typed(&candidate).await;
        conformance::close_then_open_works(&candidate).await;
        conformance::a_cut_off_read_does_no_harm(&candidate).await;
        conformance::writes_are_read_back(&candidate, 3, &[Value::UInt16(1), Value::UInt16(2)]).await;
    }
}

/// Two living units and a dead one share the connection of a gateway: the dead one costs the others its deadline, and then at
/// most a fifth of the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_unit_does_not_starve_its_neighbours() {
    const TIMEOUT: Duration = Duration::from_millis(200);
    let server = Server::of("modbus_lines.py");
    let points: Vec<(String, DataType)> =
        (200..210).map(|at| (format!("hr:{at}"), DataType::UInt16)).collect();
    for device in devices(&server) {
        let name = device.1.replace('\n', " ");
        let shared = Shared::default();
        let driver = |unit: u8| {
            let keys = format!("unit = {unit}\ntimeout = \"{}ms\"\n", TIMEOUT.as_millis());
            candidate(&device, &keys, &points, &shared).driver()
        };
        let (mut one, mut two, mut dead) = (driver(1), driver(2), driver(99));
        one.open(None).await.unwrap();
        two.open(None).await.unwrap();
        let until = Instant::now() + Duration::from_secs(3);
        let knocking = async {
            let mut silent = 0;
            while Instant::now() < until {
                if dead.open(None).await.is_ok() {
                    let error = dead.read(&mut Readings::default()).await.unwrap_err();
                    assert!(matches!(error, DriverError::Silent(_)), "{name}: {error}");
                    silent += 1;
                }
                dead.close().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            silent
        };
        let living = async |driver: &mut Box<dyn Driver>, unit: u16| {
            let (mut reads, mut longest) = (0, Duration::ZERO);
            while Instant::now() < until {
                let begun = Instant::now();
                let mut readings = Readings::default();
                driver.read(&mut readings).await.unwrap_or_else(|error| panic!("{name}: {error}"));
                longest = longest.max(begun.elapsed());
                assert_eq!(readings.list[0].value, Some(Value::UInt16(unit * 100)), "{name}");
                reads += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (reads, longest)
        };
        let (silent, first, second) = tokio::join!(knocking, living(&mut one, 1), living(&mut two, 2));
        println!("{name}: dead {silent} times silent, neighbours {first:?} {second:?}");
        assert!(silent > 10, "{name}: the dead unit goes on trying: {silent}");
        for (reads, longest) in [first, second] {
            assert!(reads > 40, "{name}: {reads} reads in 3 s");
            assert!(longest < TIMEOUT + Duration::from_millis(300), "{name}: one read took {longest:?}");
        }
        one.close().await;
        two.close().await;
    }
}

#[tokio::test]
async fn a_probe_reads_around_holes_on_every_framing() {
    let server = Server::of("modbus_lines.py");
    for framing in ["tcp", "rtu", "ascii"] {
        let probe = |from: u16, count: u16, unit: u8| Probe {
            address: format!("127.0.0.1:{}", server.hello()[framing]),
            framing: framing.to_owned(),
            unit,
            table: "hr".to_owned(),
            from,
            count,
            timeout: Duration::from_millis(500),
        };
        let (cells, stopped) = read(&probe(200, 150, 3)).await.unwrap();
        assert_eq!((cells.len(), stopped), (150, None), "{framing}");
        for (address, value) in &cells {
            match address {
                ..220 => assert_eq!(value, &Ok(300 + address - 200), "{framing} {address}"),
                _ => assert!(
                    value.as_ref().is_err_and(|why| why.contains("illegal data address")),
                    "{value:?}"
                ),
            }
        }
        let (cells, stopped) = read(&probe(0, 10, 99)).await.unwrap();
        assert!(cells.is_empty() && stopped.unwrap().contains("no answer"), "{framing}");
    }
}

#[test]
fn devices_of_one_line_must_agree_on_it() {
    let shared = Shared::default();
    let points = [("hr:0".to_owned(), DataType::UInt16)];
    let device = ("modbus-tcp", "address = \"gateway:502\"\n".to_owned());
    let make = |keys: &str| {
        let candidate = candidate(&device, keys, &points, &shared);
        conformance::validated(candidate.kind(), &candidate.text, &candidate.setup)
    };
    let _first = make("unit = 1\n").unwrap();
    let _second = make("unit = 2\ntimeout = \"5s\"\n").unwrap();
    for (keys, what) in
        [("framing = \"rtu\"", "framing"), ("pause = \"5ms\"", "pause"), ("connections = 2", "connections")]
    {
        let problems = make(keys).err().expect("a problem");
        assert!(problems.list[0].rule.contains(what), "{:?}", problems.list);
    }
}

#[test]
fn profiles_are_lists_without_mistakes() {
    for name in edge_agent::profiles::names() {
        let list = edge_agent::profiles::list(name).expect("it is there");
        let mut problems = runtime::config_file::Problems::default();
        let points =
            edge_agent::points::parse_list(std::path::Path::new(name), list.as_bytes(), "d", &mut problems);
        assert!(problems.is_empty(), "{:?}", problems.list);
        let setup = conformance::setup(points, Clock::machine(), std::env::temp_dir().join("not-written"));
        let candidate = Candidate { driver: "modbus-tcp", text: "address = \"meter\"".into(), setup };
        drop(candidate.driver());
    }
}
