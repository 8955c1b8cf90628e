//! How values, times and qualities read in JSON, and how parameters are taken from requests.
//!
//! ```text
//! {"t":"2026-11-22T05:53:00.000000Z","v":21.5,"q":"good"}     numbers as numbers
//! {"t":…,"v":"18446744073709551615","q":"good"}               integers beyond 2^53 as text
//! {"t":…,"v":null,"special":"NaN","q":"good"}                 what JSON has no number for
//! {"t":…,"v":"AQID","q":"good"}                               bytes as base64
//! {"t":…,"v":null,"q":"bad:timeout"}                          no value
//! ```

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;
use model::{Quality, Timestamp, Value};
use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::errors::ApiError;

/// Integers up to here are exact in every JSON reader.
const EXACT_MAX: u64 = 1 << 53;
/// A body that has not come by then does not.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// One value of one point at one time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) time: Timestamp,
    pub(crate) value: Option<Value>,
    pub(crate) quality: Quality,
}

/// The shape of [`Reading`] for the document.
#[derive(ToSchema)]
#[schema(as = Reading)]
#[expect(dead_code, reason = "only its schema is used; Reading writes itself")]
pub(crate) struct ReadingSchema {
    /// Source time, ISO 8601 UTC with microseconds.
    t: String,
    /// Number, text, boolean or null; integers beyond 2^53 as text, bytes as base64, times as ISO 8601.
    #[schema(value_type = Option<serde_json::Value>)]
    v: Option<serde_json::Value>,
    /// `good`, `uncertain…`, `bad…` or `stale…`, with reason and detail: `bad:device-exception:2`.
    q: String,
    /// `NaN`, `Infinity` or `-Infinity`, when `v` is null for that reason.
    special: Option<String>,
}

impl Serialize for Reading {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.put(&mut map)?;
        map.end()
    }
}

impl Reading {
    /// Adds the fields to a map that is being written.
    pub(crate) fn put<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("t", &Text(self.time))?;
        map.serialize_entry("v", &Scalar(self.value.as_ref()))?;
        if let Some(special) = self.value.as_ref().and_then(special) {
            map.serialize_entry("special", special)?;
        }
        map.serialize_entry("q", &Text(self.quality))
    }
}

/// Anything that prints, as a JSON string.
struct Text<T>(T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A value as readings have it.
pub(crate) struct Scalar<'a>(pub(crate) Option<&'a Value>);

impl Serialize for Scalar<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let Some(value) = self.0 else { return s.serialize_none() };
        match value {
            Value::Int8(v) => s.serialize_i8(*v),
            Value::Int16(v) => s.serialize_i16(*v),
            Value::Int32(v) => s.serialize_i32(*v),
            Value::Int64(v) if v.unsigned_abs() > EXACT_MAX => s.collect_str(v),
            Value::Int64(v) => s.serialize_i64(*v),
            Value::UInt8(v) => s.serialize_u8(*v),
            Value::UInt16(v) => s.serialize_u16(*v),
            Value::UInt32(v) => s.serialize_u32(*v),
            Value::UInt64(v) if *v > EXACT_MAX => s.collect_str(v),
            Value::UInt64(v) => s.serialize_u64(*v),
            Value::Float(v) if v.is_finite() => s.serialize_f32(*v),
            Value::Double(v) if v.is_finite() => s.serialize_f64(*v),
            Value::Float(_) | Value::Double(_) => s.serialize_none(),
            Value::Boolean(v) => s.serialize_bool(*v),
            Value::String(v) => s.serialize_str(v),
            Value::DateTime(v) => s.collect_str(v),
            Value::Bytes(v) => s.serialize_str(&STANDARD.encode(v)),
        }
    }
}

/// The name of a number that JSON does not have.
pub(crate) fn special(value: &Value) -> Option<&'static str> {
    let number = match value {
        Value::Float(v) => f64::from(*v),
        Value::Double(v) => *v,
        _ => return None,
    };
    match number {
        n if n.is_nan() => Some("NaN"),
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    }
}

