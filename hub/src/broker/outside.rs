//! Any MQTT 3.1.1 broker outside, with the hub as a client of it: one session after another, with backoff.
//!
//! Per session: will = STATE offline; subscribe; STATE online with the will's timestamp; then messages, awaited into
//! the inbox, so that a slow host stops reading from the socket. Commands and receipts are not subscribed to: only the
//! hub writes them (the broker's access list must refuse everybody else, see the docs).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use model::limits::MQTT_PACKET_BYTES_MAX;
use proto::sparkplug::StatePayload;
use runtime::backoff::Backoff;
use runtime::mqtt_client::{self, Message, MqttError, MqttOptions, MqttReceiver, MqttSender, TlsOptions};
use runtime::tasks::{CancellationToken, TaskKind};
use runtime::telemetry::Counter;

use crate::config::OutsideBroker;

use super::{Broker, BrokerError, BrokerEvent, Incoming, Insight, Interest, QoS, View, Wiring};

/// First and longest pause between attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// A session that held so long starts the pauses from the beginning.
const SETTLED: Duration = Duration::from_secs(60);

/// A silent connection is noticed after one and a half times this.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Starts connecting; it returns at once, and the first connection is told as an event.
pub(super) async fn start(config: OutsideBroker, wiring: Wiring) -> Result<Arc<dyn Broker>, BrokerError> {
    let password = config.password_file.as_deref().map(super::read_password).transpose()?;
    let client = config.cert_file.zip(config.key_file);
    let options = MqttOptions {
        host: config.host,
        port: config.port,
        tls: config.tls.then_some(TlsOptions { ca_file: config.ca_file, client }),
        client_id: config.client_id,
        login: config.user.map(|user| (user, password.unwrap_or_default())),
        keep_alive: KEEP_ALIVE,
        will: None,
        packet_bytes_max: MQTT_PACKET_BYTES_MAX,
    };
    let this = Arc::new(Outside::default());
    let session = Sessions {
        options,
        state_topic: wiring.host.state_topic(),
        received: wiring.metrics.counter(
            "forebay_mqtt_received_total",
            "Sparkplug messages received from the broker.",
            &[],
        ),
        broker: Arc::clone(&this),
        shutdown: wiring.tasks.shutdown(),
        wiring,
    };
    let tasks = session.wiring.tasks.clone();
    tasks.spawn(TaskKind::Transport, "mqtt session of the hub", session.run());
    Ok(this)
}

#[derive(Default)]
struct Outside {
    /// Of the present session.
    sender: RwLock<Option<MqttSender>>,
    session: AtomicU64,
}

impl Outside {
    fn set(&self, sender: Option<MqttSender>) {
        *self.sender.write().unwrap_or_else(PoisonError::into_inner) = sender;
    }
}

#[async_trait]
impl Broker for Outside {
    async fn publish(
        &self,
        topic: String,
        payload: Vec<u8>,
        qos: QoS,
        retain: bool,
    ) -> Result<(), BrokerError> {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner).clone();
        let sender = sender.ok_or(BrokerError::NotConnected)?;
        sender
            .publish(topic, qos, retain, payload)
            .await
            .map_err(|error| BrokerError::Lost(error.to_string()))
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        None
    }

    fn clients(&self) -> usize {
        0
    }

    fn session(&self) -> u64 {
        self.session.load(Ordering::SeqCst)
    }

    fn interest(&self) -> Option<Arc<Interest>> {
        None
    }

    /// Nothing to hook into: the view publishes retained messages for everybody.
    fn serve(&self, _filter: String, _view: Arc<dyn View>) {}

    fn insight(&self) -> Option<Insight> {
        None
    }
}

struct Sessions {
    options: MqttOptions,
    state_topic: String,
    received: Counter,
    broker: Arc<Outside>,
    shutdown: CancellationToken,
    wiring: Wiring,
}

