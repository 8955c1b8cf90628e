//! rumqttc: its clients of both versions have the same methods and different types, so one macro writes both checks.

use std::time::Duration;

use rumqttc::Transport as Carrier;

use super::{Case, PASSWORD, Site, Transport, USER};

const PATIENCE: Duration = Duration::from_secs(20);

/// Host and transport as rumqttc wants them: WebSocket's is a URL.
fn way(site: &Site, case: &Case) -> (String, Carrier) {
    let read = |path| std::fs::read(path).unwrap();
    let client = case.certificate.then(|| {
        let pem = read(site.certificate());
        (pem.clone(), pem)
    });
    let url = |scheme: &str| format!("{scheme}://localhost:{}/mqtt", site.port(case.transport));
    match case.transport {
        Transport::Tcp => ("localhost".into(), Carrier::tcp()),
        Transport::Tls => ("localhost".into(), Carrier::tls(read(site.ca()), client, None)),
        Transport::WebSocket => (url("ws"), Carrier::ws()),
        Transport::SecureWebSocket => (url("wss"), Carrier::wss(read(site.ca()), client, None)),
    }
}

macro_rules! client {
    ($module:ident, $($packets:ident)::+, $text:expr, $will:expr) => {
        /// The check with the client of this version.
        pub(super) mod $module {
            use std::time::{Duration, Instant};

            use $($packets)::+::{Client, Connection, Event, MqttOptions};

            use super::packets::$module::{LastWill, Packet, Publish, QoS};
            use super::{Case, PASSWORD, PATIENCE, Site, USER, way};

            struct Peer {
                client: Client,
                connection: Connection,
                heard: std::collections::VecDeque<Publish>,
            }

            fn options(site: &Site, case: &Case, name: &str) -> MqttOptions {
                let (host, carrier) = way(site, case);
                let id = format!("{}-{name}", case.topic.replace('/', "-"));
                let mut options = MqttOptions::new(id, host, site.port(case.transport));
                options.set_transport(carrier).set_keep_alive(Duration::from_secs(30));
                if !case.certificate {
                    options.set_credentials(USER, PASSWORD);
                }
                options
            }

            impl Peer {
                fn open(mut options: MqttOptions) -> Peer {
                    limit(&mut options);
                    let (client, connection) = Client::new(options, 16);
                    let mut peer = Peer { client, connection, heard: Default::default() };
                    peer.until("CONNACK", |packet| matches!(packet, Packet::ConnAck(_)));
                    peer
                }

                /// Works until a packet comes; messages on the way are kept.
                fn until(&mut self, what: &str, is_it: impl Fn(&Packet) -> bool) {
                    let deadline = Instant::now() + PATIENCE;
                    loop {
                        assert!(Instant::now() < deadline, "waited in vain for {what}");
                        let Ok(event) = self.connection.recv_timeout(Duration::from_secs(1)) else { continue };
                        let Event::Incoming(packet) = event.unwrap_or_else(|error| panic!("{what}: {error}"))
                        else {
                            continue;
                        };
                        let found = is_it(&packet);
                        if let Packet::Publish(message) = packet {
                            self.heard.push_back(message);
                        }
                        if found {
                            return;
                        }
                    }
                }

                fn subscribe(&mut self, filter: String, qos: QoS) {
                    self.client.subscribe(filter, qos).unwrap();
                    self.until("SUBACK", |packet| matches!(packet, Packet::SubAck(_)));
                }

                fn publish(&mut self, topic: String, qos: QoS, retain: bool, payload: &[u8]) {
                    self.client.publish(topic, qos, retain, payload.to_vec()).unwrap();
                    match qos {
                        // It is on its way when what comes after it is answered.
                        QoS::AtMostOnce => self.subscribe("interop/nothing".into(), QoS::AtMostOnce),
                        QoS::AtLeastOnce => self.until("PUBACK", |packet| matches!(packet, Packet::PubAck(_))),
                        QoS::ExactlyOnce => self.until("PUBCOMP", |packet| matches!(packet, Packet::PubComp(_))),
                    }
                }

                fn hear(&mut self, topic: &str, qos: QoS, retain: bool, payload: &[u8]) {
                    if self.heard.is_empty() {
                        self.until(topic, |packet| matches!(packet, Packet::Publish(_)));
                    }
                    let message = self.heard.pop_front().unwrap();
                    let text: fn(&Publish) -> String = $text;
                    let got = (text(&message), message.qos, message.retain);
                    assert_eq!(got, (topic.to_owned(), qos, retain));
                    assert!(message.payload == payload, "{topic}: another payload");
                }
            }

            /// Both defaults are 10 KiB, less than the large message.
            fn limit(options: &mut MqttOptions) {
                super::packets::$module::limit(options);
            }

            pub(in super::super) fn check(site: &Site, case: &Case) {
                let topic = |name: &str| format!("{}/{name}", case.topic);
                let will: fn(String) -> LastWill = $will;
                let mut with_will = options(site, case, "willing");
                with_will.set_last_will(will(topic("will")));
                let mut willing = Peer::open(with_will);
                let mut reader = Peer::open(options(site, case, "reader"));
                reader.subscribe(topic("#"), QoS::ExactlyOnce);
                let odd: Vec<u8> = (0..=255).collect();
                let large = "0123456789".repeat(30_000).into_bytes();
                for (name, qos, retain, payload) in [
                    ("Ölpumpe/q0", QoS::AtMostOnce, false, odd.as_slice()),
                    ("q1", QoS::AtLeastOnce, false, b"one"),
                    ("q2", QoS::ExactlyOnce, false, b"two"),
                    ("large", QoS::AtLeastOnce, false, &large),
                    ("kept", QoS::AtLeastOnce, true, b"kept"),
                ] {
                    willing.publish(topic(name), qos, retain, payload);
                    reader.hear(&topic(name), qos, false, payload);
                }
                let mut late = Peer::open(options(site, case, "late"));
                late.subscribe(topic("kept"), QoS::AtLeastOnce);
                late.hear(&topic("kept"), QoS::AtLeastOnce, true, b"kept");
                drop(willing); // its socket, without DISCONNECT
                reader.hear(&topic("will"), QoS::AtLeastOnce, false, b"gone");
                late.subscribe(topic("will"), QoS::AtLeastOnce);
                late.hear(&topic("will"), QoS::AtLeastOnce, true, b"gone");
                for name in ["kept", "will"] {
                    late.publish(topic(name), QoS::AtLeastOnce, true, b"");
                }
                late.client.disconnect().unwrap();
                reader.client.disconnect().unwrap();
            }
        }
    };
}

/// Where the types of each version are.
mod packets {
    pub(super) mod v3 {
        pub(in super::super) use rumqttc::{LastWill, Packet, Publish, QoS};

        pub(in super::super) fn limit(options: &mut rumqttc::MqttOptions) {
            options.set_max_packet_size(1 << 20, 1 << 20);
        }
    }

    pub(super) mod v5 {
        pub(in super::super) use rumqttc::v5::mqttbytes::QoS;
        pub(in super::super) use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, Publish};

        pub(in super::super) fn limit(options: &mut rumqttc::v5::MqttOptions) {
            options.set_max_packet_size(Some(1 << 20));
        }
    }
}

client!(v3, rumqttc, |message| message.topic.clone(), |topic| {
    LastWill::new(topic, "gone", QoS::AtLeastOnce, true)
});
client!(v5, rumqttc::v5, |message| String::from_utf8(message.topic.to_vec()).unwrap(), |topic| {
    LastWill::new(topic, "gone", QoS::AtLeastOnce, true, None)
});
