//! The hub's own broker behind the seam: opens its parts and wires them together (docs/specs/broker.md §1).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proto::sparkplug::StatePayload;
use runtime::clock::Clock;
use runtime::pki::Certificate;
use runtime::tasks::{CancellationToken, TaskKind, Tasks};
use runtime::telemetry::Metrics;
use runtime::tls_server::{self, TlsFiles, TlsServer, TlsStatus};
use rustls::pki_types::CertificateDer;
use tokio::sync::{mpsc, oneshot};

use crate::config::EmbeddedBroker;
use crate::config::broker::{ClientCertificates, Protocol};

use super::access::{AccessBook, ClientCertificate};
use super::core::status::{BrokerStatus, RetainedPage, Tapped};
use super::core::{Core, CoreHandle, Mailbox, Parts, Request, Tap, ViewAsk};
use super::door::{self, Door, Listener, TlsConfig};
use super::interest::Interest;
use super::journal::{Journal, JournalOptions};
use super::{Broker, BrokerError, BrokerEvent, QoS, View, Wiring};

/// Pages of views asked for and not begun.
const VIEW_ASKS_MAX: usize = 256;

/// Messages that may wait for somebody who watches topics.
const TAPPED_MAX: usize = 256;

/// Time for STATE offline to reach the agents before the connections close.
const FAREWELL: Duration = Duration::from_millis(200);

/// Folder of the journal in the hub's data folder.
const JOURNAL: &str = "mqtt";

/// Opens the broker and starts serving.
pub(super) async fn start(config: &EmbeddedBroker, wiring: Wiring) -> Result<Arc<dyn Broker>, BrokerError> {
    let Wiring { host, inbox, events, clock, metrics, tasks } = wiring;
    let failed = |why: String| BrokerError::Start { why };
    let access = AccessBook::open(&config.access_file, &host.data_dir, &host.host_id, &tasks)?;
    let poll = mio::Poll::new().map_err(|error| failed(error.to_string()))?;
    let mailbox = Mailbox::new(&poll).map_err(|error| failed(error.to_string()))?;
    let (journal, recovered) = open_journal(config, &host.data_dir, &metrics, &mailbox, &tasks).await?;
    let (views, asks) = mpsc::channel(VIEW_ASKS_MAX);
    let interest = Arc::<Interest>::default();
    let parts = Parts {
        mailbox: Arc::clone(&mailbox),
        poll,
        journal,
        recovered,
        access: access.clone(),
        inbox,
        interest: Arc::clone(&interest),
        views,
        limits: config.limits.clone(),
        sparkplug_aware: config.sparkplug_aware,
        clock: clock.clone(),
        metrics: metrics.clone(),
    };
    let handle = CoreHandle::new(mailbox);
    let (listeners, certificates) = listeners(config, &clock, &metrics, &tasks)?;
    let address = listeners.first().map(Listener::address);
    let reception = handle.clone();
    let reception: door::Reception = Arc::new(move |arrival| reception.arrive(arrival));
    let limits = (config.limits.connections, config.limits.connections_per_address);
    let door = Door::new(access.clone(), reception, Arc::new(read_certificate), limits, &metrics);
    let this = Arc::new(Embedded { core: handle, address, interest, access, certificates, metrics });

    let state = StatePayload { online: true, timestamp: u64::try_from(clock.now().millis()).unwrap_or(0) };
    let state_topic = host.state_topic();
    this.publish(state_topic.clone(), state.encode().into_bytes(), QoS::AtLeastOnce, true).await?;
    tasks.spawn_blocking(TaskKind::Server, "mqtt broker", move || Core::new(parts).run());
    door.open(listeners, &tasks);
    tasks.spawn(TaskKind::Server, "mqtt views", serve_views(asks, this.core.clone(), tasks.shutdown()));
    let (last, shutdown) = (Arc::clone(&this), tasks.shutdown());
    tasks.spawn(TaskKind::Server, "mqtt farewell", async move {
        shutdown.cancelled().await;
        let state = StatePayload { online: false, ..state };
        let said = last.publish(state_topic, state.encode().into_bytes(), QoS::AtLeastOnce, true).await;
        tokio::time::sleep(FAREWELL).await;
        last.core.post_now(Request::Stop);
        said
    });
    events.send(BrokerEvent::Connected).await.ok(); // a host that is gone hears nothing
    Ok(this)
}

