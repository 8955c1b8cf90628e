//! A broker inside this process: the `mqtt5` crate behind the seam. The only file that names its types.
//!
//! Provisional (issue 2): loopback listeners only, sessions and retained messages in memory, QoS 0 lanes that drop for
//! a subscriber that does not read. What the hub relies on:
//! - A client's PUBLISH is awaited into the inbox before the broker acknowledges or routes it (publish hook), so a full
//!   inbox stops reading from that client's socket.
//! - The hook does not see wills. So NDEATH, sent or willed, comes through a subscription of the hub's own, and the
//!   hook leaves it alone.
//! - The subscribe hook runs before retained messages are looked up, so a view can render them just in time.
//! - It adds the user properties `x-mqtt-client-id` and `x-mqtt-sender` to every MQTT 5 publish.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use model::limits::MQTT_PACKET_BYTES_MAX;
use mqtt5::broker::config::BrokerConfig as Mqtt5Config;
use mqtt5::broker::router::{DeliveryLanes, LaneReceivers, MessageRouter, SubscriptionRequest};
use mqtt5::broker::{
    AuthProvider, AuthResult, BrokerEventHandler, ClientConnectEvent, ClientDisconnectEvent,
    ClientPublishEvent, ClientUnsubscribeEvent, MqttBroker, PublishAction, StorageConfig,
};
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::packet::publish::PublishPacket;
use mqtt5::types::ReasonCode;
use proto::sparkplug::StatePayload;
use runtime::tasks::{CancellationToken, TaskKind};
use runtime::telemetry::{Counter, Gauge, Metrics};
use tokio::sync::{mpsc, oneshot};

use crate::config::EmbeddedBroker;

use super::access::{AccessBook, Credentials, Rights};
use super::interest::Interest;
use super::topic_filter::{matches, overlap};
use super::{Broker, BrokerError, BrokerEvent, Incoming, QoS, View, Wiring};

/// Connections at a time: ten times a large plant's agents and screens.
const CLIENTS_MAX: usize = 1_000;

/// Filters per client.
const SUBSCRIPTIONS_MAX: usize = 1_000;

/// Retained topics: one per point of the largest hub, several times over.
const RETAINED_MAX: usize = 1_000_000;

/// Messages waiting for one client, per lane. A client that subscribes to a whole tree gets its retained messages
/// through this, all at once, so it holds the tree of the largest hub; one that never reads costs as much (some 40 MB)
/// until it is thrown out for its silence.
const LANE_MESSAGES_MAX: usize = 100_000;

/// Wills waiting for the host: more than there can be clients.
const DEATHS_MAX: usize = 4 * CLIENTS_MAX;

/// A wrong login waits so long for its answer.
const WRONG_LOGIN_DELAY: Duration = Duration::from_millis(500);

/// An accepted login holds its client id so long until the broker says that it is connected (within 10 s).
const CLAIM: Duration = Duration::from_secs(15);

/// Time for STATE offline to reach the agents before the connections close.
const FAREWELL: Duration = Duration::from_millis(200);

/// The hub's own client id at its broker; nobody else may use it.
const OWN_CLIENT: &str = "$forebay-hub";

