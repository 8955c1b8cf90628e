//! The OpenAPI document, derived from the handlers.

use axum::Json;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{agents, auth, commands, feed, health, history, live_stream, points};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Forebay hub",
        description = "Live values, history, agents, the account of every sample, commands, and the feed for bridges. \
            Errors are `{error: {code, message, remedy}}`. Everything but health and login needs the hub's token as \
            `Authorization: Bearer …` or a session; changes asked for with a session need the header `x-forebay: 1`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        auth::login, auth::logout, points::list, points::one, history::history, live_stream::live, agents::agents,
        agents::reconcile, commands::write, commands::recent, feed::feed, health::health, health::plant,
        health::metrics, document,
    ),
    modifiers(&Security),
    security(("token" = []), ("session" = [])),
)]
struct Described;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let token =
            HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("The hub's token.")).build();
        components.add_security_scheme("token", SecurityScheme::Http(token));
        let cookie = ApiKeyValue::with_description("forebay_session", "Set by /api/v1/login.");
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

/// The document.
pub(crate) fn build() -> Document {
    Described::openapi()
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "plant",
    responses((status = 200, content_type = "application/json", body = serde_json::Value)))]
pub(crate) async fn document() -> Json<Document> {
    Json(build())
}