/// A time as a parameter: ISO 8601 with zone, or whole microseconds since 1970.
pub(crate) fn timestamp(name: &str, text: &str) -> Result<Timestamp, ApiError> {
    if let Ok(micros) = text.parse::<i64>() {
        return Ok(Timestamp(micros));
    }
    // A `+` of a zone arrives as a space when the caller forgot to encode it.
    DateTime::parse_from_rfc3339(&text.replace(' ', "+"))
        .map(|time| Timestamp(time.timestamp_micros()))
        .map_err(|_| {
            ApiError::bad(name, "must be a time such as 2026-11-22T05:53:00Z, or microseconds since 1970")
        })
}

/// A whole number within limits; the default where there is none.
pub(crate) fn within(
    name: &str,
    given: Option<u64>,
    default: u64,
    low: u64,
    high: u64,
) -> Result<u64, ApiError> {
    match given {
        None => Ok(default),
        Some(number) if (low..=high).contains(&number) => Ok(number),
        Some(_) => Err(ApiError::bad(name, format!("must be {low} to {high}"))),
    }
}

/// A text no longer than a limit.
pub(crate) fn at_most(name: &str, text: &str, bytes: usize) -> Result<(), ApiError> {
    if text.len() > bytes {
        Err(ApiError::bad(name, format!("must not have more than {bytes} bytes")))
    } else {
        Ok(())
    }
}

/// The query of a request; one that does not fit is answered in our own words.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => {
                Err(ApiError::bad("The query", format!("does not fit: {}", rejection.body_text())))
            }
        }
    }
}

/// A JSON body, by its content type.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind = request.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or("");
        if !kind.starts_with("application/json") {
            return Err(ApiError::bad("content-type", "must be application/json"));
        }
        let bytes = tokio::time::timeout(BODY_WITHIN, Bytes::from_request(request, state)).await;
        let bytes = bytes
            .map_err(|_| ApiError::bad("The body", "did not come in time"))?
            .map_err(|rejection| ApiError::bad("The body", format!("is refused: {rejection}")))?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| ApiError::bad("The body", format!("does not fit: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Reason;

    fn text(value: Value) -> String {
        let reading = Reading { time: Timestamp(0), value: Some(value), quality: Quality::GOOD };
        serde_json::to_string(&reading).unwrap().split_once("\"v\":").unwrap().1.to_owned()
    }

    #[test]
    fn values_read_as_the_contract_says() {
        assert_eq!(text(Value::Float(0.1)), r#"0.1,"q":"good"}"#);
        assert_eq!(text(Value::Double(-0.0)), r#"-0.0,"q":"good"}"#);
        assert_eq!(text(Value::UInt64(u64::MAX)), r#""18446744073709551615","q":"good"}"#);
        assert_eq!(text(Value::Int64(-9_007_199_254_740_992)), r#"-9007199254740992,"q":"good"}"#);
        assert_eq!(text(Value::Int64(i64::MIN)), r#""-9223372036854775808","q":"good"}"#);
        assert_eq!(text(Value::Float(f32::NAN)), r#"null,"special":"NaN","q":"good"}"#);
        assert_eq!(text(Value::Double(f64::NEG_INFINITY)), r#"null,"special":"-Infinity","q":"good"}"#);
        assert_eq!(text(Value::Bytes(vec![1, 2, 3])), r#""AQID","q":"good"}"#);
        assert_eq!(text(Value::DateTime(Timestamp(0))), r#""1970-01-01T00:00:00.000000Z","q":"good"}"#);
        assert_eq!(text(Value::String("Öl \"1\"".into())), r#""Öl \"1\"","q":"good"}"#);
        let none = Reading { time: Timestamp(0), value: None, quality: Quality::bad(Reason::Timeout) };
        let none = serde_json::to_string(&none).unwrap();
        assert_eq!(none, r#"{"t":"1970-01-01T00:00:00.000000Z","v":null,"q":"bad:timeout"}"#);
    }

    #[test]
    fn times_come_in_two_forms() {
        assert_eq!(timestamp("from", "1000").unwrap(), Timestamp(1000));
        assert_eq!(timestamp("from", "1970-01-01T01:00:00.000001 01:00").unwrap(), Timestamp(1));
        assert!(timestamp("from", "yesterday").is_err());
    }
}
