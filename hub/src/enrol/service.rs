//! What is decided about a request for a certificate. Knows no sockets.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use model::Timestamp;
use runtime::clock::Clock;
use runtime::enrolment::{Granted, JoinRequest, Reason, RenewRequest};
use runtime::pki::{self, Authority, Certificate, Issued, PkiError};
use runtime::telemetry::{Counter, Metrics};

use crate::guesses::{Guesses, neighbourhood};

use super::{Allowed, IssuedFolder, JoinError, Joins, Setup};

const MICROS_PER_SECOND: i64 = 1_000_000;
/// Refused tokens in a row before an address has to wait. A token cannot be guessed: this is against noise and load.
const GUESSES: u32 = 10;
/// One more after so long.
const GUESS_EVERY: Duration = Duration::from_secs(6);
/// Addresses remembered for that.
const ADDRESSES_MAX: usize = 1024;

/// A refusal, as it is told.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: Reason,
    /// Seconds to wait.
    pub(super) retry_after: Option<u64>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let reason = Reason { message: message.into(), remedy: remedy.into() };
        Refusal { status, reason, retry_after: None }
    }

    fn internal(what: &str, error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "enrolment: {what}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, what, "The hub's log says why; try again later")
    }
}

/// Decides and issues.
pub(super) struct Service {
    setup: Setup,
    joins: Joins,
    issued: IssuedFolder,
    clock: Clock,
    guesses: Guesses<IpAddr>,
    joined: Counter,
    renewed: Counter,
    refused: Counter,
}

impl Service {
    pub(super) fn new(setup: Setup, clock: Clock, metrics: Metrics) -> Self {
        let counter = |kind| {
            let help = "Requests for certificates, by outcome.";
            metrics.counter("forebay_enrolment_requests_total", help, &[("outcome", kind)])
        };
        Service {
            joins: Joins::below(&setup.tls_dir),
            issued: IssuedFolder::below(&setup.tls_dir),
            setup,
            clock,
            guesses: Guesses::new(GUESSES, GUESS_EVERY, ADDRESSES_MAX),
            joined: counter("joined"),
            renewed: counter("renewed"),
            refused: counter("refused"),
        }
    }

