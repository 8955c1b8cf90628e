//! The HTTP request that becomes a WebSocket (RFC 6455 §4.2), from bytes to answer. No I/O.
//!
//! Any path will do. The subprotocol `mqtt` must be offered `[MQTT-6.0.0-3]` and is answered `[MQTT-6.0.0-4]`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// Bytes of a request's head at most; browsers send less than one KB, proxies add some.
pub(super) const HEAD_BYTES_MAX: usize = 4 * 1024;
/// Header lines at most.
const HEADERS_MAX: usize = 48;
/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A request that becomes a WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Upgrade {
    /// Bytes of the head; what follows are frames.
    pub(super) head_bytes: usize,
    /// The whole answer.
    pub(super) answer: String,
    /// A page that did not come from this host asks: whatever its browser brings along (a certificate, the right to be
    /// on this network) is not its own.
    pub(super) is_foreign: bool,
}

/// What to do with the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// More bytes are needed.
    Partial,
    /// Answer and go on with frames.
    Upgrade(Upgrade),
    /// Answer with this and close.
    Refused(&'static str),
}

const NOT_HTTP: &str = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
const TOO_LONG: &str =
    "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
const NO_UPGRADE: &str = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\nContent-Type: text/plain\r\nContent-Length: 30\r\n\r\n\
     This port speaks MQTT (ws://)\n";
const NO_SUBPROTOCOL: &str = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\
     Content-Length: 46\r\n\r\nSec-WebSocket-Protocol must offer \"mqtt\" here\n";

/// Reads a request's head.
pub(super) fn read(bytes: &[u8]) -> Head {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Head::Partial,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Head::Refused(TOO_LONG);
        }
        Err(_) => return Head::Refused(NOT_HTTP),
    };
    if request.method != Some("GET") || request.version != Some(1) {
        return Head::Refused(NOT_HTTP);
    }
    let headers = Headers(request.headers);
    let is_upgrade = headers.lists("upgrade", "websocket")
        && headers.lists("connection", "upgrade")
        && headers.lists("sec-websocket-version", "13");
    if !is_upgrade {
        return Head::Refused(NO_UPGRADE);
    }
    let Some(key) = headers.only("sec-websocket-key").filter(|key| is_key(key)) else {
        return Head::Refused(NOT_HTTP);
    };
    let Some(host) = headers.only("host") else { return Head::Refused(NOT_HTTP) };
    if !headers.lists("sec-websocket-protocol", "mqtt") {
        return Head::Refused(NO_SUBPROTOCOL);
    }
    let accept = STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
    Head::Upgrade(Upgrade { head_bytes, answer, is_foreign: headers.is_foreign(host) })
}

/// 16 random bytes in base64 (RFC 6455 §4.1).
fn is_key(key: &str) -> bool {
    STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

struct Headers<'a>(&'a [httparse::Header<'a>]);

impl<'a> Headers<'a> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a str> {
        let found = self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        found.filter_map(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    }

    /// The value of a header that is there once.
    fn only(&self, name: &'static str) -> Option<&'a str> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }

    /// Whether a header's list has a token.
    fn lists(&self, name: &'static str, token: &str) -> bool {
        self.all(name).flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    /// Whether an `Origin` is there that is not `host`; a browser always sends one, other clients need not.
    fn is_foreign(&self, host: &str) -> bool {
        let mut origins = self.all("origin").peekable();
        origins.peek().is_some()
            && !origins.all(|origin| {
                origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 6455 §1.3 with MQTT's subprotocol.
    const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

    fn upgrade(request: &str) -> Upgrade {
        match read(request.as_bytes()) {
            Head::Upgrade(upgrade) => upgrade,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_request_of_the_standard() {
        let with_frames = format!("{REQUEST}frames");
        let got = upgrade(&with_frames);
        assert_eq!(&with_frames[got.head_bytes..], "frames");
        assert!(got.answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(got.answer.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"), "[MQTT-6.0.0-4]");
        assert!(got.is_foreign);
        assert!(!upgrade(&REQUEST.replace("http://example.com", "https://SERVER.example.com")).is_foreign);
        assert!(upgrade(&REQUEST.replace("http://example.com", "null")).is_foreign);
        assert!(!upgrade(&REQUEST.replace("Origin: http://example.com\r\n", "")).is_foreign);
    }

    #[test]
    fn every_part_of_a_head_wants_more() {
        for end in 0..REQUEST.len() {
            assert_eq!(read(&REQUEST.as_bytes()[..end]), Head::Partial);
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_status() {
        let refused = |from: &str, to: &str| match read(REQUEST.replace(from, to).as_bytes()) {
            Head::Refused(answer) => answer.split(' ').nth(1).unwrap().to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(refused("chat, mqtt", "chat"), "400", "[MQTT-6.0.0-3]");
        assert_eq!(refused("Upgrade: websocket\r\n", ""), "426");
        assert_eq!(refused("Version: 13", "Version: 8"), "426");
        assert_eq!(refused("keep-alive, Upgrade", "keep-alive"), "426");
        assert_eq!(refused("GET", "POST"), "400");
        assert_eq!(refused("HTTP/1.1", "HTTP/1.0"), "400");
        assert_eq!(refused("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), "400");
        assert_eq!(refused("Host: server.example.com\r\n", ""), "400");
        assert_eq!(refused("Host: ", "\0: "), "400");
        let many = "X: y\r\n".repeat(HEADERS_MAX);
        assert_eq!(refused("Host: ", &format!("{many}Host: ")), "431");
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(HEAD_BYTES_MAX));
        assert_eq!(read(long.as_bytes()), Head::Refused(TOO_LONG));
        assert_eq!(read(b"\x10\x0c\x00\x04MQTT"), Head::Refused(NOT_HTTP), "MQTT on a WebSocket port");
        for answer in [NO_UPGRADE, NO_SUBPROTOCOL] {
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
        }
    }
}
