//! One connection to a server: TCP, secure channel, session; requests and their answers.
//!
//! Nothing runs beside the driver: the connection moves while one of the functions here is awaited, and at no other time. So
//! a consumer that is slow slows the socket, and the server's queues fill, which it reports. All functions may be cut off;
//! what was sent is then answered into nothing.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use opcua::client::services::{ActivateSession, CloseSession, CreateSession};
use opcua::client::transport::{
    SecureChannelEventLoop, StreamConnection, StreamConnector, StreamTransport, TransportPollResult,
};
use opcua::client::{
    AsyncSecureChannel, ClientBuilder, ClientConfig, IdentityToken, SessionBuilder, UARequest,
};
use opcua::core::ResponseMessage;
use opcua::core::comms::tcp_codec::TcpCodec;
use opcua::core::sync::RwLock;
use opcua::crypto::CertificateStore;
use opcua::types::{
    ApplicationDescription, ApplicationType, DateTime, DecodingOptions, EndpointDescription, Error,
    GetEndpointsRequest, MessageSecurityMode, NodeId, RequestHeader, StatusCode, UAString,
};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::codec::FramedRead;

use super::fault::{failure, status};
use super::frames::{CHUNK_BYTES_MAX, Guarded};
use super::pki::Own;
use super::raw_body::RawBodies;
use crate::drivers::DriverError;

/// A message may be so long: 100 000 values with times are 3 MB, a long text each 10.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Elements of one array, references of one browse: the library's 1 000 would end connections in plants.
const ARRAY_MAX: usize = 200_000;
/// A string or byte string; longer ones than [`model::limits::VALUE_BYTES_MAX`] are no values, but must not end a connection.
const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Renewed by itself at three quarters.
const CHANNEL_LIFETIME_MS: u32 = 600_000;
/// A server forgets us after so long without a request. Servers have few sessions, and each lost connection leaves one.
const SESSION_TIMEOUT_MS: f64 = 30_000.0;
const PORT: u16 = 4840;
/// Waiting for the server's good-bye.
const CLOSE_DEADLINE: Duration = Duration::from_millis(700);

type Socket = StreamTransport<Guarded<ReadHalf<TcpStream>>, WriteHalf<TcpStream>>;

/// What identifies us to a server, whichever endpoint.
#[derive(Clone)]
pub(super) struct Application {
    pub(super) store: Arc<RwLock<CertificateStore>>,
    pub(super) own: Own,
    pub(super) config: Arc<ClientConfig>,
}

impl Application {
    pub(super) fn new(store: CertificateStore, own: Own) -> Application {
        let config = ClientBuilder::new()
            .application_name("Forebay edge agent")
            .application_uri(own.application_uri.as_str())
            .product_uri("urn:forebay")
            .session_retry_limit(0)
            .channel_lifetime(CHANNEL_LIFETIME_MS)
            .max_message_size(MESSAGE_BYTES_MAX)
            .max_chunk_count(MESSAGE_BYTES_MAX / 8192)
            .max_chunk_size(CHUNK_BYTES_MAX)
            .max_incoming_chunk_size(CHUNK_BYTES_MAX)
            .max_array_length(ARRAY_MAX)
            .max_string_length(TEXT_BYTES_MAX)
            .max_byte_string_length(TEXT_BYTES_MAX)
            .into_config();
        Application { store: Arc::new(RwLock::new(store)), own, config: Arc::new(config) }
    }
}

/// A session that outlives its connection: the server may know it still.
#[derive(Clone, Debug)]
pub(super) struct SessionKey {
    token: NodeId,
}

/// A connection.
pub(super) struct Link {
    channel: Arc<AsyncSecureChannel>,
    events: SecureChannelEventLoop<Socket>,
    endpoint: EndpointDescription,
    identity: IdentityToken,
    application: Application,
    key: Option<SessionKey>,
    timeout: Duration,
    /// Why nothing can be asked any more.
    broken: Option<String>,
    /// When the server last said anything.
    pub(super) heard_at: Instant,
}

/// What a request's header needs: session number (for logs), time limit, token, handle.
pub(super) type Header = (u32, Duration, NodeId, u32);

impl Link {
    /// Opens socket and channel; no session yet.
    pub(super) async fn connect(
        application: &Application,
        endpoint: EndpointDescription,
        identity: IdentityToken,
        timeout: Duration,
    ) -> Result<Link, DriverError> {
        let builder = SessionBuilder::new(&application.config).user_identity_token(identity.clone());
        let built = builder.connect_to_endpoint_directly(endpoint.clone()).and_then(|builder| {
            builder.type_loader(Arc::new(RawBodies)).build_channel(application.store.clone())
        });
        let channel = Arc::new(built.map_err(|error| DriverError::Config(error.to_string()))?);
        let connector = StreamConnector::new(dial, endpoint.endpoint_url.to_string());
        let opening = channel.clone();
        let opening: BoxFuture<'static, Result<SecureChannelEventLoop<Socket>, Error>> =
            Box::pin(async move { opening.connect_no_retry(&connector).await });
        let connecting = AssertUnwindSafe(opening).catch_unwind();
        let events = match tokio::time::timeout(timeout, connecting).await {
            Err(_) => return Err(DriverError::Silent(timeout)),
            Ok(Err(_)) => return Err(DriverError::Malformed("the answer to hello or open-channel".into())),
            Ok(Ok(Err(error))) => return Err(failure(&error, timeout)),
            Ok(Ok(Ok(events))) => events,
        };
        let (application, heard_at) = (application.clone(), Instant::now());
        Ok(Link {
            channel,
            events,
            endpoint,
            identity,
            application,
            key: None,
            timeout,
            broken: None,
            heard_at,
        })
    }

