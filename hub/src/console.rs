//! The page: the files of `web/dist`, built by npm and embedded in the binary.
//!
//! It knows names and bytes only. A binary built without them answers with a page that says how to build them.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "../web/dist"]
struct Dist;

/// Files under this folder have a hash of their content in their name.
const HASHED: &str = "assets/";

const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Forebay</title>\
    <h1>This build has no console</h1>\
    <p>The hub and its API work; the page was not built into this binary. In the source folder, run \
    <code>cd web &amp;&amp; npm ci &amp;&amp; npm run build</code> and build the binary again (<code>make build</code> \
    does both).</p><p>The API is described at <code>/api/v1/openapi.json</code>.</p></html>";

/// Whether the binary holds the page.
#[must_use]
pub fn is_built() -> bool {
    Dist::get("index.html").is_some()
}

/// The page itself.
pub(crate) fn page() -> Response {
    file("index.html").unwrap_or_else(|| {
        let html = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
        (StatusCode::OK, html, NOT_BUILT).into_response()
    })
}

/// A file of the page by its path without the leading `/`; `None` if there is none of that name.
pub(crate) fn file(path: &str) -> Option<Response> {
    let found = Dist::get(path)?;
    let kind = mime_guess::from_path(path).first_or_octet_stream();
    let kind = HeaderValue::from_str(kind.as_ref()).ok()?;
    let kept = if path.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, HeaderValue::from_static(kept))];
    let body = match found.data {
        std::borrow::Cow::Borrowed(bytes) => Body::from(bytes),
        std::borrow::Cow::Owned(bytes) => Body::from(bytes),
    };
    Some((headers, body).into_response())
}
