//! The driver against peers that misbehave on a real socket; well-behaved ones are in `tests/modbus_pymodbus.rs`.

use model::DataType;
use runtime::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use std::sync::Arc;

use super::address::{Addressing, Dialect};
use super::frame::Framing;
use super::line::{Line, LineSettings, Target};
use super::*;
use crate::driver_conformance as conformance;
use crate::driver_conformance::{point, validated};
use crate::drivers::{DeviceSetup, Remedy};
use crate::pace::Pace;
use crate::points::PointConfig;

fn setup(points: Vec<PointConfig>, clock: Clock) -> DeviceSetup {
    conformance::setup(points, clock, std::env::temp_dir().join("not-written"))
}

/// What a scripted device does with a request; `None` says nothing.
type Script = fn(&[u8]) -> Option<Vec<u8>>;

/// A device that answers each request as the script says, and its address.
async fn device(script: Script) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    #[expect(clippy::disallowed_methods, reason = "a test's peer, aborted by its test")]
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve(stream, script).await;
        }
    });
    (address, task)
}

async fn serve(mut stream: TcpStream, script: Script) {
    let mut request = [0; 300];
    while let Ok(length) = stream.read(&mut request).await {
        if length == 0 {
            return;
        }
        if let Some(answer) = script(&request[..length])
            && (answer.is_empty() || stream.write_all(&answer).await.is_err())
        {
            return;
        }
    }
}

/// A frame that answers `request` with this function and data.
fn answer(request: &[u8], function: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = request[..4].to_vec();
    frame.extend(u16::try_from(data.len() + 2).unwrap().to_be_bytes());
    frame.extend([request[6], function]);
    frame.extend(data);
    frame
}

fn driver(address: &str, points: &[(&str, DataType)]) -> Box<dyn Driver> {
    let points = points.iter().map(|(address, data_type)| point(address, *data_type)).collect();
    let text = format!("address = \"{address}\"\ntimeout = \"200ms\"");
    validated(&TCP, &text, &setup(points, Clock::machine())).unwrap()
}

async fn read_error(script: Script, points: &[(&str, DataType)]) -> DriverError {
    let (address, task) = device(script).await;
    let mut driver = driver(&address, points);
    driver.open(None).await.unwrap();
    let error = driver.read(&mut Readings::default()).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Reconnect);
    let after = driver.read(&mut Readings::default()).await.unwrap_err();
    assert!(matches!(after, DriverError::NotConnected(_)), "a failed connection is not used again: {after}");
    driver.close().await;
    driver.open(None).await.unwrap();
    driver.close().await;
    task.abort();
    error
}

#[tokio::test]
async fn hostile_devices_give_errors_in_time() {
    let points = [("hr:0", DataType::Float), ("hr:2", DataType::Float)];
    let scripts: [(Script, &str); 10] = [
        (|_| None, "no answer"),
        (|_| Some(Vec::new()), "not connected"),
        (|_| Some(vec![0xff; 260]), "malformed"), // a length of 65535 that never comes
        (|_| Some(vec![0; 20]), "malformed"),     // a length of 0
        (|_| Some(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), "malformed"),
        (|r| Some(answer(r, 3, &[4, 0, 0, 0, 0])), "malformed"), // two registers instead of four
        (|r| Some(answer(r, 3, &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0])), "malformed"), // an odd number of bytes
        (|r| Some(answer(r, 4, &[8, 0, 0, 0, 0, 0, 0, 0, 0])), "malformed"), // another function
        (|r| Some(answer(r, 0x83, &[])), "malformed"),           // an exception without code
        (
            |r| {
                let mut late = answer(r, 3, &[8, 0, 0, 0, 0, 0, 0, 0, 0]);
                late[1] ^= 1; // another transaction
                Some(late)
            },
            "no answer",
        ),
    ];
    for (nth, (script, expected)) in scripts.into_iter().enumerate() {
        let error = read_error(script, &points).await.to_string();
        assert!(error.starts_with(expected), "script {nth}: {error}");
    }
}

#[tokio::test]
async fn random_answers_never_panic() {
    let (address, task) = device(|request| {
        // Every request is another, because its transaction number is.
        let mut state = u32::from(request[1]) + 1;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        let data: Vec<u8> = (0..next() % 40).map(|_| next()).collect();
        Some(answer(request, next() & 0x97, &data))
    })
    .await;
    let mut driver = driver(&address, &[("hr:0", DataType::Double), ("co:1", DataType::Boolean)]);
    for _ in 0..300 {
        driver.open(None).await.unwrap();
        for _ in 0..3 {
            drop(driver.read(&mut Readings::default()).await);
            drop(driver.write(0, &Value::Double(1.0)).await);
        }
        driver.close().await;
    }
    task.abort();
}

