//! The agent's certificate: renewed by itself at two thirds of its life, warned about when that does not succeed.
//!
//! ```text
//! look (each minute) ─► two thirds over, enrol is written ─► new request ─► hub ─► checked ─► file replaced
//!                        └ else, 30 days or less left: a warning a day
//! ```
//! Certificate and key are never mixed: where one file holds both (as `forebay join` writes it) a new key is made and the
//! file is replaced by one rename; where they are two files the key stays and only the certificate is replaced. The
//! MQTT client reads the files at each connection, so the next one uses the new certificate; a session that stands is
//! left alone. The CA file is not changed.

use std::convert::Infallible;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{NodeId, Timestamp};
use runtime::backoff::Backoff;
use runtime::clock::Clock;
use runtime::enrolment::{self, EnrolError, EnrolUrl, Granted, RenewRequest};
use runtime::mqtt_client::TlsOptions;
use runtime::pki::{
    self, Certificate, Contents, PkiError, PrivateKey, date_text, read_pem, write_private, write_public,
};
use runtime::tasks::CancellationToken;
use runtime::telemetry::{Counter, Metrics};
use runtime::tls_server::ExpiryWatch;

/// How often the file is looked at, for a certificate of usual length.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// After a failed renewal: first ...
const RETRY_FIRST: Duration = Duration::from_secs(30);
/// ... and longest wait. A third of the life is left, so there are hundreds of tries.
const RETRY_LONGEST: Duration = Duration::from_secs(3600);
/// Waits of a short-lived certificate are at most this part of its life.
const LIFE_PARTS: u32 = 60;
/// No wait is shorter.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// Why a renewal failed.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// The present files.
    #[error(transparent)]
    Files(#[from] PkiError),
    /// The hub.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// The answer is not what was asked for.
    #[error("the hub's certificate cannot be used: {0}")]
    Answer(String),
    /// A task ended.
    #[error("interrupted: {0}")]
    Interrupted(String),
}

/// Looks after one agent's certificate.
pub struct CertificateCare {
    node: NodeId,
    files: Files,
    tls: TlsOptions,
    enrol: Option<EnrolUrl>,
    clock: Clock,
    watch: ExpiryWatch,
    retry: Option<Retry>,
    renewed: Counter,
    failed: Counter,
}

/// Files of certificate and key; one and the same where both are in it.
#[derive(Clone, Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
}

/// Between failed renewals.
struct Retry {
    backoff: Backoff,
    not_before: Timestamp,
}

impl CertificateCare {
    /// For an agent with a client certificate in `tls`.
    #[must_use]
    pub fn new(
        node: &NodeId,
        tls: TlsOptions,
        enrol: Option<EnrolUrl>,
        clock: Clock,
        metrics: &Metrics,
    ) -> Self {
        let (cert, key) = tls.client.clone().unwrap_or_default();
        let agent = node.to_string();
        let counter = |outcome| {
            let help = "Renewals of the agent's certificate, by outcome.";
            let labels = [("agent", agent.as_str()), ("outcome", outcome)];
            metrics.counter("forebay_certificate_renewals_total", help, &labels)
        };
        CertificateCare {
            node: node.clone(),
            files: Files { cert, key },
            tls,
            enrol,
            clock,
            watch: ExpiryWatch::new(metrics),
            retry: None,
            renewed: counter("done"),
            failed: counter("failed"),
        }
    }