    /// A first certificate. Blocking: reads and writes files.
    pub(super) fn join(&self, request: &JoinRequest, peer: IpAddr) -> Result<Granted, Refusal> {
        if let Some(wait) = self.guesses.waiting(neighbourhood(peer), Instant::now()) {
            let seconds = wait.as_secs();
            self.refused.increment();
            let mut refusal = Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many tokens from this address were wrong",
                format!("Wait {seconds} seconds, then try again with the right one"),
            );
            refusal.retry_after = Some(seconds);
            return Err(refusal);
        }
        let granted = self.join_by(request, peer);
        self.count(&granted, &self.joined);
        if let Err(refusal) = &granted
            && refusal.status.is_client_error()
        {
            self.guesses.take(neighbourhood(peer), Instant::now()).ok(); // empty already: as good
            let reason = &refusal.reason.message;
            tracing::warn!(%peer, %reason, "a request to join was refused");
        }
        granted
    }

    fn join_by(&self, request: &JoinRequest, peer: IpAddr) -> Result<Granted, Refusal> {
        let now = self.clock.now();
        let join = self.joins.look_up(&request.token, now).map_err(|error| token_refused(&error))?;
        let allowed = self.allowed(&join.name)?;
        let issued = self.issue(&join.name, &request.csr, &allowed, now)?;
        self.joins.take(&join).map_err(|error| token_refused(&error))?;
        self.note(&join.name, &issued.certificate, peer, true, now);
        self.granted(join.name, &issued, &allowed)
    }

    /// A new certificate for whoever shows a good one. `shown` was verified by TLS.
    pub(super) fn renew(
        &self,
        request: &RenewRequest,
        shown: Option<&Certificate>,
        peer: IpAddr,
    ) -> Result<Granted, Refusal> {
        let granted = self.renew_by(request, shown, peer);
        self.count(&granted, &self.renewed);
        if let Err(refusal) = &granted {
            let (reason, who) = (&refusal.reason.message, shown.map(|shown| shown.subject.as_str()));
            tracing::warn!(%peer, who, %reason, "a renewal was refused");
        }
        granted
    }

    fn renew_by(
        &self,
        request: &RenewRequest,
        shown: Option<&Certificate>,
        peer: IpAddr,
    ) -> Result<Granted, Refusal> {
        const AGAIN: &str = "On the hub: forebay agent add NAME, then forebay join on this machine";
        let shown = shown.ok_or_else(|| {
            Refusal::new(StatusCode::UNAUTHORIZED, "a renewal needs the present certificate", AGAIN)
        })?;
        let Some(name) = shown.common_name.clone() else {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "the certificate has no common name", AGAIN));
        };
        let allowed = self.allowed(&name)?;
        if allowed.certificates_from.is_some_and(|from| shown.not_before < from) {
            let message = format!("the certificate of {name} was revoked");
            return Err(Refusal::new(StatusCode::FORBIDDEN, message, AGAIN));
        }
        let now = self.clock.now();
        let issued = self.issue(&name, &request.csr, &allowed, now)?;
        self.note(&name, &issued.certificate, peer, false, now);
        self.granted(name, &issued, &allowed)
    }

    fn allowed(&self, name: &str) -> Result<Allowed, Refusal> {
        let found = self.setup.identities.look_up(name);
        let found = found.map_err(|error| Refusal::internal("the access file cannot be read", &error))?;
        let refused = |message: String, remedy: &str| Refusal::new(StatusCode::FORBIDDEN, message, remedy);
        match found {
            None => Err(refused(
                format!("there is no identity {name}"),
                "On the hub: forebay agent add NAME makes it",
            )),
            Some(allowed) if allowed.disabled => Err(refused(
                format!("{name} is disabled"),
                "Remove `disabled` in the hub's access file if that is wrong",
            )),
            Some(allowed) if !allowed.certificate => Err(refused(
                format!("{name} may not log in with a certificate"),
                "On the hub: forebay agent add NAME allows it",
            )),
            Some(allowed) => Ok(allowed),
        }
    }

    fn issue(&self, name: &str, csr: &str, allowed: &Allowed, now: Timestamp) -> Result<Issued, Refusal> {
        let authority = Authority::load(&self.setup.ca_file(), &self.setup.ca_key_file());
        let authority =
            authority.map_err(|error| Refusal::internal("the plant's CA cannot be used", &error))?;
        // Certificates know whole seconds; one of the second of a revocation would count as revoked.
        let floor = Timestamp(now.micros().div_euclid(MICROS_PER_SECOND) * MICROS_PER_SECOND);
        let ahead = now.micros() + MICROS_PER_SECOND;
        let from =
            allowed.certificates_from.filter(|from| from.micros() <= ahead).unwrap_or(floor).max(floor);
        authority.issue_client(name, csr, from, self.setup.validity).map_err(|error| match error {
            PkiError::Bytes(why) => {
                Refusal::new(StatusCode::BAD_REQUEST, why, "Send a PKCS#10 request in PEM form")
            }
            error => Refusal::internal("no certificate could be made", &error),
        })
    }

    fn granted(&self, name: String, issued: &Issued, allowed: &Allowed) -> Result<Granted, Refusal> {
        let unreadable = |error: PkiError| Refusal::internal("the plant's CA cannot be read", &error);
        let path = self.setup.ca_file();
        let ca = pki::read_bounded(&path).map_err(unreadable)?;
        let ca =
            String::from_utf8(ca).map_err(|error| Refusal::internal("the plant's CA is no text", &error))?;
        let mut certificate = issued.pem.clone();
        for between in pki::read_certificates(&path).map_err(unreadable)? {
            if !between.is_self_issued {
                certificate.push_str(&between.to_pem());
            }
        }
        Ok(Granted {
            name,
            certificate,
            ca,
            mqtt_port: self.setup.mqtt_port,
            group: allowed.node.as_ref().map(|node| node.group().to_owned()),
            node: allowed.node.as_ref().map(|node| node.node().to_owned()),
        })
    }

    fn note(&self, name: &str, certificate: &Certificate, peer: IpAddr, is_join: bool, now: Timestamp) {
        let (serial, end) = (&certificate.serial, pki::date_text(certificate.not_after));
        tracing::info!(agent = %name, %peer, %serial, %end, joined = is_join, "certificate issued");
        let noted: io::Result<()> = self.issued.note(name, certificate, &peer.to_string(), is_join, now);
        if let Err(error) = noted {
            tracing::warn!(agent = %name, %error, "the certificate could not be noted for `forebay agent list`");
        }
    }

    fn count<T>(&self, outcome: &Result<T, Refusal>, good: &Counter) {
        if outcome.is_ok() { good.increment() } else { self.refused.increment() }
    }
}

fn token_refused(error: &JoinError) -> Refusal {
    match error {
        JoinError::Unknown | JoinError::Expired => {
            let remedy = "On the hub: forebay agent add NAME prints a new join line";
            Refusal::new(StatusCode::FORBIDDEN, error.to_string(), remedy)
        }
        error => Refusal::internal("the tokens cannot be read", error),
    }
}
