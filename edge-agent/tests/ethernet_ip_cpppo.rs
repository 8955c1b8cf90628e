//! The EtherNet/IP driver against cpppo's Logix controller: every type, arrays, members, bits, texts, packing in messages of every
//! size, refusals, writes, program mode, browsing, loss of the controller. What cpppo lacks is in `tests/peers/ethernet_ip_server.py`.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use edge_agent::driver_conformance::{self as conformance, Candidate, PythonPeer, addresses, read_all};
use edge_agent::drivers::ethernet_ip::browse::{BrowseOptions, browse};
use edge_agent::drivers::{DriverError, Readings};
use edge_agent::points::parse_list;
use model::{DataType, Value};
use runtime::config_file::Problems;

struct Server(PythonPeer);

impl Server {
    fn start(arguments: &[&str]) -> Server {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        Server(PythonPeer::start("ethernet_ip_server.py", &arguments))
    }

    fn tell(&mut self, word: &str) -> serde_json::Value {
        self.0.tell(word);
        self.0.hear()
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.0.hello["port"])
    }

    fn candidate(&self, points: &[(String, DataType)], keys: &str) -> Candidate {
        let text = format!("address = \"{}\"\ntimeout = \"8s\"\n{keys}", self.address());
        Candidate::with_points("ethernet-ip", text, points)
    }
}

fn points(list: &[(&str, DataType)]) -> Vec<(String, DataType)> {
    list.iter().map(|(address, data_type)| ((*address).to_owned(), *data_type)).collect()
}

async fn everything_is_read(server: &Server, keys: &str) {
    let listed = server.0.points();
    assert!(listed.len() > 900, "{}", listed.len());
    let mut driver = server.candidate(&addresses(&listed), keys).driver();
    driver.open(None).await.expect("open");
    for _ in 0..2 {
        let readings = read_all(driver.as_mut()).await.list;
        assert_eq!(readings.len(), listed.len(), "{keys}");
        for reading in readings {
            let (address, _, expected) = &listed[reading.point];
            assert_eq!(reading.value.as_ref(), Some(expected), "{keys}: {address}: {}", reading.quality);
            assert!(reading.quality.is_good(), "{address}: {}", reading.quality);
        }
    }
    driver.close().await;
}

#[tokio::test]
async fn every_type_is_read_in_messages_of_every_size() {
    let server = Server::start(&[]);
    for keys in
        ["", "size = 500\nmax_gap = 0", "size = 200\nslot = 3", "connected = false", "route = \"none\""]
    {
        everything_is_read(&server, keys).await;
    }
}

#[tokio::test]
async fn a_controller_without_backplane_is_asked_without_a_route() {
    let server = Server::start(&["--simple"]);
    everything_is_read(&server, "route = \"none\"\nconnected = false").await;
}

#[tokio::test]
async fn many_tags_go_in_one_message_and_long_ones_in_parts() {
    let server = Server::start(&[]);
    let listed = server.0.points();
    let candidate = server.candidate(&addresses(&listed), "stop_check = \"0s\"");
    let mut driver = candidate.driver();
    driver.open(None).await.unwrap();
    let before = candidate.setup.pace.figures().requests;
    read_all(driver.as_mut()).await;
    let requests = candidate.setup.pace.figures().requests - before;
    // cpppo answers arrays in parts of 488 bytes, whatever the connection has room for.
    assert!(requests < 30, "{} points took {requests} requests", listed.len());
    let long: Vec<_> = (0..2000).map(|nth| (format!("Counts[{nth}]"), DataType::Int16)).collect();
    let mut driver = server.candidate(&long, "").driver();
    driver.open(None).await.unwrap();
    let readings = read_all(driver.as_mut()).await.list;
    assert_eq!(readings.len(), 2000);
    for reading in readings {
        let nth = i16::try_from(reading.point).unwrap();
        assert_eq!(reading.value, Some(Value::Int16(nth - 1000)), "{nth}");
    }
}

