//! The OpenAPI document, derived from the handlers.

use axum::Json;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi as Document, RefOr};
use utoipa::{Modify, OpenApi};

use super::{
    agents, auth, broker, broker_stream, commands, feed, health, history, live_stream, look, points,
    quarantine,
};

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
        auth::login, auth::logout, points::list, points::one, history::history, look::look, live_stream::live, agents::agents,
        agents::reconcile, commands::write, commands::recent, broker::status, broker::retained,
        broker_stream::messages, broker::disconnect, feed::feed, quarantine::list, quarantine::entry,
        quarantine::retry, quarantine::discard, quarantine::refuse, health::health, health::plant,
        health::metrics, document,
    ),
    modifiers(&Security, &UsualWords),
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

/// The standard wants words for every status; the usual ones stand here once.
struct UsualWords;

impl Modify for UsualWords {
    fn modify(&self, document: &mut Document) {
        for item in document.paths.paths.values_mut() {
            for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
                for (status, response) in &mut operation.responses.responses {
                    if let RefOr::T(response) = response
                        && response.description.is_empty()
                    {
                        response.description = usual_words(status).to_owned();
                    }
                }
            }
        }
    }
}

fn usual_words(status: &str) -> &'static str {
    match status {
        "400" => "A parameter or the body cannot be used",
        "401" => "Neither a session nor a token",
        "403" => "The header x-forebay: 1 is missing",
        "404" => "There is no such thing",
        "409" => "It is decided already, or still cannot be done",
        "500" => "The plant log cannot be read",
        "503" => "Too many of its kind at once",
        _ => "The answer",
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    fn document() -> Value {
        serde_json::to_value(super::build()).unwrap()
    }

    #[test]
    fn the_document_names_the_routes_and_no_others() {
        let document = document();
        let described: BTreeSet<&str> =
            document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        let served: BTreeSet<&str> = super::super::routes().into_iter().map(|(path, _)| path).collect();
        assert_eq!(described, served);
    }

    #[test]
    fn the_document_holds_together() {
        let document = document();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let mut operations = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap().to_owned();
                assert!(operations.insert(id), "{method} {path}: its operationId is used twice");
                assert!(!operation["responses"].as_object().unwrap().is_empty(), "{method} {path}");
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                let in_path: Vec<&str> =
                    parameters.filter(|p| p["in"] == "path").filter_map(|p| p["name"].as_str()).collect();
                assert_eq!(
                    in_path,
                    if path.contains('{') { vec!["path"] } else { vec![] },
                    "{method} {path}"
                );
            }
        }
        let mut references = Vec::new();
        collect(&document, &mut references);
        assert!(references.len() > 20);
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    }

    fn collect(value: &Value, references: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                references.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| collect(value, references));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, references)),
            _ => {}
        }
    }
}
