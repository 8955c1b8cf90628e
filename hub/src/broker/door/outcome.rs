//! What became of a connection at the door: one counter each.

use std::fmt;

use runtime::telemetry::{Counter, Metrics};

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Logged in, and handed to the core.
    LoggedIn,
    /// Wrong credentials, or no right to be here.
    Refused,
    /// An MQTT version that is not spoken here.
    Version,
    /// A wrong CONNECT.
    BadConnect,
    /// The first packet was another one, or none of MQTT.
    NotMqtt,
    /// An authentication exchange that is not known here.
    Method,
    /// The room was full.
    Room,
    /// The core took nobody.
    Busy,
    /// The TLS handshake failed.
    TlsFailed,
    /// The first bytes were not those of TLS.
    NotTls,
    /// The HTTP request was no WebSocket for MQTT.
    BadUpgrade,
    /// Not logged in when its time was over.
    Late,
    /// Went away, or its connection broke.
    Lost,
    /// Too many connections.
    NoPlace,
    /// Too many from one address.
    NoPlaceForAddress,
    /// The machine gave no descriptor or memory.
    AcceptFailed,
    /// A defect of ours.
    Failed,
}

impl Outcome {
    const ALL: [Self; 17] = [
        Self::LoggedIn,
        Self::Refused,
        Self::Version,
        Self::BadConnect,
        Self::NotMqtt,
        Self::Method,
        Self::Room,
        Self::Busy,
        Self::TlsFailed,
        Self::NotTls,
        Self::BadUpgrade,
        Self::Late,
        Self::Lost,
        Self::NoPlace,
        Self::NoPlaceForAddress,
        Self::AcceptFailed,
        Self::Failed,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::LoggedIn => "logged_in",
            Self::Refused => "refused",
            Self::Version => "version",
            Self::BadConnect => "bad_connect",
            Self::NotMqtt => "not_mqtt",
            Self::Method => "authentication_method",
            Self::Room => "full",
            Self::Busy => "busy",
            Self::TlsFailed => "tls_failed",
            Self::NotTls => "not_tls",
            Self::BadUpgrade => "bad_upgrade",
            Self::Late => "late",
            Self::Lost => "lost",
            Self::NoPlace => "no_place",
            Self::NoPlaceForAddress => "no_place_for_address",
            Self::AcceptFailed => "accept_failed",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LoggedIn => "logged in",
            Self::Refused => "login refused",
            Self::Version => "neither MQTT 3.1.1 nor 5.0",
            Self::BadConnect => "a wrong CONNECT",
            Self::NotMqtt => "the first packet is no CONNECT",
            Self::Method => "unknown authentication method",
            Self::Room => "as many clients as [hub.broker.limits] connections allows",
            Self::Busy => "the broker is busy",
            Self::TlsFailed => "TLS handshake failed",
            Self::NotTls => "no TLS on a port with TLS",
            Self::BadUpgrade => "no WebSocket for MQTT on a WebSocket port",
            Self::Late => "not logged in in time",
            Self::Lost => "connection lost before the login",
            Self::NoPlace => "more connections than [hub.broker.limits] connections allows",
            Self::NoPlaceForAddress => {
                "more connections from one address than [hub.broker.limits] connections_per_address allows"
            }
            Self::AcceptFailed => "cannot accept",
            Self::Failed => "a defect of the hub",
        })
    }
}

/// Counters of outcomes.
#[derive(Debug)]
pub(super) struct Outcomes([Counter; Outcome::ALL.len()]);

impl Outcomes {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Outcomes(Outcome::ALL.map(|outcome| {
            metrics.counter(
                "forebay_broker_connections_total",
                "Connections at the broker's listeners, by what became of them until their login.",
                &[("outcome", outcome.label())],
            )
        }))
    }

    pub(super) fn count(&self, outcome: Outcome) {
        if let Some(counter) = self.0.get(outcome as usize) {
            counter.increment();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_counter() {
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(index, outcome as usize);
        }
    }
}