/// Opens the listener and starts serving.
pub(super) async fn start(own: &EmbeddedBroker, wiring: Wiring) -> Result<Arc<dyn Broker>, BrokerError> {
    let listen = own.listen;
    if !listen.ip().is_loopback() {
        let why = "only loopback is served without TLS; use a broker with TLS, named by url".to_owned();
        return Err(BrokerError::Listen { listen, why });
    }
    // The crate's own message hides the machine's reason in advice of its own.
    std::net::TcpListener::bind(listen).map_err(|error| {
        let why = format!("{error}; choose another [hub.broker] listen, or stop what uses it");
        BrokerError::Listen { listen, why }
    })?;
    let guard = Arc::new(Guard::new(own, &wiring)?);
    let options = Mqtt5Config {
        max_clients: CLIENTS_MAX,
        max_packet_size: MQTT_PACKET_BYTES_MAX,
        max_subscriptions_per_client: SUBSCRIPTIONS_MAX,
        max_retained_messages: RETAINED_MAX,
        client_channel_capacity: LANE_MESSAGES_MAX,
        sys_topics_enabled: false,
        storage_config: StorageConfig::new().with_persistence(false),
        event_handler: Some(Arc::clone(&guard) as Arc<dyn BrokerEventHandler>),
        ..Mqtt5Config::default().with_bind_address(listen)
    };
    let broker = MqttBroker::with_config(options)
        .await
        .map_err(|error| BrokerError::Listen { listen, why: error.to_string() })?;
    let mut broker = broker.with_auth_provider(Arc::clone(&guard) as Arc<dyn AuthProvider>);
    let this = Arc::new(Embedded { router: broker.router(), address: broker.local_addr(), guard });
    let deaths = this.subscribe_to_deaths().await;

    let Wiring { host, inbox, events, clock, tasks, .. } = wiring;
    let state = StatePayload { online: true, timestamp: millis(clock.now()) };
    let state_topic = host.state_topic();
    this.publish(state_topic.clone(), state.encode().into_bytes(), QoS::AtLeastOnce, true).await?;

    let shutdown = tasks.shutdown();
    tasks.spawn(TaskKind::Server, "mqtt broker wills", forward(deaths, inbox, shutdown.clone()));
    let stop = broker.shutdown_handle();
    tasks.spawn(TaskKind::Server, "mqtt broker", async move { broker.run().await });
    let last = Arc::clone(&this);
    tasks.spawn(TaskKind::Server, "mqtt broker farewell", async move {
        shutdown.cancelled().await;
        let state = StatePayload { online: false, ..state };
        let said = last.publish(state_topic, state.encode().into_bytes(), QoS::AtLeastOnce, true).await;
        tokio::time::sleep(FAREWELL).await;
        stop.shutdown();
        said
    });
    events.send(BrokerEvent::Connected).await.ok();
    Ok(this)
}

struct Embedded {
    router: Arc<MessageRouter>,
    address: Option<SocketAddr>,
    guard: Arc<Guard>,
}

impl Embedded {
    /// The way for NDEATHs: a client of the router, without a socket.
    async fn subscribe_to_deaths(&self) -> Deaths {
        let (lanes, receivers) = DeliveryLanes::channel(DEATHS_MAX);
        let (kept, disconnect) = oneshot::channel();
        let queue = self.router.queue_handle(OWN_CLIENT);
        self.router.register_client(OWN_CLIENT.to_owned(), lanes, queue, kept).await;
        let request = SubscriptionRequest::new(OWN_CLIENT, "spBv1.0/+/NDEATH/+", mqtt5::QoS::AtLeastOnce);
        if let Err(error) = self.router.subscribe(request).await {
            tracing::error!(%error, "the embedded broker refused the hub's own subscription");
        }
        Deaths { receivers, _registered: Box::new(disconnect) }
    }
}

/// Receivers of the hub's own subscription; dropping the registration would end it.
struct Deaths {
    receivers: LaneReceivers,
    _registered: Box<dyn std::any::Any + Send>,
}

