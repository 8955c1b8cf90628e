//! What an OPC UA status means here: for a point its quality, for a request who must act.

use std::time::Duration;

use model::{Quality, QualityClass, Reason};
use opcua::types::{Error, StatusCode};

use crate::drivers::DriverError;

/// Upper half of a status: the code that books list (`0x8034` is BadNodeIdUnknown).
pub(super) fn code(status: StatusCode) -> u16 {
    u16::try_from(status.bits() >> 16).unwrap_or(u16::MAX)
}

/// A value's quality. What the server lost before this value is said too: the value is good, the row of values is not whole.
pub(super) fn quality(status: StatusCode) -> Quality {
    let class = match status.bits() >> 30 {
        0 => QualityClass::Good,
        1 => QualityClass::Uncertain,
        _ => QualityClass::Bad,
    };
    let detail = code(status);
    let reason = match StatusCode::from(status.bits() & 0xffff_0000) {
        StatusCode::Good if is_overflow(status) => Reason::Overflow,
        StatusCode::Good => return Quality::GOOD,
        StatusCode::BadNotConnected
        | StatusCode::BadNoCommunication
        | StatusCode::UncertainNoCommunicationLastUsableValue => Reason::NotConnected,
        StatusCode::BadUserAccessDenied | StatusCode::BadNotReadable => Reason::AccessDenied,
        StatusCode::BadWaitingForInitialData => Reason::NeverRead,
        _ => Reason::OpcUaStatus,
    };
    Quality::with_detail(class, reason, detail)
}

/// Whether the server's queue overflowed before (or, as some count it, after) this value. Bits 10-11: these are a value's
/// bits; bit 7: overflow.
pub(super) fn is_overflow(status: StatusCode) -> bool {
    status.bits() & 0x0c80 == 0x0480
}

/// Why a request failed as a whole.
pub(super) fn failure(error: &Error, timeout: Duration) -> DriverError {
    match error.status() {
        StatusCode::BadTimeout => DriverError::Silent(timeout),
        StatusCode::BadNotConnected => {
            // The library's texts begin with the status's own name and number.
            let text = error.to_string();
            DriverError::NotConnected(text.split_once(": ").map_or(text.clone(), |(_, why)| why.to_owned()))
        }
        code => status(code, &error.to_string()),
    }
}

/// The same for a status.
pub(super) fn status(status: StatusCode, text: &str) -> DriverError {
    let text = if text.is_empty() { status.to_string() } else { text.to_owned() };
    match status {
        StatusCode::BadConnectionClosed
        | StatusCode::BadConnectionRejected
        | StatusCode::BadCommunicationError
        | StatusCode::BadSessionIdInvalid
        | StatusCode::BadSessionClosed
        | StatusCode::BadSecureChannelClosed
        | StatusCode::BadSecureChannelIdInvalid
        | StatusCode::BadServerNotConnected
        | StatusCode::BadServerHalted
        | StatusCode::BadShutdown => DriverError::NotConnected(text),
        StatusCode::BadDecodingError
        | StatusCode::BadEncodingLimitsExceeded
        | StatusCode::BadUnexpectedError
        | StatusCode::BadUnknownResponse
        | StatusCode::BadSequenceNumberInvalid
        | StatusCode::BadSecureChannelTokenUnknown
        | StatusCode::BadTcpMessageTypeInvalid
        | StatusCode::BadTcpMessageTooLarge => DriverError::Malformed(text),
        StatusCode::BadUserAccessDenied
        | StatusCode::BadIdentityTokenInvalid
        | StatusCode::BadIdentityTokenRejected => {
            DriverError::Denied(format!("the server refuses the login: {text}"))
        }
        StatusCode::BadSecurityChecksFailed
        | StatusCode::BadCertificateInvalid
        | StatusCode::BadCertificateUntrusted
        | StatusCode::BadCertificateUriInvalid
        | StatusCode::BadCertificateUseNotAllowed
        | StatusCode::BadCertificateTimeInvalid
        | StatusCode::BadCertificateChainIncomplete
        | StatusCode::BadSecurityPolicyRejected
        | StatusCode::BadSecurityModeRejected => {
            DriverError::Denied(format!("the server refuses the connection: {text}"))
        }
        _ => DriverError::Refused { reason: text, code: code(status) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_keep_their_numbers() {
        let quality_of = |bits: u32| quality(StatusCode::from(bits)).to_string();
        assert_eq!(quality_of(0), "good");
        assert_eq!(quality_of(0x0000_0400), "good"); // "these are a value's bits", none of them set
        assert_eq!(quality_of(0x0000_0480), "good:overflow");
        assert_eq!(quality_of(0x0096_0000), format!("good:opcua-status:{}", 0x0096));
        assert_eq!(quality_of(0x8034_0000), format!("bad:opcua-status:{}", 0x8034));
        assert_eq!(quality_of(0x801f_0000), format!("bad:access-denied:{}", 0x801f));
        assert_eq!(quality_of(0x8031_0000), format!("bad:not-connected:{}", 0x8031));
        assert_eq!(quality_of(0x4090_0000), format!("uncertain:opcua-status:{}", 0x4090));
        assert!(is_overflow(StatusCode::from(0x8034_0480)) && !is_overflow(StatusCode::from(0x0000_0080)));
    }
}