impl Sessions {
    async fn run(mut self) -> Result<(), std::convert::Infallible> {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        while !self.shutdown.is_cancelled() {
            let began = self.wiring.clock.now();
            let ended = self.session().await;
            self.broker.set(None);
            let Err(error) = ended else { break };
            tracing::warn!(broker = %self.options.host, port = self.options.port, %error, "no MQTT session");
            self.tell(BrokerEvent::Disconnected(error.to_string())).await;
            if u128::try_from(self.wiring.clock.now().micros_since(began)).unwrap_or(0) > SETTLED.as_micros()
            {
                backoff.reset();
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.wait()) => {}
                () = self.shutdown.cancelled() => {}
            }
        }
        Ok(())
    }

    /// One session, from CONNECT to its end; `Ok` only at shutdown.
    async fn session(&mut self) -> Result<(), MqttError> {
        let timestamp = u64::try_from(self.wiring.clock.now().millis()).unwrap_or(0);
        let online = StatePayload { online: true, timestamp };
        let offline = StatePayload { online: false, timestamp };
        self.options.will = Some((self.state_topic.clone(), offline.encode().into_bytes(), true));
        let (sender, mut receiver) = tokio::select! {
            connected = mqtt_client::connect(&self.options) => connected?,
            () = self.shutdown.cancelled() => return Ok(()),
        };
        self.join(&sender, &mut receiver, online).await?;
        self.broker.set(Some(sender.clone()));
        self.broker.session.fetch_add(1, Ordering::SeqCst);
        tracing::info!(broker = %self.options.host, port = self.options.port, "MQTT session of the hub established");
        self.tell(BrokerEvent::Connected).await;
        let shutdown = self.shutdown.clone();
        tokio::select! {
            ended = self.receive(&sender, &mut receiver, online) => ended,
            () = shutdown.cancelled() => {
                self.say(&sender, offline).await.ok();
                sender.disconnect().await.ok();
                Ok(())
            }
        }
    }

    /// What edge nodes say, and our own STATE.
    fn filters(&self) -> Vec<(String, QoS)> {
        let of_node = ["NBIRTH", "NDATA", "NDEATH"].map(|kind| format!("spBv1.0/+/{kind}/+"));
        let of_device = ["DBIRTH", "DDATA", "DDEATH"].map(|kind| format!("spBv1.0/+/{kind}/+/+"));
        let all = of_node.into_iter().chain(of_device).chain([self.state_topic.clone()]);
        all.map(|filter| (filter, QoS::AtLeastOnce)).collect()
    }

    /// Subscribes and says online. Messages may come before the answer, more than the session has room for.
    async fn join(
        &self,
        sender: &MqttSender,
        receiver: &mut MqttReceiver,
        online: StatePayload,
    ) -> Result<(), MqttError> {
        let joining = async {
            sender.subscribe(&self.filters()).await?;
            self.say(sender, online).await
        };
        tokio::pin!(joining);
        loop {
            tokio::select! {
                joined = &mut joining => return joined,
                message = receiver.next() => self.take(message?).await,
                () = self.shutdown.cancelled() => return Ok(()),
            }
        }
    }

    async fn receive(
        &self,
        sender: &MqttSender,
        receiver: &mut MqttReceiver,
        online: StatePayload,
    ) -> Result<(), MqttError> {
        loop {
            let message = receiver.next().await?;
            // An earlier session's will may come late: Sparkplug 3.0 has the host say again that it is online.
            if message.topic == self.state_topic
                && !message.retain
                && StatePayload::decode(&message.payload).is_none_or(|state| !state.online)
            {
                self.say(sender, online).await?;
            }
            self.take(message).await;
        }
    }

    async fn take(&self, Message { topic, payload, retain }: Message) {
        if topic == self.state_topic {
            return;
        }
        self.received.increment();
        if self.wiring.inbox.push(Incoming { topic: topic.into(), payload, retain }).await.is_err() {
            self.shutdown.cancelled().await; // the host is gone: the process is ending
        }
    }

    async fn say(&self, sender: &MqttSender, state: StatePayload) -> Result<(), MqttError> {
        sender.publish(self.state_topic.clone(), QoS::AtLeastOnce, true, state.encode().into_bytes()).await
    }

    async fn tell(&self, event: BrokerEvent) {
        tokio::select! {
            sent = self.wiring.events.send(event) => { sent.ok(); }
            () = self.shutdown.cancelled() => {}
        }
    }
}