/// Registers 0 to 9 but not 4 and 5, in whatever request; holds no function but 3.
fn with_a_hole(request: &[u8]) -> Option<Vec<u8>> {
    let number = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
    if request[7] != 3 {
        return Some(answer(request, request[7] | 0x80, &[1]));
    }
    let (start, count) = (number(8), number(10));
    if (start..start + count).any(|register| register == 4 || register == 5 || register > 9) {
        return Some(answer(request, 0x83, &[2]));
    }
    let mut data = vec![u8::try_from(count * 2).unwrap()];
    (start..start + count).for_each(|register| data.extend(register.to_be_bytes()));
    Some(answer(request, 3, &data))
}

#[tokio::test]
async fn an_exception_is_for_its_points_alone() {
    let (address, task) = device(with_a_hole).await;
    let addresses: Vec<String> = (0..12).map(|register| format!("hr:{register}")).collect();
    let points: Vec<(&str, DataType)> = addresses.iter().map(|a| (a.as_str(), DataType::UInt16)).collect();
    let mut driver = driver(&address, &points);
    driver.open(None).await.unwrap();
    for _ in 0..3 {
        let mut readings = Readings::default();
        assert_eq!(driver.read(&mut readings).await.unwrap(), NextRead::OnSchedule);
        assert_eq!(readings.list.len(), 12);
        for reading in readings.list {
            if [4, 5, 10, 11].contains(&reading.point) {
                assert_eq!(reading.quality.to_string(), "bad:device-exception:2");
                assert_eq!(reading.value, None);
            } else {
                assert_eq!(reading.quality, Quality::GOOD);
                assert_eq!(reading.value, Some(Value::UInt16(u16::try_from(reading.point).unwrap())));
            }
        }
    }
    let single = driver.read_one(4).await.unwrap();
    assert_eq!(single.quality.to_string(), "bad:device-exception:2");
    let refused = driver.write(0, &Value::UInt16(1)).await.unwrap_err();
    assert_eq!(refused.to_string(), "refused: the device answered exception 1 (illegal function)");
    driver.close().await;
    task.abort();
}

#[tokio::test]
async fn requests_are_merged_again_after_a_while() {
    let (target, task) = device(with_a_hole).await;
    let limits = Limits { registers_max: 125, bits_max: 2000, gap_max: 8 };
    let settings = LineSettings {
        target: Target::Tcp(target),
        framing: Framing::Tcp,
        connections: 1,
        pause: Duration::ZERO,
    };
    let unit = Unit::new(Arc::new(Line::new(settings)), 1, Duration::from_secs(1), Pace::default());
    let dialect = Dialect { addressing: Addressing::ZeroBased, zone: chrono_tz::Tz::UTC, registers_max: 125 };
    let points = [0, 1, 3, 4].map(|at| {
        let address = Address::parse(&format!("hr:{at}"), DataType::UInt16, dialect).unwrap();
        PointPlace { span: address.fixed_span(), group: 0, address }
    });
    let mut modbus = Modbus::new(unit, points.into(), limits);
    modbus.open(None).await.unwrap();
    assert_eq!(modbus.blocks.len(), 1);
    modbus.read(&mut Readings::default()).await.unwrap();
    let (finer, split_at) = (modbus.blocks.clone(), modbus.split_at.unwrap());
    assert!(finer.len() > 1);
    modbus.read(&mut Readings::default()).await.unwrap();
    assert_eq!((&modbus.blocks, modbus.split_at), (&finer, Some(split_at)));
    modbus.split_at = split_at.checked_sub(COARSE_AGAIN);
    let mut readings = Readings::default();
    modbus.read(&mut readings).await.unwrap();
    assert_eq!((&modbus.blocks, readings.list.len()), (&finer, 4));
    assert!(modbus.split_at.unwrap() > split_at, "it was tried again");
    task.abort();
}

#[tokio::test]
async fn a_bit_is_not_written_without_mask_write() {
    let (address, task) = device(with_a_hole).await;
    let mut driver = driver(&address, &[("hr:0.1", DataType::Boolean)]);
    driver.open(None).await.unwrap();
    let refused = driver.write(0, &Value::Boolean(true)).await.unwrap_err();
    assert!(refused.to_string().contains("no mask write"), "{refused}");
    assert!(driver.read(&mut Readings::default()).await.is_ok());
    task.abort();
}

