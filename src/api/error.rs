//! Error responses, which are always JSON.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::storage::StorageError;
use crate::sync::edit::EditError;

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
    /// Seconds after which to try again.
    retry_after: Option<u32>,
}

/// The body of every answer that says no.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct ErrorBody {
    /// The HTTP status.
    #[schema(example = 404)]
    code: u16,
    /// The status in words.
    #[schema(example = "not found")]
    error: String,
    /// What is wrong, and what to do about it.
    #[schema(example = "torrent 0123456789abcdef0123456789abcdef01234567 not found")]
    message: String,
}

/// What every route behind the login may answer.
#[derive(IntoResponses)]
#[allow(dead_code)] // only its attributes are used, by the document
pub(super) enum CommonErrors {
    /// No or wrong credentials
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// The token may not do that, or a browser was sent here by another site
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// The API is not served under the name in `Host`
    #[response(status = 421)]
    Misdirected(ErrorBody),
    /// Too many wrong credentials from this network; `Retry-After` says when to try again
    #[response(status = 429)]
    TooManyRequests(ErrorBody),
    /// Something that should not happen; the log says more
    #[response(status = 500)]
    Internal(ErrorBody),
    /// Storage can't be reached now
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

/// What every route that takes a body may answer.
#[derive(IntoResponses)]
#[allow(dead_code)] // only its attributes are used, by the document
pub(super) enum BadBody {
    /// Not JSON, or not what is expected
    #[response(status = 400)]
    BadRequest(ErrorBody),
    /// The body took too long to arrive
    #[response(status = 408)]
    Timeout(ErrorBody),
    /// The body is too large
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// `Content-Type` says that the body is not JSON
    #[response(status = 415)]
    WrongType(ErrorBody),
}

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            retry_after: None,
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// An unexpected error, which is logged.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "a request to the API failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the log says what happened",
        )
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn retry_after(self, seconds: u32) -> Self {
        Self {
            retry_after: Some(seconds),
            ..self
        }
    }
}

/// The body of a response with that status.
pub(super) fn body_of(status: StatusCode, message: String) -> ErrorBody {
    ErrorBody {
        code: status.as_u16(),
        error: status
            .canonical_reason()
            .unwrap_or("error")
            .to_ascii_lowercase(),
        message,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = body_of(self.status, self.message);
        let mut response = (self.status, axum::Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Duplicate(_) => Self::conflict(error.to_string()),
            StorageError::Invalid(problem) => Self::invalid(problem),
            StorageError::NotFound(_) => Self::not_found(error.to_string()),
            StorageError::Unsupported(_) => {
                Self::new(StatusCode::NOT_IMPLEMENTED, error.to_string())
            }
            // The caller may know that, but not how the database is reached.
            StorageError::Away(problem) => {
                tracing::warn!(problem, "the API can't reach storage");
                let message = "storage can't be reached now; the log says why";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(5)
            }
            // `Behind` concerns the journal, which the API does not write.
            StorageError::Broken(_) | StorageError::Behind { .. } => {
                let problem = error.to_string();
                tracing::error!(problem, "storage can't do what the API asks");
                let message = "storage can't do it; the log says why";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
            }
        }
    }
}

impl From<EditError> for ApiError {
    fn from(error: EditError) -> Self {
        match error {
            EditError::Invalid(problem) => Self::invalid(problem),
            EditError::Storage(error) => error.into(),
        }
    }
}