/// Binds the listeners, the plain one of this machine first; TLS follows its files until shutdown.
fn listeners(
    config: &EmbeddedBroker,
    clock: &Clock,
    metrics: &Metrics,
    tasks: &Tasks,
) -> Result<(Vec<Listener>, Vec<TlsServer>), BrokerError> {
    let failed = |listen: SocketAddr| {
        move |error: std::io::Error| BrokerError::Listen {
            listen,
            why: format!("{error}; choose another address in [hub.broker], or stop what uses it"),
        }
    };
    let plain = Listener::bind(config.listen, Protocol::Mqtt, None, config.anonymous_read);
    let mut bound = vec![plain.map_err(failed(config.listen))?];
    let mut certificates = Vec::new();
    for further in &config.listeners {
        let tls =
            further.tls.then(|| load_tls(config, further.client_certificate, clock, metrics)).transpose()?;
        let source = tls.clone().map(|tls| Arc::new(move || tls.current()) as TlsConfig);
        let listener = Listener::bind(further.listen, further.protocol, source, further.anonymous_read)
            .map_err(failed(further.listen))?;
        tracing::info!(address = %listener.address(), protocol = ?further.protocol, tls = further.tls, "MQTT listener");
        bound.push(listener);
        if let Some(tls) = tls {
            tasks.spawn(TaskKind::Housekeeping, "mqtt certificates", tls.clone().watch(tasks.shutdown()));
            certificates.push(tls);
        }
    }
    Ok((bound, certificates))
}

fn load_tls(
    config: &EmbeddedBroker,
    asked: ClientCertificates,
    clock: &Clock,
    metrics: &Metrics,
) -> Result<TlsServer, BrokerError> {
    let client_certificate = match asked {
        ClientCertificates::None => tls_server::ClientCertificate::None,
        ClientCertificates::Optional => tls_server::ClientCertificate::Optional,
        ClientCertificates::Required => tls_server::ClientCertificate::Required,
    };
    let files = TlsFiles {
        cert_file: config.tls.cert_file.clone(),
        key_file: config.tls.key_file.clone(),
        client_ca_file: (asked != ClientCertificates::None).then(|| config.tls.client_ca_file.clone()),
        client_certificate,
    };
    TlsServer::load(files, clock.clone(), metrics.clone())
        .map_err(|error| BrokerError::Start { why: format!("TLS: {error}") })
}

/// The names that a client certificate gives its owner.
fn read_certificate(der: &CertificateDer<'static>) -> Result<ClientCertificate, String> {
    let certificate = Certificate::parse(der.clone())?;
    Ok(ClientCertificate {
        names: certificate.identities().map(str::to_owned).collect(),
        not_before: certificate.not_before,
        serial: certificate.serial.clone(),
    })
}

async fn open_journal(
    config: &EmbeddedBroker,
    data_dir: &std::path::Path,
    metrics: &Metrics,
    mailbox: &Arc<Mailbox>,
    tasks: &Tasks,
) -> Result<(Journal, super::journal::Recovered), BrokerError> {
    let (folder, metrics, tasks, wake) =
        (data_dir.join(JOURNAL), metrics.clone(), tasks.clone(), Arc::clone(mailbox));
    let options = JournalOptions::new(config.limits.journal_bytes);
    let open = move || Journal::open(&folder, options, &metrics, Arc::new(move || wake.call()), &tasks);
    match tokio::task::spawn_blocking(open).await {
        Ok(opened) => opened.map_err(|error| BrokerError::Journal(Box::new(error))),
        Err(panic) => Err(BrokerError::Start { why: format!("opening the journal: {panic}") }),
    }
}

