//! The driver against peers that misbehave on a real socket; a well-behaved one is in `tests/ethernet_ip_cpppo.rs`.

use runtime::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::driver_conformance as conformance;
use crate::driver_conformance::{nonsense_ends_the_connection, point, validated};
use crate::points::PointConfig;
use frame::{Carried, Frame};

fn setup(points: Vec<PointConfig>) -> DeviceSetup {
    conformance::setup(points, Clock::machine(), std::env::temp_dir().join("not-written"))
}

/// What a scripted controller says to a frame with a request; nothing, or nothing but the end of the connection if it is empty.
type Script = fn(Frame<'_>, &[u8]) -> Option<Vec<u8>>;

/// A controller that grants sessions and connections as it should and then does as the script says.
async fn controller(script: Script) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    #[expect(clippy::disallowed_methods, reason = "a test's peer, aborted by its test")]
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = [0; 5000];
            while let Ok(length @ 24..) = stream.read(&mut bytes).await {
                let request = frame::parse(&bytes[..length]).unwrap();
                let answer = match frame::carried(request.data) {
                    Err(_) => Some(Frame { session: 7, ..request }.bytes()),
                    Ok(Carried::Unconnected(message)) if message[0] == frame::OPEN_LARGE => {
                        let mut granted = vec![frame::OPEN_LARGE | 0x80, 0, 0, 0, 1, 2, 3, 4];
                        granted.extend([0; 22]);
                        Some(Frame { data: &frame::unconnected(&granted), ..request }.bytes())
                    }
                    Ok(Carried::Unconnected(message)) if message[0] == frame::CLOSE => break,
                    Ok(Carried::Unconnected(message) | Carried::Connected(_, _, message)) => {
                        script(request, message)
                    }
                };
                match answer {
                    Some(answer) if answer.is_empty() => break,
                    Some(answer) if stream.write_all(&answer).await.is_err() => break,
                    _ => {}
                }
            }
        }
    });
    (address, task)
}

/// The frame of an answer without connection to a request without one.
fn answered(request: Frame<'_>, message: &[u8]) -> Option<Vec<u8>> {
    Some(Frame { data: &frame::unconnected(message), ..request }.bytes())
}

fn driver(address: &str, keys: &str, points: &[(&str, DataType)]) -> Box<dyn Driver> {
    let points = points.iter().map(|(address, data_type)| point(address, *data_type)).collect();
    let text = format!("address = \"{address}\"\ntimeout = \"200ms\"\nstop_check = \"0s\"\n{keys}");
    validated(&KIND, &text, &setup(points)).unwrap()
}

const WITHOUT: &str = "connected = false\nroute = \"none\"";

#[tokio::test]
async fn hostile_controllers_give_errors_in_time() {
    let scripts: [(Script, &str); 13] = [
        (|_, _| None, "no answer"),
        (|_, _| Some(Vec::new()), "not connected"),
        (|_, _| Some(vec![0xff; 300]), "malformed"),
        (|_, _| Some(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), "malformed"),
        (|_, _| Some(vec![0x6f, 0, 0xff, 0xff]), "malformed"), // a length of 65535
        (|frame, _| Some(Frame { status: 0x64, ..frame }.bytes()), "not connected"),
        (|frame, _| Some(Frame { data: &[], ..frame }.bytes()), "malformed"),
        // The context of another request: late answers are skipped, and then there is none.
        (|frame, _| answered(Frame { context: frame.context ^ 1, ..frame }, &[0x8a, 0, 8, 0]), "no answer"),
        (|frame, _| Some(Frame { context: 0, ..frame }.bytes().repeat(17)), "malformed"),
        (|frame, _| answered(frame, &[0x8a, 0, 0]), "malformed"),
        (|frame, _| answered(frame, &[0xcc, 0, 0, 0]), "malformed"), // the answer to another service
        (|frame, _| answered(frame, &[0x8a, 0, 0, 0, 1, 0, 0xff, 0xff]), "malformed"), // an offset that leads out
        (
            |frame, _| answered(frame, &[0x8a, 0, 0, 0, 1, 0, 4, 0, 0xcc, 0, 0, 0, 0xc3, 0, 1, 2, 3]),
            "malformed",
        ),
    ];
    for (nth, (script, expected)) in scripts.into_iter().enumerate() {
        let (address, task) = controller(script).await;
        let mut driver = driver(&address, WITHOUT, &[("Word", DataType::Int16)]);
        nonsense_ends_the_connection(driver.as_mut(), nth, expected).await;
        task.abort();
    }
}