async fn forward(
    mut deaths: Deaths,
    inbox: mpsc::Sender<Incoming>,
    shutdown: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    loop {
        let publish = tokio::select! {
            message = deaths.receivers.recv() => match message {
                Some(message) => message.publish,
                None => return Ok(()),
            },
            () = shutdown.cancelled() => return Ok(()),
        };
        let message =
            Incoming { topic: publish.topic_name, payload: publish.payload, retain: publish.retain };
        tokio::select! {
            sent = inbox.send(message) => if sent.is_err() { return Ok(()) },
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

#[async_trait]
impl Broker for Embedded {
    async fn publish(
        &self,
        topic: String,
        payload: Vec<u8>,
        qos: QoS,
        retain: bool,
    ) -> Result<(), BrokerError> {
        let qos = match qos {
            QoS::AtMostOnce => mqtt5::QoS::AtMostOnce,
            QoS::AtLeastOnce => mqtt5::QoS::AtLeastOnce,
        };
        let mut publish = PublishPacket::new(topic, payload, qos);
        publish.retain = retain;
        self.router.route_message(&publish, None).await;
        Ok(())
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.address
    }

    fn clients(&self) -> usize {
        self.guard.interest.clients()
    }

    fn session(&self) -> u64 {
        1
    }

    fn interest(&self) -> Option<Arc<Interest>> {
        Some(Arc::clone(&self.guard.interest))
    }

    fn serve(&self, filter: String, view: Arc<dyn View>) {
        self.guard.views.write().unwrap_or_else(PoisonError::into_inner).push((filter, view));
    }
}

/// Rights by user, of a generation of the access file.
type RightsOfUsers = HashMap<Option<String>, (u64, Arc<Rights>)>;

/// Stands between every client and the router: login, access, inbox.
struct Guard {
    access: AccessBook,
    anonymous_read: bool,
    rights: Mutex<RightsOfUsers>,
    interest: Arc<Interest>,
    views: RwLock<Vec<(String, Arc<dyn View>)>>,
    in_use: Mutex<HashMap<String, InUse>>,
    inbox: mpsc::Sender<Incoming>,
    shutdown: CancellationToken,
    count: Counts,
}

/// Who uses a client id.
struct InUse {
    user: Option<String>,
    /// A take-over has two for a moment.
    connections: usize,
    /// When a login was accepted that the broker does not call connected yet.
    claimed: Option<Instant>,
}

impl InUse {
    fn is_held(&self) -> bool {
        self.connections > 0 || self.claimed.is_some_and(|since| since.elapsed() < CLAIM)
    }
}

struct Counts {
    received: Counter,
    clients: Gauge,
    logins_refused: Counter,
    publishes_refused: Counter,
    subscriptions_refused: Counter,
}

impl Counts {
    fn new(metrics: &Metrics) -> Self {
        const REFUSED: &str = "What the embedded broker's access rules refused.";
        let refused = |what| metrics.counter("forebay_mqtt_refused_total", REFUSED, &[("what", what)]);
        Counts {
            received: metrics.counter(
                "forebay_mqtt_received_total",
                "Sparkplug messages that clients published to the embedded broker.",
                &[],
            ),
            clients: metrics.gauge("forebay_mqtt_clients", "Clients connected to the embedded broker.", &[]),
            logins_refused: refused("login"),
            publishes_refused: refused("publish"),
            subscriptions_refused: refused("subscribe"),
        }
    }
}

impl Guard {
    fn new(own: &EmbeddedBroker, wiring: &Wiring) -> Result<Self, BrokerError> {
        let host = &wiring.host;
        Ok(Guard {
            access: AccessBook::open(&own.access_file, &host.data_dir, &host.host_id, &wiring.tasks)?,
            anonymous_read: own.anonymous_read,
            rights: Mutex::default(),
            interest: Arc::default(),
            views: RwLock::default(),
            in_use: Mutex::default(),
            inbox: wiring.inbox.clone(),
            shutdown: wiring.tasks.shutdown(),
            count: Counts::new(&wiring.metrics),
        })
    }

    /// What the session of this user may do now.
    fn rights(&self, user: Option<&str>) -> Option<Arc<Rights>> {
        let generation = self.access.generation();
        let mut known = self.rights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, rights)) = known.get(&user.map(str::to_owned))
            && *of == generation
        {
            return Some(Arc::clone(rights));
        }
        let rights = self.access.rights_of(user.unwrap_or("anonymous"))?;
        known.retain(|_, (of, _)| *of == generation);
        known.insert(user.map(str::to_owned), (generation, Arc::clone(&rights)));
        Some(rights)
    }

    fn in_use(&self) -> MutexGuard<'_, HashMap<String, InUse>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the client id for this login; `false` if somebody else uses it: connecting would throw them out.
    fn claim(&self, client: &str, user: Option<&str>) -> bool {
        let mut in_use = self.in_use();
        in_use.retain(|_, held| held.is_held());
        if client == OWN_CLIENT || in_use.get(client).is_some_and(|held| held.user.as_deref() != user) {
            return false;
        }
        let connections = in_use.get(client).map_or(0, |held| held.connections);
        let held = InUse { user: user.map(str::to_owned), connections, claimed: Some(Instant::now()) };
        in_use.insert(client.to_owned(), held);
        true
    }

    /// Counts the connections of a claimed client id up or down.
    fn count_connection(&self, client: &str, change: isize) {
        let mut in_use = self.in_use();
        if let Some(held) = in_use.get_mut(client) {
            held.connections = held.connections.saturating_add_signed(change);
            if change > 0 {
                held.claimed = None;
            }
        }
        let clients = in_use.values().filter(|held| held.connections > 0).count();
        self.count.clients.set(i64::try_from(clients).unwrap_or(i64::MAX));
    }

    fn may_publish(&self, user: Option<&str>, topic: &str) -> bool {
        let views = self.views.read().unwrap_or_else(PoisonError::into_inner);
        self.rights(user).is_some_and(|rights| rights.may_publish(topic))
            && !views.iter().any(|(served, _)| matches(served, topic))
    }

    fn views_of(&self, filter: &str) -> Vec<Arc<dyn View>> {
        let views = self.views.read().unwrap_or_else(PoisonError::into_inner);
        views.iter().filter(|(served, _)| overlap(served, filter)).map(|(_, view)| Arc::clone(view)).collect()
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl AuthProvider for Guard {
    fn authenticate<'a>(
        &'a self,
        connect: &'a ConnectPacket,
        client: SocketAddr,
    ) -> Answer<'a, mqtt5::error::Result<AuthResult>> {
        Box::pin(async move {
            let user = connect.username.as_deref();
            let shown = Credentials {
                user,
                password: connect.password.as_deref(),
                certificate: None,
                peer: client,
                loopback: client.ip().is_loopback(),
                anonymous_read: self.anonymous_read,
            };
            let login = match self.access.login(shown).await {
                Ok(login) => login,
                Err(refusal) => {
                    self.count.logins_refused.increment();
                    tokio::time::sleep(WRONG_LOGIN_DELAY).await;
                    return Ok(AuthResult::fail(match refusal.reason {
                        0x86 => ReasonCode::BadUsernameOrPassword,
                        _ => ReasonCode::NotAuthorized,
                    }));
                }
            };
            let user = (!login.rights.is_anonymous()).then(|| login.identity.name().to_owned());
            if !self.claim(&connect.client_id, user.as_deref()) {
                self.count.logins_refused.increment();
                tracing::warn!(%client, client_id = %connect.client_id, "MQTT client id belongs to another login");
                return Ok(AuthResult::fail(ReasonCode::ClientIdentifierNotValid));
            }
            Ok(user.map_or_else(AuthResult::success, AuthResult::success_with_user))
        })
    }

    fn authorize_publish<'a>(
        &'a self,
        _client: &str,
        user: Option<&'a str>,
        topic: &'a str,
    ) -> Answer<'a, bool> {
        let allowed = self.may_publish(user, topic);
        if !allowed {
            self.count.publishes_refused.increment();
        }
        Box::pin(std::future::ready(allowed))
    }

    fn authorize_subscribe<'a>(
        &'a self,
        client: &str,
        user: Option<&'a str>,
        filter: &'a str,
    ) -> Answer<'a, bool> {
        let allowed = self.rights(user).is_some_and(|rights| rights.may_subscribe(filter));
        if !allowed || !self.interest.add(client, filter, user.is_some()) {
            self.count.subscriptions_refused.increment();
            return Box::pin(std::future::ready(false));
        }
        Box::pin(async move {
            for view in self.views_of(filter) {
                view.prepare(filter).await;
            }
            true
        })
    }
}

