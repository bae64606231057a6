//! Bodies, queries and paths as values; what is wrong with them is answered as JSON, and nothing
//! that a client sent is repeated but the names of fields.

use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The largest body in bytes: 10,000 rows of a bulk.
const BODY_MAX: usize = 8 << 20;

/// How long a body may take to come.
const BODY_TIME: Duration = Duration::from_secs(30);

/// A body of JSON.
pub(super) struct Body<T>(pub T);

/// The same for one that may be missing.
pub(super) struct MaybeBody<T>(pub Option<T>);

/// The part of the path, as text.
pub(super) struct PathText(pub String);

/// What follows the `?`.
pub(super) struct Query<T>(pub T);

// === impl Body and MaybeBody ===

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = collect(request).await?;
        if bytes.is_empty() {
            return Err(ApiError::invalid("expected a body of JSON"));
        }
        parse(&bytes).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for MaybeBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = collect(request).await?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        parse(&bytes).map(|body| Self(Some(body)))
    }
}

async fn collect(request: Request) -> Result<Vec<u8>, ApiError> {
    check_type(request.headers())?;
    let body = Limited::new(request.into_body(), BODY_MAX);
    let late = || {
        ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body took too long to come",
        )
    };
    let collected = tokio::time::timeout(BODY_TIME, body.collect());
    match collected.await.map_err(|_| late())? {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body must have at most {BODY_MAX} bytes"),
        )),
        Err(_) => Err(ApiError::invalid("the body broke off")),
    }
}

/// JSON, or not said: older clients send none.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let kind = value.to_str().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "expected Content-Type: application/json",
    ))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut parser).map_err(|error| {
        let path = error.path().to_string();
        let problem = describe(error.inner());
        ApiError::invalid(match path.as_str() {
            "." => problem,
            path => format!("{path}: {problem}"),
        })
    })?;
    parser
        .end()
        .map_err(|_| ApiError::invalid("there is more after the end of the JSON"))?;
    Ok(value)
}

/// What is wrong, without the value, which may be a secret.
fn describe(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    if error.classify() != Category::Data {
        return format!(
            "not JSON, at line {} column {}",
            error.line(),
            error.column()
        );
    }
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    match text.rsplit_once(", expected ") {
        Some((what, expected)) if what.starts_with("unknown field") => {
            format!("{what}, expected {expected}")
        }
        Some((_, expected)) => format!("expected {expected}"),
        None => text.to_owned(),
    }
}

// === impl PathText and Query ===

impl<S: Send + Sync> FromRequestParts<S> for PathText {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let unreadable = |_: PathRejection| ApiError::not_found("the path is not UTF-8 text");
        path.map(|path| Self(path.0)).map_err(unreadable)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        let wrong = |error: QueryRejection| {
            let text = error.body_text();
            let text = text.strip_prefix("Failed to deserialize query string: ");
            ApiError::invalid(text.unwrap_or("the query can't be read"))
        };
        query.map(|query| Self(query.0)).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // only its errors are looked at
    struct Row {
        id: u32,
        passkey: Option<String>,
    }

    fn error(body: &str) -> String {
        format!("{:?}", parse::<Row>(body.as_bytes()).unwrap_err())
    }

    #[test]
    fn errors_name_the_field_and_not_the_value() {
        assert!(error(r#"{"id": 1, "passkey": 12345678}"#).contains("passkey: expected a string"));
        assert!(error(r#"{"id": "secret"}"#).contains("id: expected u32"));
        assert!(!error(r#"{"id": "secret"}"#).contains("secret"));
        assert!(error(r#"{"id": -1}"#).contains("id: expected u32"));
        assert!(error("{}").contains("missing field `id`"));
        assert!(error(r#"{"ID": 1}"#).contains("unknown field `ID`, expected `id` or `passkey`"));
        assert!(error("{").contains("not JSON, at line 1 column 1"));
        assert!(error(r#"{"id": 1} x"#).contains("more after the end"));
    }
}
