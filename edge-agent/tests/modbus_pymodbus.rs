//! The Modbus driver against pymodbus: every type in every order, exceptions, writes, loss of the server.

use edge_agent::driver_conformance as conformance;
use edge_agent::drivers::{DriverError, Readings};
use model::{DataType, Value};

#[path = "modbus_pymodbus/lines.rs"]
mod lines;
#[path = "modbus_pymodbus/peer.rs"]
mod peer;

use edge_agent::driver_conformance::value;
use peer::Server;

#[tokio::test]
async fn every_type_in_every_order_is_read() {
    let server = Server::start();
    let listed = server.listed("points");
    assert!(listed.len() > 250, "{}", listed.len());
    for keys in ["", "max_registers = 5\nmax_bits = 3\nmax_gap = 0"] {
        let points = listed.iter().map(|(address, data_type, _)| (address.clone(), *data_type)).collect();
        let mut driver = server.candidate(points, keys).driver();
        driver.open(None).await.unwrap();
        let mut readings = Readings::default();
        driver.read(&mut readings).await.unwrap();
        assert_eq!(readings.list.len(), listed.len());
        for reading in readings.list {
            let (address, data_type, text) = &listed[reading.point];
            assert_eq!(reading.value, Some(value(text, *data_type)), "{address} {data_type:?}");
            assert!(reading.quality.is_good());
        }
        driver.close().await;
    }
}

#[tokio::test]
async fn every_type_in_every_order_is_written() {
    let mut server = Server::start();
    let listed = server.listed("writes");
    let points = listed.iter().map(|(address, data_type, _)| (address.clone(), *data_type)).collect();
    let mut driver = server.candidate(points, "").driver();
    driver.open(None).await.unwrap();
    for (nth, (address, data_type, text)) in listed.iter().enumerate() {
        let value = value(text, *data_type);
        driver.write(nth, &value).await.unwrap();
        let write = server.next_write();
        let expected = &server.hello()["writes"][nth];
        let cells = expected["cells"].as_array().unwrap();
        assert_eq!(write["function"], if cells.len() == 1 { 6 } else { 16 }, "{address}");
        assert_eq!(
            (&write["address"], &write["values"]),
            (&expected["start"], &expected["cells"]),
            "{address}"
        );
        assert_eq!(driver.read_one(nth).await.unwrap().value, Some(value), "{address}");
    }
    driver.close().await;
}

#[tokio::test]
async fn coils_and_parts_of_registers_are_written() {
    let server = Server::start();
    let boolean = [Value::Boolean(true), Value::Boolean(false), Value::Boolean(true)];
    let points =
        [("co:5", DataType::Boolean), ("hr:3000.0", DataType::Boolean), ("hr:3000", DataType::UInt8)];
    let all = points.iter().map(|(address, data_type)| ((*address).to_owned(), *data_type)).collect();
    let candidate = server.candidate(all, "");
    conformance::writes_are_read_back(&candidate, 0, &boolean).await;
    conformance::writes_are_read_back(&candidate, 1, &boolean).await;
    conformance::writes_are_read_back(&candidate, 2, &[Value::UInt8(255), Value::UInt8(0)]).await;
    // The other byte of the register is as the server made it: 7 in the low byte, 0 in the high one.
    let mut driver = server.candidate(vec![("hr:3000".into(), DataType::UInt16)], "").driver();
    driver.open(None).await.unwrap();
    driver.write(0, &Value::UInt16(0x1200)).await.unwrap();
    let mut low = server.candidate(vec![("hr:3000".into(), DataType::UInt8)], "").driver();
    low.open(None).await.unwrap();
    low.write(0, &Value::UInt8(0x34)).await.unwrap();
    assert_eq!(driver.read_one(0).await.unwrap().value, Some(Value::UInt16(0x1234)));
}

#[tokio::test]
async fn exceptions_are_qualities_of_their_points() {
    let server = Server::start();
    // Registers 1000 to 1003 are not there, 2000 is busy, 2020 fails.
    let places: Vec<u16> = (990..1020).chain([1999, 2000, 2019, 2020, 2021]).collect();
    let points = places.iter().map(|place| (format!("hr:{place}"), DataType::UInt16)).collect();
    let mut driver = server.candidate(points, "").driver();
    driver.open(None).await.unwrap();
    for _ in 0..2 {
        let mut readings = Readings::default();
        driver.read(&mut readings).await.unwrap();
        assert_eq!(readings.list.len(), places.len());
        for reading in readings.list {
            let place = places[reading.point];
            let expected = match place {
                1000..=1003 => "bad:device-exception:2",
                1999 | 2000 => "bad:device-exception:6", // busy is no matter of place: the whole request says so
                2020 => "bad:device-exception:4",
                _ => "good",
            };
            assert_eq!(reading.quality.to_string(), expected, "hr:{place}");
        }
    }
    let hole = usize::from(1000_u16 - 990);
    let refused = driver.write(hole, &Value::UInt16(1)).await.unwrap_err();
    assert!(matches!(refused, DriverError::Refused { code: 2, .. }), "{refused}");
}

#[tokio::test]
async fn another_unit_answers_with_an_exception() {
    let server = Server::start();
    let mut driver = server.candidate(vec![("hr:0".into(), DataType::UInt16)], "unit = 9").driver();
    driver.open(None).await.unwrap();
    let mut readings = Readings::default();
    driver.read(&mut readings).await.unwrap();
    assert!(readings.list[0].quality.to_string().starts_with("bad:device-exception:"));
}

#[tokio::test]
async fn keeps_the_contract() {
    let server = Server::start();
    let points = server.listed("points").into_iter().map(|(address, data_type, _)| (address, data_type));
    let candidate = server.candidate(points.collect(), "timeout = \"500ms\"");
    conformance::validate_is_pure(&candidate);
    conformance::reads_are_bounded_and_typed(&candidate).await;
    conformance::close_then_open_works(&candidate).await;
    conformance::a_cut_off_read_does_no_harm(&candidate).await;
    let mut driver = candidate.driver();
    driver.open(None).await.unwrap();
    driver.read(&mut Readings::default()).await.unwrap();
    drop(server);
    let lost = driver.read(&mut Readings::default()).await.unwrap_err();
    assert!(matches!(lost, DriverError::NotConnected(_)), "{lost}");
    conformance::open_without_peer_fails(&candidate).await;
}