/// Renders pages of views, one after the other, so that the core need not wait.
async fn serve_views(
    mut asks: mpsc::Receiver<ViewAsk>,
    core: CoreHandle,
    shutdown: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    loop {
        let ask = tokio::select! {
            ask = asks.recv() => ask,
            () = shutdown.cancelled() => None,
        };
        let Some(ViewAsk { view, filter, after, bytes_max, reply }) = ask else { return Ok(()) };
        let give = |page| core.post_now(Request::ViewPage { reply, filter: filter.clone(), page });
        view.page(&filter, after, bytes_max, &give).await;
    }
}

struct Embedded {
    core: CoreHandle,
    address: Option<SocketAddr>,
    interest: Arc<Interest>,
    access: AccessBook,
    certificates: Vec<TlsServer>,
    metrics: Metrics,
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
            QoS::AtMostOnce => proto::mqtt::QoS::AtMostOnce,
            QoS::AtLeastOnce => proto::mqtt::QoS::AtLeastOnce,
        };
        self.core.post(Request::Publish { topic, payload, qos, retain }).await
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.address
    }

    fn clients(&self) -> usize {
        usize::try_from(self.metrics.gauge("forebay_mqtt_clients", "", &[]).get()).unwrap_or(0)
    }

    fn session(&self) -> u64 {
        1
    }

    fn interest(&self) -> Option<Arc<Interest>> {
        Some(Arc::clone(&self.interest))
    }

    fn serve(&self, filter: String, view: Arc<dyn View>) {
        self.core.post_now(Request::Serve { filter, view });
    }

    fn insight(&self) -> Option<Insight> {
        Some(Insight {
            core: self.core.clone(),
            access: self.access.clone(),
            certificates: self.certificates.clone(),
        })
    }
}

/// A look into the embedded broker, for the API. Cheap to clone.
#[derive(Clone)]
pub struct Insight {
    core: CoreHandle,
    access: AccessBook,
    certificates: Vec<TlsServer>,
}

impl std::fmt::Debug for Insight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Insight")
    }
}

impl Insight {
    /// Clients, sessions and totals.
    pub async fn status(&self) -> Result<BrokerStatus, BrokerError> {
        let (reply, answer) = oneshot::channel();
        self.core.post(Request::Status(reply)).await?;
        answer.await.map_err(|_| BrokerError::NotConnected)
    }

    /// Retained messages that match, behind a topic, at most `limit`.
    pub async fn retained(
        &self,
        filter: String,
        after: Option<String>,
        limit: usize,
    ) -> Result<RetainedPage, BrokerError> {
        let (reply, answer) = oneshot::channel();
        self.core.post(Request::Retained { filter, after, limit, reply }).await?;
        answer.await.map_err(|_| BrokerError::NotConnected)
    }

    /// What is published to matching topics from now on, as far as the receiver keeps up; ends with the receiver.
    pub async fn watch(&self, filter: String) -> Result<mpsc::Receiver<Tapped>, BrokerError> {
        let (messages, receiver) = mpsc::channel(TAPPED_MAX);
        self.core.post(Request::Tap(Tap { filter, messages, missed: 0 })).await?;
        Ok(receiver)
    }

    /// Disconnects a client; whether it was there.
    pub async fn disconnect(&self, client_id: String) -> Result<bool, BrokerError> {
        let (reply, answer) = oneshot::channel();
        self.core.post(Request::Disconnect { client_id, reply }).await?;
        answer.await.map_err(|_| BrokerError::NotConnected)
    }

    /// Certificates of the listeners with TLS.
    #[must_use]
    pub fn certificates(&self) -> Vec<TlsStatus> {
        self.certificates.iter().map(TlsServer::status).collect()
    }

    /// What is wrong with the access file as it is now; its last good rules hold.
    #[must_use]
    pub fn access_problem(&self) -> Option<String> {
        self.access.problem()
    }
}
