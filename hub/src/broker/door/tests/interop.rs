//! Clients of others: paho for Python over TCP, TLS, WebSocket and secure WebSocket; rumqttc.

use std::process::Command;

use super::*;

const SCRIPT: &str = r#"
import ssl, sys
import paho.mqtt.client as mqtt
port, token, transport, ca, version = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])
client = mqtt.Client(client_id="paho", transport=transport, protocol=version)
client.username_pw_set("screen", token)
if ca:
    client.tls_set(ca_certs=ca)
codes = []
def connected(client, userdata, flags, rc, properties=None):
    codes.append(int(rc.value if hasattr(rc, "value") else rc))
    client.disconnect()
client.on_connect = connected
client.connect("localhost" if ca else "127.0.0.1", port, keepalive=30)
client.loop_forever()
print(codes)
"#;

/// Welcomes one arrival and reads until its DISCONNECT.
async fn welcome(mut arrival: Arrival) {
    let mut out = Vec::new();
    encode::connack(&mut out, arrival.connect.version, &encode::ConnAckOut::default());
    arrival.transport.write(&out).unwrap();
    let mut bytes = std::mem::take(&mut arrival.leftover);
    let mut piece = [0; 256];
    let begun = Instant::now();
    loop {
        if let Ok(Some(frame)) = mqtt::frame(&bytes, 1000) {
            let packet = mqtt::decode(frame, arrival.connect.version).unwrap();
            assert!(matches!(packet, Packet::Disconnect(_)), "{packet:?}");
            arrival.transport.close();
            return;
        }
        match arrival.transport.read(&mut piece) {
            Ok(0) => panic!("ended without DISCONNECT"),
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                assert!(begun.elapsed() < PATIENCE);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paho_comes_in_by_every_way() {
    let plant = plant();
    let folder = tempfile::tempdir().unwrap();
    let ca = plant.files(folder.path());
    let venv =
        std::env::var_os("FOREBAY_VENV").map_or_else(|| Path::new("../.venv").to_owned(), PathBuf::from);
    let python = venv.join("bin/python");
    for (protocol, way) in [(Protocol::Mqtt, "tcp"), (Protocol::WebSocket, "websockets")] {
        for secure in [false, true] {
            let tls = if secure { plant.tls() } else { None };
            let open = Setup { protocol, tls, ..Setup::default() }.open();
            for version in ["4", "5"] {
                let mut paho = Command::new(&python);
                let ca = if secure { ca.as_os_str() } else { std::ffi::OsStr::new("") };
                paho.args(["-c", SCRIPT, &open.address.port().to_string(), &open.token, way])
                    .arg(ca)
                    .arg(version);
                let paho = client(move || paho.output().unwrap());
                let serve = async {
                    let arrival = open.arrival();
                    assert_eq!(arrival.login.identity.name(), "screen");
                    welcome(arrival).await;
                };
                let (output, ()) = tokio::join!(paho, serve);
                let said = String::from_utf8_lossy(&output.stdout);
                let complained = String::from_utf8_lossy(&output.stderr);
                assert_eq!(said.trim(), "[0]", "{way} {secure} {version}: {complained}");
            }
        }
    }
}