#[tokio::test]
async fn everything_that_can_be_written_is() {
    let server = Server::start(&[]);
    let listed = server.0.points();
    let mut driver = server.candidate(&addresses(&listed), "").driver();
    driver.open(None).await.unwrap();
    let mut written = 0;
    for (nth, (address, _, held)) in listed.iter().enumerate() {
        // cpppo takes its time: of what there are many, some.
        let every = match address.split(['[', '.']).next() {
            Some("Temps" | "Counts") => 29,
            Some("Flags" | "Bits" | "Raw") => 5,
            _ => 1,
        };
        if nth % every > 0 {
            continue;
        }
        let other = match held {
            Value::Boolean(on) => Value::Boolean(!on),
            Value::String(_) => Value::String("neu".into()),
            Value::Bytes(raw) => Value::Bytes(raw.iter().map(|byte| byte ^ 0xff).collect()),
            _ => Value::from_f64(7.0, held.data_type()).unwrap(),
        };
        for value in [&other, held] {
            driver.write(nth, value).await.unwrap_or_else(|error| panic!("{address}: {error}"));
            assert_eq!(driver.read_one(nth).await.unwrap().value.as_ref(), Some(value), "{address}");
        }
        written += 1;
    }
    assert!(written > 80, "{written}");
    // Nothing else has changed.
    for reading in read_all(driver.as_mut()).await.list {
        assert_eq!(reading.value.as_ref(), Some(&listed[reading.point].2), "{}", listed[reading.point].0);
    }
    let name = listed.iter().position(|(address, ..)| address == "Short").unwrap();
    let refused = driver.write(name, &Value::String("x".repeat(21))).await.unwrap_err();
    assert!(
        matches!(&refused, DriverError::Refused { reason, .. } if reason.contains("20 characters")),
        "{refused}"
    );
    let refused = driver.write(name, &Value::String("Ω".into())).await.unwrap_err();
    assert!(refused.to_string().contains("Latin-1"), "{refused}");
}

#[tokio::test]
async fn refusals_are_qualities_of_their_points() {
    let server = Server::start(&[]);
    let points = points(&[
        ("Count", DataType::Int32),
        ("Nowhere", DataType::Int32),
        ("Secret", DataType::Int32),
        ("Rate", DataType::Double),
        ("Word.16", DataType::Boolean),
        ("Program:Main.Cell.Nothing", DataType::Float),
        ("Temps[398]", DataType::Float),
        ("Temps[399]", DataType::Float),
        ("Temps[400]", DataType::Float),
        ("Temps[405]", DataType::Float),
        ("Flags[63]", DataType::Boolean),
        ("Flags[64]", DataType::Boolean),
        ("Count", DataType::String),
        ("Raw[30] len=4", DataType::Bytes),
    ]);
    for keys in ["", "connected = false"] {
        let mut driver = server.candidate(&points, keys).driver();
        driver.open(None).await.unwrap();
        for _ in 0..3 {
            let readings = read_all(driver.as_mut()).await.list;
            assert_eq!(readings.len(), points.len());
            for reading in readings {
                let (address, data_type) = &points[reading.point];
                let expected = match (address.as_str(), data_type) {
                    ("Nowhere" | "Program:Main.Cell.Nothing", _) => "bad:device-exception:5",
                    ("Secret", _) => "bad:access-denied",
                    ("Rate" | "Word.16", _) | ("Count", DataType::String) => "bad:type-mismatch",
                    ("Temps[400]" | "Temps[405]" | "Flags[64]" | "Raw[30] len=4", _) => {
                        "bad:device-exception:8453"
                    }
                    _ => "good",
                };
                assert_eq!(reading.quality.to_string(), expected, "{address}");
            }
        }
        let refused = driver.write(1, &Value::Int32(1)).await.unwrap_err();
        assert!(matches!(refused, DriverError::Refused { .. }), "{refused}");
        let refused = driver.write(3, &Value::Double(1.0)).await.unwrap_err();
        assert!(refused.to_string().contains("the tag is of type REAL"), "{refused}");
        assert_eq!(driver.read_one(8).await.unwrap().quality.to_string(), "bad:device-exception:8453");
        assert!(driver.read_one(0).await.unwrap().quality.is_good());
    }
}

#[tokio::test]
async fn a_controller_in_program_mode_says_so() {
    let mut server = Server::start(&[]);
    let mut driver =
        server.candidate(&points(&[("Count", DataType::Int32)]), "stop_check = \"10ms\"").driver();
    driver.open(None).await.unwrap();
    assert!(read_all(driver.as_mut()).await.list[0].quality.is_good());
    for (word, expected) in [("stop", "uncertain:device-stopped"), ("run", "good")] {
        assert_eq!(server.tell(word)["state"], word);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let reading = read_all(driver.as_mut()).await.list.remove(0);
        assert_eq!(reading.quality.to_string(), expected);
        assert_eq!(reading.value, Some(Value::Int32(-2)), "the value is kept");
    }
}