    /// A new session.
    pub(super) async fn create_session(&mut self) -> Result<(), DriverError> {
        let own = &self.application.own;
        let description = ApplicationDescription {
            application_uri: own.application_uri.as_str().into(),
            product_uri: "urn:forebay".into(),
            application_name: "Forebay edge agent".into(),
            application_type: ApplicationType::Client,
            ..ApplicationDescription::default()
        };
        let (store, endpoint) = (self.application.store.clone(), self.endpoint.clone());
        let (certificate, handle, timeout) =
            (own.certificate.clone(), self.channel.request_handle(), self.timeout);
        let channel = self.channel.clone();
        let created = self.drive(Box::pin(async move {
            let request = CreateSession::new_manual(&store, &endpoint, 0, timeout, NodeId::null(), handle)
                .client_description(description)
                .endpoint_url(endpoint.endpoint_url.clone())
                .session_name("forebay")
                .client_certificate(certificate)
                .session_timeout(SESSION_TIMEOUT_MS);
            request.send(&channel).await
        }));
        let created = created.await?;
        self.activate(SessionKey { token: created.authentication_token }).await
    }

    /// Takes a session that was made on another connection. The server's nonce is not known any more, so this is only
    /// tried without security, where nothing is signed.
    pub(super) async fn resume_session(&mut self, key: SessionKey) -> Result<(), DriverError> {
        self.channel.set_auth_token(key.token.clone());
        self.activate(key).await
    }

    async fn activate(&mut self, key: SessionKey) -> Result<(), DriverError> {
        let handle = self.channel.request_handle();
        let mut request =
            ActivateSession::new_manual(self.endpoint.clone(), 0, self.timeout, key.token.clone(), handle)
                .identity_token(self.identity.clone());
        if let Ok(private) = self.application.store.read().read_own_pkey() {
            request = request.private_key(private);
        }
        self.ask(request).await?;
        self.key = Some(key);
        Ok(())
    }

    /// For a later connection.
    pub(super) fn session_key(&self) -> Option<SessionKey> {
        self.key.clone()
    }

    /// Whether a session can be taken over by another connection with what we know.
    pub(super) fn is_plain(&self) -> bool {
        self.endpoint.security_mode == MessageSecurityMode::None
    }

    /// The next request's header.
    pub(super) fn header(&self) -> Header {
        let token = self.key.as_ref().map_or_else(NodeId::null, |key| key.token.clone());
        (0, self.timeout, token, self.channel.request_handle())
    }

    pub(super) fn channel(&self) -> Arc<AsyncSecureChannel> {
        self.channel.clone()
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn ask<R: UARequest + Send + 'static>(
        &mut self,
        request: R,
    ) -> Result<R::Out, DriverError>
    where
        R::Out: Send,
    {
        let channel = self.channel.clone();
        self.drive(async move { request.send(&channel).await }.boxed()).await
    }

    /// Moves the connection until `request` is answered.
    pub(super) async fn drive<T: Send>(
        &mut self,
        request: BoxFuture<'static, Result<T, Error>>,
    ) -> Result<T, DriverError> {
        self.usable()?;
        let mut request = std::pin::pin!(tokio::time::timeout(self.timeout + GRACE, request));
        loop {
            let answered = tokio::select! {
                biased;
                answered = &mut request => answered,
                moved = moved(&mut self.events, &mut self.heard_at) => {
                    if let Err(why) = moved {
                        // The request may have its own, better reason.
                        if let Some(Ok(Err(error))) = request.as_mut().now_or_never()
                            && !matches!(error.status(), StatusCode::BadConnectionClosed | StatusCode::Good) {
                            self.broken = Some(why);
                            return Err(failure(&error, self.timeout));
                        }
                        return Err(self.breaks(why));
                    }
                    continue;
                }
            };
            return match answered {
                Err(_) => Err(self.breaks_silent()),
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => {
                    let failed = failure(&error, self.timeout);
                    if matches!(failed, DriverError::Silent(_) | DriverError::NotConnected(_)) {
                        self.broken = Some(failed.to_string());
                    }
                    Err(failed)
                }
            };
        }
    }

