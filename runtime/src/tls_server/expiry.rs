//! Certificates that end soon: a gauge per file, and a warning once a day.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use model::Timestamp;

use crate::pki::{Certificate, EXPIRY_WARNING, Fingerprint, date_text};
use crate::telemetry::Metrics;

/// A warning is repeated after so long.
const WARN_EVERY_MICROS: i64 = 86_400_000_000;
/// Certificates remembered for that; a new one of each file each day would be a mistake elsewhere.
const WARNED_MAX: usize = 256;

/// Watches certificates for their end.
#[derive(Debug)]
pub struct ExpiryWatch {
    metrics: Metrics,
    warned: HashMap<(PathBuf, Fingerprint), Timestamp>,
    /// Of each file the certificate that ends first, seconds left.
    soonest: BTreeMap<PathBuf, i64>,
}

/// Whether somebody must act.
pub(super) fn is_ending(certificate: &Certificate, now: Timestamp) -> bool {
    u64::try_from(certificate.seconds_left(now)).unwrap_or(0) <= EXPIRY_WARNING.as_secs()
}

impl ExpiryWatch {
    /// Watches nothing yet.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        ExpiryWatch { metrics: metrics.clone(), warned: HashMap::new(), soonest: BTreeMap::new() }
    }

    /// Looks at a certificate of a file; warns if it ends within 30 days. Returns whether it warned.
    pub fn look(&mut self, file: &Path, certificate: &Certificate, now: Timestamp) -> bool {
        let seconds = certificate.seconds_left(now);
        let soonest = self.soonest.entry(file.to_owned()).or_insert(seconds);
        *soonest = seconds.min(*soonest);
        let key = (file.to_owned(), certificate.fingerprint);
        let is_told =
            self.warned.get(&key).is_some_and(|at| (0..WARN_EVERY_MICROS).contains(&now.micros_since(*at)));
        if !is_ending(certificate, now) || is_told {
            return false;
        }
        if self.warned.len() >= WARNED_MAX {
            self.warned.clear();
        }
        self.warned.insert(key, now);
        let (file, subject) = (file.display(), &certificate.subject);
        let (end, days) = (date_text(certificate.not_after), certificate.days_left(now));
        if seconds < 0 {
            tracing::error!(%file, %subject, %end, "this certificate has ended; peers refuse it: renew it now");
        } else {
            tracing::warn!(%file, %subject, %end, days_left = days, "this certificate ends soon; renew it");
        }
        true
    }

    /// Sets the gauges after all certificates were looked at.
    pub fn publish(&mut self) {
        for (file, seconds) in std::mem::take(&mut self.soonest) {
            let help = "Seconds until the first certificate of the file ends.";
            let file = file.display().to_string();
            self.metrics
                .gauge("forebay_tls_certificate_expires_seconds", help, &[("file", &file)])
                .set(seconds);
        }
    }
}