    /// Looks until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Infallible> {
        loop {
            let wait = self.look(ask).await;
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Looks once; renews by `ask` if it is time. Returns when to look again.
    async fn look<F>(&mut self, ask: impl FnOnce(EnrolUrl, TlsOptions, String) -> F) -> Duration
    where
        F: Future<Output = Result<Granted, EnrolError>>,
    {
        let files = self.files.clone();
        let read = blocking(move || Ok(first_certificate(&files.cert)?)).await;
        let certificate = match read {
            Ok(certificate) => certificate,
            Err(error) => {
                tracing::warn!(node = %self.node, %error, "the agent's certificate cannot be read");
                return LOOK_EVERY;
            }
        };
        let now = self.clock.now();
        let wait = shorter(LOOK_EVERY, &certificate);
        if let Some(url) = self.enrol.clone().filter(|_| is_due(&certificate, now)) {
            if self.retry.as_ref().is_some_and(|retry| retry.waits(now)) {
                self.tell(&certificate, now);
                return wait;
            }
            match self.renew(url, &certificate, ask).await {
                Ok(renewed) => {
                    self.retry = None;
                    self.renewed.increment();
                    let end = date_text(renewed.not_after);
                    tracing::info!(node = %self.node, %end, "the agent's certificate is renewed");
                    self.tell(&renewed, now);
                }
                Err(error) => {
                    self.failed.increment();
                    let wait = self.postpone(&certificate, now);
                    let end = date_text(certificate.not_after);
                    tracing::warn!(node = %self.node, %error, ?wait, %end, "the agent's certificate is not renewed");
                    self.tell(&certificate, now);
                }
            }
        } else {
            self.tell(&certificate, now);
        }
        wait
    }

    /// Sets the gauge; warns where nobody renews.
    fn tell(&mut self, certificate: &Certificate, now: Timestamp) {
        self.watch.look(&self.files.cert, certificate, now);
        self.watch.publish();
    }

    fn postpone(&mut self, certificate: &Certificate, now: Timestamp) -> Duration {
        let retry = self.retry.get_or_insert_with(|| Retry {
            backoff: Backoff::new(shorter(RETRY_FIRST, certificate), shorter(RETRY_LONGEST, certificate)),
            not_before: now,
        });
        let wait = retry.backoff.wait();
        retry.not_before = Timestamp(now.micros() + i64::try_from(wait.as_micros()).unwrap_or(0));
        wait
    }

    async fn renew<F>(
        &self,
        url: EnrolUrl,
        present: &Certificate,
        ask: impl FnOnce(EnrolUrl, TlsOptions, String) -> F,
    ) -> Result<Certificate, RenewalError>
    where
        F: Future<Output = Result<Granted, EnrolError>>,
    {
        let (files, name) = (self.files.clone(), present.common_name.clone().unwrap_or_default());
        let (key, request) = blocking(move || {
            let key = files.next_key()?;
            let request = key.request(&name)?;
            Ok((key, request))
        })
        .await?;
        let granted = ask(url, self.tls.clone(), request).await?;
        let renewed = check(&granted, &key, present)?;
        let files = self.files.clone();
        blocking(move || Ok(files.replace(&key, &granted.certificate)?)).await?;
        Ok(renewed)
    }
}

impl Retry {
    /// A clock that was set back makes no wait longer than the longest.
    fn waits(&self, now: Timestamp) -> bool {
        let left = self.not_before.micros_since(now);
        left > 0 && u128::try_from(left).unwrap_or(0) <= RETRY_LONGEST.as_micros()
    }
}

async fn ask(url: EnrolUrl, tls: TlsOptions, csr: String) -> Result<Granted, EnrolError> {
    enrolment::renew(&url, &tls, &RenewRequest { csr }).await
}

impl Files {
    fn is_one(&self) -> bool {
        self.cert == self.key
    }

    /// A new key where it can be swapped together with the certificate, else the present one.
    fn next_key(&self) -> Result<PrivateKey, PkiError> {
        if self.is_one() {
            return PrivateKey::make();
        }
        let problem = "holds no unencrypted key in PEM form".to_owned();
        let none = || PkiError::Content { path: self.key.clone(), problem };
        PrivateKey::from_der(&read_pem(&self.key)?.key.ok_or_else(none)?)
    }

    fn replace(&self, key: &PrivateKey, certificate: &str) -> Result<(), PkiError> {
        if self.is_one() {
            write_private(&self.cert, &(key.to_pem() + certificate))
        } else {
            write_public(&self.cert, certificate)
        }
    }
}

/// Whether two thirds of its life are over.
fn is_due(certificate: &Certificate, now: Timestamp) -> bool {
    let life = certificate.not_after.micros_since(certificate.not_before);
    now.micros_since(certificate.not_before) >= life / 3 * 2
}

/// A wait, shortened for a short life.
fn shorter(wait: Duration, certificate: &Certificate) -> Duration {
    let life = certificate.not_after.micros_since(certificate.not_before);
    let life = Duration::from_micros(u64::try_from(life).unwrap_or(0));
    wait.min(life / LIFE_PARTS).max(WAIT_MIN)
}

/// What came must be for this key and name, and live longer.
fn check(granted: &Granted, key: &PrivateKey, present: &Certificate) -> Result<Certificate, RenewalError> {
    let contents = Contents::parse(granted.certificate.as_bytes())?;
    let wrong = |why: &str| Err(RenewalError::Answer(why.into()));
    let Some(renewed) = contents.certificates.into_iter().next() else {
        return wrong("there is none in the answer");
    };
    if !key.fits(&renewed) {
        return wrong("it is for another key");
    }
    if renewed.common_name != present.common_name {
        return wrong("it is for another name");
    }
    if renewed.not_after <= present.not_after {
        return wrong("it does not live longer than the present one; the CA itself may be near its end");
    }
    Ok(renewed)
}

fn first_certificate(path: &Path) -> Result<Certificate, PkiError> {
    let certificates = pki::read_certificates(path)?;
    let none = || PkiError::Content { path: path.to_owned(), problem: "holds no certificate".into() };
    certificates.into_iter().next().ok_or_else(none)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RenewalError> + Send + 'static,
) -> Result<T, RenewalError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(RenewalError::Interrupted(panic.to_string())))
}

#[cfg(test)]
mod tests;