impl BrokerEventHandler for Guard {
    fn on_client_connect<'a>(&'a self, event: ClientConnectEvent) -> Answer<'a, ()> {
        self.interest.connected(&event.client_id);
        self.count_connection(&event.client_id, 1);
        Box::pin(std::future::ready(()))
    }

    fn on_client_unsubscribe<'a>(&'a self, event: ClientUnsubscribeEvent) -> Answer<'a, ()> {
        for filter in &event.topic_filters {
            self.interest.remove(&event.client_id, filter);
        }
        Box::pin(std::future::ready(()))
    }

    fn on_client_disconnect<'a>(&'a self, event: ClientDisconnectEvent) -> Answer<'a, ()> {
        self.interest.disconnected(&event.client_id);
        self.count_connection(&event.client_id, -1);
        Box::pin(std::future::ready(()))
    }

    /// Called before the message is acknowledged or routed, and awaited.
    fn on_client_publish<'a>(&'a self, event: ClientPublishEvent) -> Answer<'a, PublishAction> {
        Box::pin(async move {
            if !event.topic.starts_with("spBv1.0/") || event.topic.split('/').nth(2) == Some("NDEATH") {
                return PublishAction::Continue;
            }
            self.count.received.increment();
            let message =
                Incoming { topic: event.topic.to_string(), payload: event.payload, retain: event.retain };
            tokio::select! {
                sent = self.inbox.send(message) => match sent {
                    Ok(()) => PublishAction::Continue,
                    Err(_) => PublishAction::Handled, // the host is gone: the process is ending
                },
                () = self.shutdown.cancelled() => PublishAction::Handled,
            }
        })
    }
}

/// A time as Sparkplug writes it; before 1970 counts as 0.
fn millis(time: model::Timestamp) -> u64 {
    u64::try_from(time.millis()).unwrap_or(0)
}