    /// Moves the connection until it breaks. Cancel-safe.
    pub(super) async fn run(&mut self) -> DriverError {
        loop {
            if let Err(error) = self.usable() {
                return error;
            }
            if let Err(why) = moved(&mut self.events, &mut self.heard_at).await {
                return self.breaks(why);
            }
        }
    }

    /// Whether the connection stands, as far as we know.
    pub(super) fn is_whole(&self) -> bool {
        self.broken.is_none()
    }

    fn usable(&self) -> Result<(), DriverError> {
        self.broken.as_ref().map_or(Ok(()), |why| Err(DriverError::NotConnected(why.clone())))
    }

    fn breaks(&mut self, why: String) -> DriverError {
        self.broken = Some(why.clone());
        DriverError::NotConnected(why)
    }

    pub(super) fn breaks_silent(&mut self) -> DriverError {
        let error = DriverError::Silent(self.timeout);
        self.broken = Some(error.to_string());
        error
    }

    /// Says good-bye if anybody listens. What is in the socket's buffer otherwise is thrown away with it.
    pub(super) async fn close(mut self) {
        if self.broken.is_some() {
            return;
        }
        let (number, _, token, handle) = self.header();
        if self.key.is_some() {
            let request =
                CloseSession::new_manual(number, CLOSE_DEADLINE, token, handle).delete_subscriptions(true);
            tokio::time::timeout(CLOSE_DEADLINE, self.ask(request)).await.ok(); // the server forgets us by itself too
        }
        if self.broken.is_none() {
            self.channel.close_channel().await; // only queued here
            tokio::time::timeout(CLOSE_DEADLINE, self.run()).await.ok();
        }
    }

    /// The endpoints of a server, as it tells everybody.
    pub(super) async fn endpoints(
        application: &Application,
        url: &str,
        timeout: Duration,
    ) -> Result<Vec<EndpointDescription>, DriverError> {
        let mut link =
            Link::connect(application, EndpointDescription::from(url), IdentityToken::Anonymous, timeout)
                .await?;
        let header = RequestHeader {
            timestamp: DateTime::now(), // servers refuse requests from 1601
            request_handle: link.channel.request_handle(),
            timeout_hint: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
            ..RequestHeader::default()
        };
        let request = GetEndpointsRequest {
            request_header: header,
            endpoint_url: url.into(),
            locale_ids: None::<Vec<UAString>>,
            profile_uris: None,
        };
        let channel = link.channel.clone();
        let answer = link.drive(async move { channel.send(request, timeout).await }.boxed()).await?;
        link.close().await;
        match answer {
            ResponseMessage::GetEndpoints(answer) if answer.response_header.service_result.is_good() => {
                Ok(answer.endpoints.unwrap_or_default())
            }
            ResponseMessage::GetEndpoints(answer) => Err(status(answer.response_header.service_result, "")),
            ResponseMessage::ServiceFault(fault) => Err(status(fault.response_header.service_result, "")),
            _ => Err(DriverError::Malformed("another answer than the one asked for".into())),
        }
    }
}

/// The library watches its own deadlines while it is polled; this is for when it does not.
const GRACE: Duration = Duration::from_millis(500);

/// One step of the connection. A panic of the library is the end of this connection, not of the agent.
async fn moved(events: &mut SecureChannelEventLoop<Socket>, heard_at: &mut Instant) -> Result<(), String> {
    match AssertUnwindSafe(events.poll()).catch_unwind().await {
        Ok(TransportPollResult::Closed(code)) => Err(match code {
            StatusCode::Good | StatusCode::BadConnectionClosed | StatusCode::BadCommunicationError => {
                "the server closed the connection".to_owned()
            }
            code => format!("the connection ended with {code}"),
        }),
        Ok(TransportPollResult::IncomingMessage) => {
            *heard_at = Instant::now();
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(_) => Err("the library gave up on what the server sent".to_owned()),
    }
}

/// A socket as we want it: no waiting for more bytes, and nothing that is sent after it is dropped.
async fn dial(
    url: String,
    options: DecodingOptions,
) -> Result<StreamConnection<Guarded<ReadHalf<TcpStream>>, WriteHalf<TcpStream>>, Error> {
    let wrong = |why: String| Error::new(StatusCode::BadNotConnected, why);
    let authority = url.trim_start_matches("opc.tcp://").split('/').next().unwrap_or("").to_owned();
    let is_bare = authority.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err());
    let address = if is_bare { format!("{authority}:{PORT}") } else { authority };
    let socket =
        TcpStream::connect(address.clone()).await.map_err(|error| wrong(format!("{address}: {error}")))?;
    let set = socket.set_nodelay(true).and_then(|()| socket.set_zero_linger());
    set.map_err(|error| wrong(format!("{address}: {error}")))?;
    let (reader, writer) = tokio::io::split(socket);
    Ok(StreamConnection::new(FramedRead::new(Guarded::new(reader), TcpCodec::new(options)), writer, url))
}