fn options(server: &Server, from: Option<&str>) -> BrowseOptions {
    BrowseOptions {
        address: server.address(),
        route: "1,0".into(),
        from: from.map(str::to_owned),
        timeout: Duration::from_secs(8),
    }
}

#[tokio::test]
async fn browsing_gives_a_list_that_can_be_read() {
    let mut server = Server::start(&[]);
    let text = browse(&options(&server, None)).await.unwrap();
    let mut problems = Problems::default();
    let found = parse_list(Path::new("found.csv"), text.as_bytes(), "d", &mut problems);
    assert!(problems.is_empty(), "{:?}", problems.list);
    let by_address: HashMap<&str, _> = found.iter().map(|point| (point.address.as_str(), point)).collect();
    // Everything that the server says of itself, long arrays apart.
    let listed = server.0.points();
    let has_line = |address: &str| {
        let is_long = ["Temps[", "Counts["].iter().any(|array| address.starts_with(array));
        !is_long && !address.contains(" len=") && !address.starts_with("Bits.") && address != "long"
    };
    for (address, data_type, _) in listed.iter().filter(|(address, ..)| has_line(address)) {
        let found =
            by_address.get(address.as_str()).unwrap_or_else(|| panic!("{address} is missing:\n{text}"));
        assert_eq!(
            (found.raw_type, found.definition.writable),
            (*data_type, address != "Fixed"),
            "{address}"
        );
    }
    for hidden in ["Secret", "__hidden", "ZZZZ", "Routine", ".LEN", "Map:"] {
        assert!(!text.contains(hidden), "{hidden}:\n{text}");
    }
    assert!(text.contains("# Temps: Temps is no single value"), "{text}");
    // pycomm3 finds the same tags.
    let theirs = server.tell("tags");
    let visible = |name: &&String| !["Temps", "Counts", "Secret"].contains(&name.as_str());
    for tag in theirs.as_object().unwrap().keys().filter(visible) {
        assert!(found.iter().any(|point| point.address.starts_with(tag.as_str())), "{tag}");
    }
    let ours = found.iter().map(|point| {
        let end = point.address.strip_prefix("Program:Main.").map_or(0, |_| "Program:Main.".len());
        let own = &point.address[end..];
        format!("{}{}", &point.address[..end], own.split(['.', '[']).next().unwrap())
    });
    for tag in ours {
        assert!(theirs.get(&tag).is_some(), "pycomm3 has no {tag}: {theirs}");
    }
    // What was found is read.
    let wanted: Vec<_> = found.iter().map(|point| (point.address.clone(), point.raw_type)).collect();
    let mut driver = server.candidate(&wanted, "").driver();
    driver.open(None).await.unwrap();
    for reading in read_all(driver.as_mut()).await.list {
        assert!(reading.quality.is_good(), "{}: {}", wanted[reading.point].0, reading.quality);
    }
    let part = browse(&options(&server, Some("Program:Main.Cell"))).await.unwrap();
    assert_eq!(part.lines().count(), 6, "{part}");
    let none = browse(&options(&server, Some("Nothing"))).await.unwrap_err();
    assert!(matches!(none, DriverError::Config(_)), "{none}");
}

#[tokio::test]
async fn keeps_the_contract() {
    let server = Server::start(&[]);
    let listed: Vec<_> = server.0.points().into_iter().step_by(9).collect();
    let mut wanted = addresses(&listed);
    wanted.push(("Rate".into(), DataType::Float));
    let candidate = server.candidate(&wanted, "size = 300");
    conformance::validate_is_pure(&candidate);
    conformance::reads_are_bounded_and_typed(&candidate).await;
    conformance::close_then_open_works(&candidate).await;
    conformance::a_cut_off_read_does_no_harm(&candidate).await;
    let rate = wanted.len() - 1;
    conformance::writes_are_read_back(&candidate, rate, &[Value::Float(1.25), Value::Float(-2.0)]).await;
    let mut driver = candidate.driver();
    driver.open(None).await.unwrap();
    driver.read(&mut Readings::default()).await.unwrap();
    drop(server);
    let lost = driver.read(&mut Readings::default()).await.unwrap_err();
    assert!(matches!(lost, DriverError::NotConnected(_)), "{lost}");
    conformance::open_without_peer_fails(&candidate).await;
}
