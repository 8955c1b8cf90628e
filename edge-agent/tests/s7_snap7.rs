//! The S7 driver against snap7's server: every type of every area, packing, refusals, writes, CPU in STOP, loss of the server.

use edge_agent::driver_conformance::{self as conformance, Candidate, PythonPeer, addresses, read_all};
use edge_agent::drivers::{DriverError, Readings};
use model::{DataType, Timestamp, Value};

struct Server(PythonPeer);

impl Server {
    fn start() -> Server {
        Server(PythonPeer::start("s7_server.py", &[]))
    }

    fn set_state(&mut self, state: &str) {
        self.0.tell(state);
        assert_eq!(self.0.hear()["state"], state);
    }

    fn candidate(&self, points: &[(String, DataType)], keys: &str) -> Candidate {
        let text = format!("address = \"127.0.0.1:{}\"\nstop_check = \"10ms\"\n{keys}", self.0.hello["port"]);
        Candidate::with_points("s7", text, points)
    }
}

#[tokio::test]
async fn every_type_of_every_area_is_read_in_every_pdu() {
    let server = Server::start();
    let listed = server.0.points();
    assert!(listed.len() > 100, "{}", listed.len());
    for keys in ["", "pdu = 240", "pdu = 112\nmax_gap = 0", "max_gap = 200\nslot = 2\nconnection = \"op\""] {
        let mut driver = server.candidate(&addresses(&listed), keys).driver();
        driver.open(None).await.unwrap();
        for _ in 0..2 {
            let readings = read_all(driver.as_mut()).await.list;
            assert_eq!(readings.len(), listed.len(), "{keys}");
            for reading in readings {
                let (address, _, expected) = &listed[reading.point];
                assert_eq!(reading.value.as_ref(), Some(expected), "{keys}: {address}");
                assert!(reading.quality.is_good(), "{address}: {}", reading.quality);
            }
        }
        driver.close().await;
    }
}

#[tokio::test]
async fn everything_that_can_be_written_is() {
    let server = Server::start();
    let listed = server.0.points();
    let mut driver = server.candidate(&addresses(&listed), "").driver();
    driver.open(None).await.unwrap();
    let mut written = 0;
    for (nth, (address, _, held)) in listed.iter().enumerate() {
        let other = match held {
            Value::Boolean(on) => Value::Boolean(!on),
            Value::String(_) => Value::String("neu".into()),
            Value::DateTime(Timestamp(micros)) => Value::DateTime(Timestamp(micros + 86_400_000_000)),
            Value::Bytes(raw) if raw.len() > 900 => continue, // more than a PDU: see below
            Value::Bytes(raw) => Value::Bytes(raw.iter().map(|byte| byte ^ 0xff).collect()),
            _ => Value::from_f64(7.0, held.data_type()).unwrap(),
        };
        let is_read_only = ["I", "E", "T", "C", "Z"].iter().any(|area| address.starts_with(area));
        let outcome = driver.write(nth, &other).await;
        if is_read_only {
            assert!(matches!(outcome, Err(DriverError::Refused { .. })), "{address}: {outcome:?}");
            continue;
        }
        // S5TIME counts in steps of 10 ms: 7 ms do not exist.
        if address.contains("S5TIME") {
            assert!(outcome.is_err(), "{address}");
            driver.write(nth, &Value::UInt32(990)).await.unwrap();
            assert_eq!(driver.read_one(nth).await.unwrap().value, Some(Value::UInt32(990)));
            continue;
        }
        outcome.unwrap_or_else(|error| panic!("{address}: {error}"));
        assert_eq!(driver.read_one(nth).await.unwrap().value, Some(other), "{address}");
        driver.write(nth, held).await.unwrap();
        assert_eq!(driver.read_one(nth).await.unwrap().value.as_ref(), Some(held), "{address}: back");
        written += 1;
    }
    assert!(written > 70, "{written}");
    let long = listed.iter().position(|(address, ..)| address == "DB2.BYTE100[1500]").unwrap();
    let refused = driver.write(long, &Value::Bytes(vec![0; 1500])).await.unwrap_err();
    assert!(refused.to_string().contains("at once"), "{refused}");
}

#[tokio::test]
async fn refusals_are_qualities_of_their_points() {
    let server = Server::start();
    let points: Vec<(String, DataType)> =
        ["DB7.DBW0", "DB7.DBW380", "DB7.DBW398", "DB7.DBW400", "DB7.DBW410", "DB9.DBW0", "DB9.DBW2", "MW0"]
            .map(|address| (address.to_owned(), DataType::UInt16))
            .into();
    let mut driver = server.candidate(&points, "max_gap = 200").driver();
    driver.open(None).await.unwrap();
    for _ in 0..3 {
        let readings = read_all(driver.as_mut()).await.list;
        assert_eq!(readings.len(), points.len());
        for reading in readings {
            let (address, _) = &points[reading.point];
            let expected = match address.as_str() {
                "DB7.DBW400" | "DB7.DBW410" => "bad:device-exception:5",
                "DB9.DBW0" | "DB9.DBW2" => "bad:device-exception:10",
                _ => "good",
            };
            assert_eq!(reading.quality.to_string(), expected, "{address}");
        }
    }
    let refused = driver.write(5, &Value::UInt16(1)).await.unwrap_err();
    assert!(matches!(refused, DriverError::Refused { code: 10, .. }), "{refused}");
    assert!(refused.to_string().contains("optimised block access"), "{refused}");
    assert_eq!(driver.read_one(3).await.unwrap().quality.to_string(), "bad:device-exception:5");
}

#[tokio::test]
async fn a_cpu_in_stop_says_so() {
    let mut server = Server::start();
    let points = [("MW0".to_owned(), DataType::UInt16)];
    let mut driver = server.candidate(&points, "").driver();
    driver.open(None).await.unwrap();
    assert!(read_all(driver.as_mut()).await.list[0].quality.is_good());
    server.set_state("stop");
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let stopped = read_all(driver.as_mut()).await.list.remove(0);
    assert_eq!(stopped.quality.to_string(), "uncertain:device-stopped");
    assert_eq!(stopped.value, Some(Value::UInt16(0)), "the value is kept");
    server.set_state("run");
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert!(read_all(driver.as_mut()).await.list[0].quality.is_good());
}

#[tokio::test]
async fn keeps_the_contract() {
    let server = Server::start();
    let listed = server.0.points();
    let candidate = server.candidate(&addresses(&listed), "timeout = \"500ms\"\npdu = 240");
    conformance::validate_is_pure(&candidate);
    conformance::reads_are_bounded_and_typed(&candidate).await;
    conformance::close_then_open_works(&candidate).await;
    conformance::a_cut_off_read_does_no_harm(&candidate).await;
    let word = listed.iter().position(|(address, ..)| address == "MREAL10").unwrap();
    conformance::writes_are_read_back(&candidate, word, &[Value::Float(1.5), Value::Float(-2.0)]).await;
    let mut driver = candidate.driver();
    driver.open(None).await.unwrap();
    driver.read(&mut Readings::default()).await.unwrap();
    drop(server);
    let lost = driver.read(&mut Readings::default()).await.unwrap_err();
    assert!(matches!(lost, DriverError::NotConnected(_)), "{lost}");
    conformance::open_without_peer_fails(&candidate).await;
}
