//! TCP, TLS and the CONNECT/CONNACK exchange.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use rumqttc::{Connect, ConnectReturnCode, LastWill, Packet, Protocol};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{MqttError, MqttOptions, TlsOptions};
use crate::pki::{Certificate, read_certificates, read_pem, refused_by_tls};

/// An accepted connection: both halves, and bytes already received after CONNACK.
pub(super) struct Opened {
    pub(super) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) writer: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) received: BytesMut,
}

/// Connects and exchanges CONNECT for CONNACK.
pub(super) async fn open(options: &MqttOptions) -> Result<Opened, MqttError> {
    let (mut reader, mut writer) = halves(options).await?;
    let mut buffer = BytesMut::new();
    encode_connect(options, &mut buffer)?;
    writer.write_all(&buffer).await.map_err(lost)?;
    writer.flush().await.map_err(lost)?;
    buffer.clear();
    accepted(&mut reader, &mut buffer, options.packet_bytes_max).await?;
    Ok(Opened { reader, writer, received: buffer })
}

type Halves = (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>);

async fn halves(options: &MqttOptions) -> Result<Halves, MqttError> {
    if let Some(simulated) = crate::world::dial(&options.host, options.port) {
        let (reader, writer) = tokio::io::split(simulated.map_err(lost)?);
        return Ok((Box::new(reader), Box::new(writer)));
    }
    let tcp = dial(&options.host, options.port).await?;
    let Some(tls) = &options.tls else {
        let (reader, writer) = tcp.into_split();
        return Ok((Box::new(reader), Box::new(writer)));
    };
    let name = ServerName::try_from(options.host.clone())
        .map_err(|_| MqttError::Options(format!("{} is no name for a TLS server", options.host)))?;
    let stream = TlsConnector::from(tls_config(tls)?).connect(name, tcp).await.map_err(tls_error)?;
    let (reader, writer) = tokio::io::split(stream);
    Ok((Box::new(reader), Box::new(writer)))
}

pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, MqttError> {
    let mut last = MqttError::Lost(format!("{host} has no address"));
    let addresses =
        tokio::net::lookup_host((host, port)).await.map_err(|e| MqttError::Lost(format!("{host}: {e}")))?;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(lost)?;
                return Ok(stream);
            }
            Err(error) => last = MqttError::Lost(format!("{address}: {error}")),
        }
    }
    Err(last)
}

fn encode_connect(options: &MqttOptions, out: &mut BytesMut) -> Result<(), MqttError> {
    let mut connect = Connect::new(options.client_id.clone());
    connect.protocol = Protocol::V4;
    connect.clean_session = true;
    connect.keep_alive = u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX);
    if let Some((topic, payload, retain)) = &options.will {
        connect.last_will =
            Some(LastWill::new(topic.as_str(), payload.clone(), rumqttc::QoS::AtLeastOnce, *retain));
    }
    if let Some((user, password)) = &options.login {
        connect.set_login(user.as_str(), password.as_str());
    }
    connect.write(out).map(|_| ()).map_err(|error| MqttError::Options(format!("CONNECT: {error}")))
}

/// Reads until CONNACK is whole; what follows it stays in `buffer`.
async fn accepted(
    reader: &mut (dyn AsyncRead + Send + Unpin),
    buffer: &mut BytesMut,
    packet_bytes_max: usize,
) -> Result<(), MqttError> {
    loop {
        match Packet::read(buffer, packet_bytes_max) {
            Ok(Packet::ConnAck(ack)) if ack.code == ConnectReturnCode::Success => return Ok(()),
            Ok(Packet::ConnAck(ack)) => return Err(MqttError::Refused(format!("{:?}", ack.code))),
            Ok(_) => {
                return Err(MqttError::Lost("the first packet was no CONNACK: not an MQTT broker?".into()));
            }
            Err(rumqttc::Error::InsufficientBytes(_)) => {}
            Err(error) => return Err(MqttError::Lost(format!("not an MQTT broker? {error}"))),
        }
        let cause = match reader.read_buf(buffer).await {
            Ok(0) => "closed".to_owned(),
            Ok(_) => continue,
            Err(error) => error.to_string(),
        };
        let hint = "before CONNACK: no MQTT broker there, a certificate missing, or TLS expected?";
        return Err(MqttError::Lost(format!("{cause} {hint}")));
    }
}

/// Reads the files at each connection, so that a renewed certificate is used from the next one on.
pub fn tls_config(options: &TlsOptions) -> Result<Arc<ClientConfig>, MqttError> {
    let mut roots = RootCertStore::empty();
    match &options.ca_file {
        Some(path) => {
            for certificate in certificates(read_certificates(path).map_err(bad)?) {
                roots.add(certificate).map_err(|e| MqttError::Options(format!("{}: {e}", path.display())))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(MqttError::Options("there is no CA certificate; set ca_file".into()));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(format!("TLS: {error}")))?
        .with_root_certificates(roots);
    let config = match &options.client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let (certificates, private) = own_certificate(chain, key)?;
            let taken = builder.with_client_auth_cert(certificates, private);
            taken.map_err(|error| own_refused(chain, key, &error))?
        }
    };
    Ok(Arc::new(config))
}

/// Chain and key. A file that holds both is read once: it may be replaced at any moment.
fn own_certificate(
    chain: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), MqttError> {
    let of_chain = read_pem(chain).map_err(bad)?;
    if of_chain.certificates.is_empty() {
        return Err(bad(format!("{}: no certificate in PEM form", chain.display())));
    }
    let private = if chain == key { of_chain.key } else { read_pem(key).map_err(bad)?.key };
    let private = private.ok_or_else(|| bad(format!("{}: no unencrypted key in PEM form", key.display())))?;
    Ok((certificates(of_chain.certificates), private))
}

fn own_refused(chain: &Path, key: &Path, error: &rustls::Error) -> MqttError {
    match error {
        rustls::Error::InconsistentKeys(_) => bad(format!(
            "{}: its key does not belong to the certificate in {}",
            key.display(),
            chain.display()
        )),
        other => bad(format!("{}: {}", chain.display(), refused_by_tls(other))),
    }
}

fn certificates(read: Vec<Certificate>) -> Vec<CertificateDer<'static>> {
    read.into_iter().map(|certificate| certificate.der).collect()
}

fn bad(error: impl std::fmt::Display) -> MqttError {
    MqttError::Options(error.to_string())
}

fn tls_error(error: io::Error) -> MqttError {
    match error.kind() {
        io::ErrorKind::InvalidData => MqttError::Refused(format!("TLS: {error}")),
        _ => lost(error),
    }
}

fn lost(error: io::Error) -> MqttError {
    MqttError::Lost(error.to_string())
}