/// A connection's answers carry its name and the number of the request; others are not ours.
#[tokio::test]
async fn answers_of_other_connections_are_skipped() {
    let (address, task) = controller(|request, message| {
        let Ok(Carried::Connected(_, number, _)) = frame::carried(request.data) else { return None };
        assert_eq!(message[0], cip::SEVERAL);
        let data = frame::connected(0xdead_beef, number, &[0x8a, 0, 8, 0]);
        Some(Frame { data: &data, ..request }.bytes())
    })
    .await;
    let mut driver = driver(&address, "", &[("Word", DataType::Int16)]);
    driver.open(None).await.unwrap();
    let error = driver.read(&mut Readings::default()).await.unwrap_err();
    assert!(matches!(error, DriverError::Silent(_)), "{error}");
    task.abort();
}

/// Parts that never end, and a controller that knows no Multiple Service Packet.
#[tokio::test]
async fn parts_end_and_have_a_bound() {
    let scripts: [(Script, &str); 3] = [
        (
            |frame, message| match message[0] {
                cip::SEVERAL => answered(frame, &[0x8a, 0, 8, 0]),
                service => answered(frame, &[&[service | 0x80, 0, 6, 0, 0xc3, 0][..], &[0; 400]].concat()),
            },
            "parts that do not belong together",
        ),
        (
            |frame, message| match message[0] {
                cip::SEVERAL => answered(frame, &[0x8a, 0, 8, 0]),
                service => answered(frame, &[service | 0x80, 0, 6, 0, 0xc3, 0, 1]),
            },
            "parts without end",
        ),
        (
            |frame, message| match message[0] {
                cip::SEVERAL => answered(frame, &[0x8a, 0, 8, 0]),
                service => answered(frame, &[service | 0x80, 0, 6, 0, 0xc3, 0]),
            },
            "a part without data",
        ),
    ];
    for (script, expected) in scripts {
        let (address, task) = controller(script).await;
        let mut driver = driver(&address, WITHOUT, &[("Word", DataType::Int16)]);
        driver.open(None).await.unwrap();
        let error = driver.read(&mut Readings::default()).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        task.abort();
    }
}

/// Nobody behind the route: no quality of a single tag, and a write is in doubt.
#[tokio::test]
async fn a_route_that_leads_nowhere_is_no_connection() {
    let (address, task) = controller(|frame, message| {
        assert_eq!((message[0], message[10]), (super::frame::BY_ROUTE, cip::SEVERAL));
        answered(frame, &[super::frame::BY_ROUTE | 0x80, 0, 1, 1, 0x12, 3])
    })
    .await;
    let mut driver = driver(&address, "connected = false\nslot = 9", &[("Word", DataType::Int16)]);
    driver.open(None).await.unwrap();
    let error = driver.read(&mut Readings::default()).await.unwrap_err();
    assert!(
        matches!(&error, DriverError::NotConnected(why) if why.contains("is the slot right?")),
        "{error}"
    );
    driver.open(None).await.unwrap();
    let error = driver.write(0, &Value::Int16(1)).await.unwrap_err();
    assert!(matches!(&error, DriverError::NotConnected(_)), "{error}");
    task.abort();
}

#[tokio::test]
async fn random_answers_never_panic() {
    let (address, task) = controller(|request, message| {
        let mut state = u32::from(request.bytes()[12]) + 1;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        let mut answer = vec![message[0] | 0x80, 0, if next() & 1 == 0 { 0 } else { next() & 0x1f }, 0];
        answer.extend((0..next() % 60).map(|_| next() & 0x0f));
        answered(request, &answer)
    })
    .await;
    let points = [("Name", DataType::String), ("Flags[40]", DataType::Boolean), ("Word", DataType::Int16)];
    let mut driver = driver(&address, WITHOUT, &points);
    for _ in 0..200 {
        drop(driver.open(None).await);
        for _ in 0..3 {
            drop(driver.read(&mut Readings::default()).await);
            drop(driver.write(2, &Value::Int16(1)).await);
        }
        driver.close().await;
    }
    task.abort();
}

#[test]
fn every_mistake_is_named() {
    let points = vec![
        point("Rate", DataType::Float),
        point("40001", DataType::UInt16),
        point("Rate[", DataType::Float),
        point("Rate.3", DataType::Float),
    ];
    let text = "address = \"plc:x\"\nslot = 300\nroute = \"1\"\nsize = 9000\nconnected = 1\nrack = 0\n";
    let problems = validated(&KIND, text, &setup(points)).err().unwrap();
    let keys: Vec<&str> = problems.list.iter().map(|problem| problem.key.as_str()).collect();
    let expected =
        ["address", "slot", "slot", "size", "route", "connected", "address", "address", "address", "rack"];
    assert_eq!(keys, expected);
}
