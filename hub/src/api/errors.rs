//! What the API answers when it does not do what was asked: a status, a code, a message and a remedy.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::host::LookError;
use crate::store::LetterError;

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// Neither a session nor a token.
    #[error("Sign in first.")]
    SignInFirst,
    /// A password or token that is not the right one.
    #[error("That is not the password.")]
    WrongPassword,
    /// Too many wrong passwords from that address.
    #[error("Too many wrong passwords from your address.")]
    TooManyWrong {
        /// Try again after so many seconds.
        wait_seconds: u64,
    },
    /// A change asked for by a cookie alone: it may be another site that asks.
    #[error("A change needs the header x-forebay: 1.")]
    HeaderMissing,
    /// A parameter, header or body that cannot be used.
    #[error("{name} {rule}.")]
    Bad {
        /// Which.
        name: String,
        /// What it must be.
        rule: String,
    },
    /// No such thing.
    #[error("There is no {what}.")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The path is right, the method is not.
    #[error("This path does not take that method.")]
    Method,
    /// As many of its kind as may be at once.
    #[error("The hub answers as many {what} as it may at once.")]
    Busy {
        /// Of what there are too many.
        what: &'static str,
    },
    /// Another bridge reads for this sink.
    #[error("Sink {sink} is served by another bridge, {holder}, which asked {seen_s_ago} s ago.")]
    SinkTaken {
        /// The sink.
        sink: String,
        /// Who serves it.
        holder: String,
        /// When it last asked.
        seen_s_ago: u64,
    },
    /// Clients, topics and messages of an outside broker are its own business.
    #[error("The hub uses an outside MQTT broker; only that broker knows its clients and messages.")]
    OutsideBroker,
    /// The hub's own broker does not answer.
    #[error("The hub's broker does not answer: {0}.")]
    Broker(#[from] crate::broker::BrokerError),
    /// An entry of the quarantine.
    #[error("{0}.")]
    Letter(#[from] LetterError),
    /// A look at a point.
    #[error("{0}.")]
    Look(#[from] LookError),
    /// The plant log cannot be read.
    #[error("The plant log cannot be read: {0}")]
    Log(#[from] durable_log::LogError),
    /// A bug of ours.
    #[error("The hub made a mistake: {0}")]
    Internal(String),
}

/// The body of an error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorText,
}

/// What is wrong, for programs and for people.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorText {
    /// Stable word.
    code: &'static str,
    /// What is wrong.
    message: String,
    /// What to do about it.
    remedy: String,
}

impl ApiError {
    /// A parameter that cannot be used.
    pub(crate) fn bad(name: impl Into<String>, rule: impl Into<String>) -> Self {
        Self::Bad { name: name.into(), rule: rule.into() }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::SignInFirst | Self::WrongPassword => StatusCode::UNAUTHORIZED,
            Self::TooManyWrong { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::HeaderMissing => StatusCode::FORBIDDEN,
            Self::Bad { .. } => StatusCode::BAD_REQUEST,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Letter(LetterError::Unknown(_)) => StatusCode::NOT_FOUND,
            Self::Letter(LetterError::Store(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Look(LookError::Silent(_) | LookError::Busy) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Letter(_) | Self::Look(_) | Self::OutsideBroker | Self::SinkTaken { .. } => {
                StatusCode::CONFLICT
            }
            Self::Busy { .. } | Self::Broker(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Log(_) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::SignInFirst => "sign-in-first",
            Self::WrongPassword => "wrong-password",
            Self::TooManyWrong { .. } => "too-many-wrong",
            Self::HeaderMissing => "header-missing",
            Self::Bad { .. } => "bad-request",
            Self::NotFound { .. } => "not-found",
            Self::Method => "method",
            Self::Busy { .. } => "busy",
            Self::OutsideBroker => "outside-broker",
            Self::Letter(error) => match error {
                LetterError::Unknown(_) => "not-found",
                LetterError::Ended { .. } => "already-decided",
                LetterError::Still { .. } => "still-undecodable",
                LetterError::NoRecord(..) => "no-such-record",
                LetterError::Full { .. } => "quarantine-full",
                LetterError::Store(_) => "not-writable",
            },
            Self::SinkTaken { .. } => "sink-taken",
            Self::Broker(_) => "broker",
            Self::Look(error) => match error {
                LookError::NotThere(_) => "agent-not-there",
                LookError::Silent(_) => "agent-silent",
                LookError::Unknown(_) => "not-read",
                LookError::Busy => "busy",
            },
            Self::Log(_) => "log",
            Self::Internal(_) => "internal",
        }
    }

    fn remedy(&self) -> String {
        match self {
            Self::SignInFirst => {
                "Send `authorization: Bearer TOKEN`, or sign in at /; the token is in `token` in the hub's data folder."
            }
            Self::WrongPassword => "The token is in the file `token` in the hub's data folder.",
            Self::TooManyWrong { wait_seconds } => return format!("Try again in {wait_seconds} s."),
            Self::HeaderMissing => "Send the header, or use a Bearer token instead of the cookie.",
            Self::Bad { .. } | Self::Method => "See /api/v1/openapi.json for what it must be.",
            Self::NotFound { .. } => "GET /api/v1/points lists the points; /api/v1/openapi.json the paths.",
            Self::Busy { .. } | Self::Broker(_) => "Try again in a moment.",
            Self::SinkTaken { .. } => {
                "Stop one of the two, or give one of the sinks another name. The seat is free 60 s after the other bridge has fallen silent."
            }
            Self::OutsideBroker => "Look at that broker's own tools; `[hub.broker]` in the configuration says which it is.",
            Self::Letter(error) => match error {
                LetterError::Unknown(_) => "`forebay quarantine list --all` names those that are there.",
                LetterError::Ended { .. } => "There is nothing left to do about it.",
                LetterError::Still { .. } => "Remove the cause and retry, or discard it with a reason.",
                LetterError::NoRecord(..) => "The hub's log may have been replaced; the bridge opens it anew by itself.",
                LetterError::Full { .. } => {
                    "Look at them with `forebay quarantine list`; if all have one cause, the table is what must change."
                }
                LetterError::Store(_) => "Try again when the hub can write; its health says why it cannot.",
            },
            Self::Look(error) => match error {
                LookError::NotThere(_) => "GET /api/v1/agents says which agents are there and which tell of their devices.",
                LookError::Silent(_) | LookError::Busy => "Try again in a moment.",
                LookError::Unknown(_) => "The point list of its device has changed; its history stays.",
            },
            Self::Log(_) => "Look at the hub's log lines, and run `forebay log verify` on its plant-log folder.",
            Self::Internal(_) => "Please report it with the hub's log lines.",
        }
        .to_owned()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match &self {
            Self::Log(_) | Self::Internal(_) => tracing::error!(error = %self, "request failed"),
            _ => {}
        }
        let text = ErrorText { code: self.code(), message: self.to_string(), remedy: self.remedy() };
        let mut response = (self.status(), Json(ErrorBody { error: text })).into_response();
        if let Self::TooManyWrong { wait_seconds } = self {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait_seconds));
        }
        response
    }
}
