//! Extractors for bodies, queries and paths. Errors are JSON, and repeat nothing of what a client sent
//! except field names.

use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use super::error::ApiError;

/// The largest body in bytes: enough for a bulk of 10,000 rows.
const BODY_MAX: usize = 8 << 20;

/// The timeout for receiving a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON body.
pub(super) struct JsonBody<T>(pub T);

/// A JSON body that may be missing.
pub(super) struct MaybeBody<T>(pub Option<T>);

/// The parameter of the path, as text.
pub(super) struct PathText(pub String);

/// The query string.
pub(super) struct Query<T>(pub T);

/// A whole number, also written as 5.0: to JSON Schema both are integers.
pub(super) fn whole<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let number = serde_json::Number::deserialize(deserializer);
    let expected = || D::Error::custom(", expected a whole number that is not too large");
    let number = number.map_err(|_| expected())?;
    let whole = number.as_u64().or_else(|| {
        let float = number.as_f64()?;
        let is_whole = float.fract() == 0.0 && (0.0..=u64::MAX as f64).contains(&float);
        is_whole.then_some(float as u64)
    });
    whole
        .and_then(|whole| whole.try_into().ok())
        .ok_or_else(expected)
}

/// A whole number that may be missing, or null.
pub(super) fn whole_if_any<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Whole<T: TryFrom<u64>>(#[serde(deserialize_with = "whole")] T);
    let number = Option::<Whole<T>>::deserialize(deserializer)?;
    Ok(number.map(|number| number.0))
}

// === impl JsonBody and MaybeBody ===

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let MaybeBody(body) = MaybeBody::from_request(request, state).await?;
        let missing = || ApiError::invalid("expected a JSON body");
        body.map(Self).ok_or_else(missing)
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
            "the body took too long to arrive",
        )
    };
    let collected = tokio::time::timeout(BODY_TIMEOUT, body.collect());
    match collected.await.map_err(|_| late())? {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body must have at most {BODY_MAX} bytes"),
        )),
        Err(_) => Err(ApiError::invalid("the body is incomplete")),
    }
}

/// Accepts JSON, and requests without a type: older clients send none.
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

/// Describes the error without the value, which may be a secret.
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
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // only its errors are looked at
    struct Row {
        #[serde(deserialize_with = "whole")]
        id: u32,
        #[serde(default, deserialize_with = "whole_if_any")]
        total: Option<u64>,
        passkey: Option<String>,
    }

    fn error(body: &str) -> String {
        format!("{:?}", parse::<Row>(body.as_bytes()).unwrap_err())
    }

    #[test]
    fn errors_name_the_field_and_not_the_value() {
        assert!(error(r#"{"id": 1, "passkey": 12345678}"#).contains("passkey: expected a string"));
        assert!(error(r#"{"id": "secret"}"#).contains("id: expected a whole number"));
        assert!(!error(r#"{"id": "secret"}"#).contains("secret"));
        assert!(error(r#"{"id": -1}"#).contains("id: expected a whole number"));
        assert!(error(r#"{"id": 1.5}"#).contains("id: expected a whole number"));
        assert!(error(r#"{"id": 4294967296}"#).contains("id: expected a whole number"));
        assert!(error(r#"{"id": 1, "total": "x"}"#).contains("total: expected a whole number"));
        assert!(error("{}").contains("missing field `id`"));
        assert!(
            error(r#"{"ID": 1}"#)
                .contains("unknown field `ID`, expected one of `id`, `total`, `passkey`")
        );
        let row = parse::<Row>(br#"{"id": 7.0, "total": null}"#).unwrap();
        assert_eq!((row.id, row.total), (7, None));
        assert!(error("{").contains("not JSON, at line 1 column 1"));
        assert!(error(r#"{"id": 1} x"#).contains("more after the end"));
    }
}
