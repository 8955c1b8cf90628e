//! The driver against peers that misbehave on a real socket; a well-behaved one is in `tests/s7_snap7.rs`.

use model::DataType;
use runtime::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::driver_conformance as conformance;
use crate::driver_conformance::{nonsense_ends_the_connection, point, validated};
use crate::points::PointConfig;

fn setup(points: Vec<PointConfig>) -> DeviceSetup {
    conformance::setup(points, Clock::machine(), std::env::temp_dir().join("not-written"))
}

/// What a scripted CPU says to the PDU of a read; `None` says nothing.
type Script = fn(&[u8]) -> Option<Vec<u8>>;

/// A CPU that connects as it should and then does as the script says.
async fn cpu(script: Script) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    #[expect(clippy::disallowed_methods, reason = "a test's peer, aborted by its test")]
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut packet = [0; 2000];
            while let Ok(length @ 1..) = stream.read(&mut packet).await {
                let answer = match packet.get(5..18) {
                    Some([0xe0, ..]) => Some(vec![3, 0, 0, 11, 6, 0xd0, 0, 1, 0, 1, 0]),
                    Some([_, _, 0x32, _, _, _, high, low, ..]) if packet[17] == 0xf0 => Some(framed(&[
                        0x32, 3, 0, 0, *high, *low, 0, 8, 0, 0, 0, 0, 0xf0, 0, 0, 1, 0, 1, 0, 240,
                    ])),
                    _ => script(&packet[7..length]),
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

fn framed(pdu: &[u8]) -> Vec<u8> {
    let mut packet = vec![3, 0, 0, u8::try_from(pdu.len() + 7).unwrap(), 2, 0xf0, 0x80];
    packet.extend(pdu);
    packet
}

fn driver(address: &str, points: &[(&str, DataType)]) -> Box<dyn Driver> {
    let points = points.iter().map(|(address, data_type)| point(address, *data_type)).collect();
    let text = format!("address = \"{address}\"\ntimeout = \"200ms\"\nstop_check = \"0s\"");
    validated(&KIND, &text, &setup(points)).unwrap()
}

#[tokio::test]
async fn hostile_cpus_give_errors_in_time() {
    let scripts: [(Script, &str); 7] = [
        (|_| None, "no answer"),
        (|_| Some(Vec::new()), "not connected"),
        (|_| Some(vec![0xff; 300]), "malformed"),
        (|_| Some(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), "malformed"),
        (|_| Some(vec![3, 0, 0xff, 0xff]), "malformed"), // a length of 65535
        // Another reference: late answers are skipped, and then there is none.
        (
            |r| Some(framed(&[0x32, 3, 0, 0, r[4] ^ 1, r[5], 0, 2, 0, 6, 0, 0, 4, 1, 0xff, 4, 0, 16, 1, 2])),
            "no answer",
        ),
        (
            |r| Some(framed(&[0x32, 3, 0, 0, r[4], r[5], 0, 2, 0, 6, 0, 0, 4, 1, 0xff, 4, 0, 8, 1, 2])),
            "malformed",
        ),
    ];
    for (nth, (script, expected)) in scripts.into_iter().enumerate() {
        let (address, task) = cpu(script).await;
        let mut driver = driver(&address, &[("DB1.DBW0", DataType::UInt16)]);
        nonsense_ends_the_connection(driver.as_mut(), nth, expected).await;
        task.abort();
    }
}

#[tokio::test]
async fn a_refused_request_is_a_quality_and_a_hint() {
    let (address, task) = cpu(|r| Some(framed(&[0x32, 3, 0, 0, r[4], r[5], 0, 0, 0, 0, 0x81, 4]))).await;
    let mut driver = driver(&address, &[("DB1.DBW0", DataType::UInt16), ("MW0", DataType::UInt16)]);
    driver.open(None).await.unwrap();
    for _ in 0..2 {
        let mut readings = Readings::default();
        driver.read(&mut readings).await.unwrap();
        assert_eq!(readings.list.len(), 2);
        assert!(readings.list.iter().all(|reading| reading.quality == Quality::bad(Reason::AccessDenied)));
    }
    let refused = driver.write(0, &Value::UInt16(1)).await.unwrap_err();
    assert!(refused.to_string().contains("PUT/GET"), "{refused}");
    task.abort();
}

#[tokio::test]
async fn random_answers_never_panic() {
    let (address, task) = cpu(|request| {
        let mut state = u32::from(request[5]) + 1;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        let mut pdu = vec![0x32, 3, 0, 0, request[4], request[5]];
        pdu.extend((0..next() % 60).map(|_| next() & 0x0f));
        Some(framed(&pdu))
    })
    .await;
    let mut driver = driver(&address, &[("DB1.STRING0[9]", DataType::String), ("T1", DataType::UInt32)]);
    for _ in 0..200 {
        driver.open(None).await.unwrap();
        for _ in 0..3 {
            drop(driver.read(&mut Readings::default()).await);
            drop(driver.write(0, &Value::String("x".into())).await);
        }
        driver.close().await;
    }
    task.abort();
}

#[test]
fn every_mistake_is_named() {
    let mut points = vec![
        point("DB1.DBW0", DataType::UInt16),
        point("I0.0", DataType::Boolean),
        point("hr:5", DataType::UInt16),
    ];
    points[1].definition.writable = true;
    let text = "address = \"plc:x\"\nrack = 9\nslot = 40\nremote_tsap = \"2.1\"\nzone = \"Mars\"\nstop = 1\n";
    let problems = validated(&KIND, text, &setup(points)).err().unwrap();
    let keys: Vec<&str> = problems.list.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["address", "rack", "slot", "remote_tsap", "zone", "address", "address", "stop"]);
}