/// A cut line mended after the command's expiry must not deliver it: the connection is reset, not wound up.
#[tokio::test]
async fn an_unanswered_write_dies_with_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut driver = driver(&address, &[("hr:0", DataType::UInt16)]);
    let (opened, accepted) = tokio::join!(driver.open(None), listener.accept());
    opened.unwrap();
    let mut peer = accepted.unwrap().0;
    let error = driver.write(0, &Value::UInt16(7)).await.unwrap_err();
    assert!(matches!(error, DriverError::Silent(_)), "{error}");
    driver.close().await;
    let mut request = [0; 300];
    let ended = loop {
        match peer.read(&mut request).await {
            Ok(0) => break None,
            Ok(_) => {}
            Err(error) => break Some(error.kind()),
        }
    };
    assert_eq!(ended, Some(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn an_exception_that_leaves_doubt_is_no_refusal() {
    let scripts: [(Script, bool); 5] = [
        (|r| Some(answer(r, r[7] | 0x80, &[3])), true),
        (|r| Some(answer(r, r[7] | 0x80, &[6])), true),
        (|r| Some(answer(r, r[7] | 0x80, &[4])), false),
        (|r| Some(answer(r, r[7] | 0x80, &[5])), false),
        (|r| Some(answer(r, r[7] | 0x80, &[11])), false),
    ];
    for (script, certain) in scripts {
        let (address, task) = device(script).await;
        let mut driver = driver(&address, &[("hr:0", DataType::UInt16)]);
        driver.open(None).await.unwrap();
        let error = driver.write(0, &Value::UInt16(7)).await.unwrap_err();
        assert_eq!(matches!(error, DriverError::Refused { .. }), certain, "{error}");
        assert_eq!(matches!(error, DriverError::InDoubt { .. }), !certain, "{error}");
        task.abort();
    }
}

#[tokio::test]
async fn no_listener_is_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut driver = driver(&address, &[("hr:0", DataType::UInt16)]);
    assert!(matches!(driver.open(None).await, Err(DriverError::NotConnected(_))));
    assert!(matches!(driver.read(&mut Readings::default()).await, Err(DriverError::NotConnected(_))));
}

#[test]
fn every_mistake_is_named() {
    let mut inputs =
        setup(vec![point("ir:0", DataType::UInt16), point("40001", DataType::UInt16)], Clock::machine());
    inputs.points[0].definition.writable = true;
    inputs.points[1].line = 3;
    let text =
        "address = \"10.0.0.1:99999\"\nunit = 300\ntimeout = \"5x\"\nmax_registers = 200\nmax_bit = 5\n";
    let problems = validated(&TCP, text, &inputs).err().unwrap();
    let lines: Vec<(usize, &str)> = problems.list.iter().map(|p| (p.line, p.key.as_str())).collect();
    let expected = [
        (1, "address"),
        (2, "unit"),
        (3, "timeout"),
        (4, "max_registers"),
        (2, "address"),
        (3, "address"),
        (5, "max_bit"),
    ];
    assert_eq!(lines, expected);
    assert!(validated(&TCP, "", &setup(Vec::new(), Clock::machine())).is_err());
}

#[tokio::test]
async fn a_round_reads_the_groups_that_are_due() {
    let (address, task) = device(with_a_hole).await;
    let mut points: Vec<PointConfig> =
        (0..4).map(|register| point(&format!("hr:{register}"), DataType::UInt16)).collect();
    (points[1].group, points[3].group) = (1, 2);
    let text = format!("address = \"{address}\"\ntimeout = \"200ms\"");
    let mut driver = validated(&TCP, &text, &setup(points, Clock::machine())).unwrap();
    assert!(driver.manners().groups && driver.manners().paced);
    driver.open(None).await.unwrap();
    for (due, expected) in [
        (Groups::NONE.with(1), vec![1]),
        (Groups::NONE.with(0), vec![0, 2]),
        (Groups::NONE.with(0).with(2), vec![0, 2, 3]),
        (Groups::ALL, vec![0, 1, 2, 3]),
    ] {
        driver.select(due);
        let mut readings = Readings::default();
        assert_eq!(driver.read(&mut readings).await.unwrap(), NextRead::OnSchedule);
        let mut read: Vec<usize> = readings.list.iter().map(|reading| reading.point).collect();
        read.sort_unstable();
        assert_eq!(read, expected);
    }
    task.abort();
}

/// A budget of 20 requests per second: four at once, then one every 50 ms.
#[tokio::test]
async fn requests_keep_to_their_budget() {
    let (address, task) = device(with_a_hole).await;
    let mut setup = setup(vec![point("hr:0", DataType::UInt16)], Clock::machine());
    setup.pace = Pace::new(Some(20.0));
    let text = format!("address = \"{address}\"\ntimeout = \"200ms\"");
    let mut driver = validated(&TCP, &text, &setup).unwrap();
    driver.open(None).await.unwrap();
    let begun = std::time::Instant::now();
    for _ in 0..14 {
        driver.read(&mut Readings::default()).await.unwrap();
    }
    assert!(begun.elapsed() >= Duration::from_millis(490), "{:?}", begun.elapsed());
    let figures = setup.pace.figures();
    assert_eq!((figures.requests, figures.failed), (14, 0));
    assert!(figures.p50.unwrap() < Duration::from_millis(100), "waiting is no latency: {figures:?}");
    task.abort();
}
