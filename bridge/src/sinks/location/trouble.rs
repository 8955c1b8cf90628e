//! What an object store's error means, in words that say what to do; without what changes from try to try (so that it is
//! told once) and without anything secret.

use super::super::{SinkError, in_one_line};

/// What stores say, in their codes, and what a person does about it. The first that fits.
const MEANINGS: [(&[&str], &str); 12] = [
    (
        &["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"],
        "the bucket or container does not exist: create it, or correct `path`",
    ),
    (
        &["RequestTimeTooSkewed", "RequestTimeSkewed"],
        "the clocks of this machine and of the store differ too much: set the time (NTP)",
    ),
    (
        &[
            "AuthorizationHeaderMalformed",
            "PermanentRedirect",
            "IllegalLocationConstraint",
            "BareRedirect",
            "without LOCATION",
            "bare redirect",
        ],
        "the bucket is in another region: write it as `region`, or correct `endpoint`",
    ),
    (
        &["InvalidAccessKeyId", "InvalidClientTokenId"],
        "the store does not know this access key: check `credentials_file` or the environment",
    ),
    (
        &["SignatureDoesNotMatch", "AuthenticationFailed", "InvalidAuthenticationInfo"],
        "the secret does not belong to this key (or the clock is wrong): check `credentials_file` or the environment",
    ),
    (&["ExpiredToken", "TokenRefreshRequired", "invalid_grant"], "the credentials have expired: renew them"),
    (
        &[
            "AccessDenied",
            "AuthorizationPermissionMismatch",
            "AuthorizationFailure",
            "Forbidden",
            "status code: 403",
        ],
        "access is denied: allow this key to list, read, write and delete there",
    ),
    (
        &["Unauthenticated", "Unauthorized", "status code: 401"],
        "the store wants credentials: write `credentials_file` or set them in the environment",
    ),
    (
        &["SlowDown", "ServerBusy", "TooManyRequests", "status code: 429", "status code: 503"],
        "the store is busy; it is tried again",
    ),
    (
        &["169.254.169.254", "metadata.google.internal", "instance metadata", "metadata server"],
        "no credentials were found: write `credentials_file`, or set them in the environment",
    ),
    (
        &["dns error", "failed to lookup"],
        "the host's name is unknown: check `endpoint`, `account` and `region`, and this machine's DNS",
    ),
    (
        &["Connection refused", "tcp connect error", "timed out", "operation timed out"],
        "the store cannot be reached: check `endpoint` and the network",
    ),
];

/// The error of a store, for people.
pub(crate) fn unavailable(doing: &str, error: &(dyn std::error::Error + 'static)) -> SinkError {
    SinkError::unavailable(doing, explained(&in_one_line(error)))
}

/// An error's text with its meaning.
fn explained(text: &str) -> String {
    let meaning = MEANINGS.iter().find(|(codes, _)| codes.iter().any(|code| text.contains(code)));
    let text = short(text);
    match meaning {
        Some((_, meaning)) => format!("{meaning} ({text})"),
        None => text,
    }
}

/// Without figures of the try, without the rest of an XML answer, without signatures.
fn short(text: &str) -> String {
    let mut text = without_secrets(text);
    if let (Some(code), Some(start)) = (tagged(&text, "Code"), text.find('<')) {
        let message = tagged(&text, "Message").unwrap_or_default();
        let message = message.lines().next().unwrap_or_default().to_owned();
        text.truncate(start);
        text = format!(
            "{}{code} {message}",
            text.trim_end_matches(' ').trim_end_matches("Error").to_owned() + " "
        );
    }
    // "… in 12.3ms, after 4 retries, max_retries: 4, retry_timeout: 20s  - …"
    while let Some((start, end)) = timing(&text) {
        text.replace_range(start..end, "");
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn timing(text: &str) -> Option<(usize, usize)> {
    let mut from = 0;
    while let Some(found) = text.get(from..)?.find(" in ") {
        let start = from + found;
        let rest = text.get(start + 4..)?;
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            let end = rest.find(" - ").map_or(text.len(), |at| start + 4 + at);
            return Some((start, end));
        }
        from = start + 4;
    }
    None
}

fn tagged(text: &str, tag: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{tag}>"))?;
    rest.split_once(&format!("</{tag}>")).map(|(inner, _)| inner.to_owned())
}

/// Signatures and tokens in URLs: their values go.
fn without_secrets(text: &str) -> String {
    let mut text = text.to_owned();
    for name in [
        "sig=",
        "Signature=",
        "X-Amz-Credential=",
        "X-Amz-Security-Token=",
        "access_token=",
        "client_secret=",
    ] {
        let mut from = 0;
        while let Some(found) = text.get(from..).and_then(|rest| rest.find(name)) {
            let start = from + found + name.len();
            let end = text
                .get(start..)
                .and_then(|rest| rest.find(|c: char| c == '&' || c == ')' || c == '"' || c.is_whitespace()))
                .map_or(text.len(), |at| start + at);
            text.replace_range(start..end, "…");
            from = start;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_says_becomes_what_to_do_and_is_the_same_at_each_try() {
        let said = |took: &str, id: &str| {
            format!(
                "Generic S3 error: Error performing PUT http://127.0.0.1:5000/lake/x in {took}, after 4 retries, max_retries: 4, \
                 retry_timeout: 20s  - Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?><Error>\
                 <Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message><RequestId>{id}</RequestId></Error>"
            )
        };
        let one = explained(&said("1.234567s", "A"));
        assert_eq!(one, explained(&said("7.1s", "B")));
        assert!(one.starts_with("the clocks of this machine and of the store differ"), "{one}");
        assert!(one.ends_with("403 Forbidden: RequestTimeTooSkewed The difference is too large.)"), "{one}");
    }

    #[test]
    fn signatures_are_not_told() {
        let text =
            "error sending request for url (https://a.blob.core.windows.net/c/x?sv=2024&sig=SECRET%3D&se=1)";
        assert!(!explained(text).contains("SECRET"), "{}", explained(text));
        assert!(explained(text).contains("se=1"));
    }
}
