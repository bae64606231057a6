//! Who may ask: a name and password, or a token with a scope.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::{Choice, ConstantTimeEq};

use super::Api;
use super::error::ApiError;
use crate::secret::Secret;

/// Wrong credentials that one network (a /24 or /48) may send in a minute.
const FAILURES_A_MINUTE: u32 = 30;

/// How long whoever sent wrong credentials waits for the answer, wherever they are.
const FAILURE_DELAY: Duration = Duration::from_millis(100);

/// The longest value of `Authorization` that is looked at, in bytes.
const AUTHORIZATION_MAX: usize = 1024;

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything but changes.
    Read,
    /// Everything.
    Write,
}

/// A token that a program sends in place of name and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What the log calls whoever has it.
    pub name: String,
    pub token: Secret,
    pub scope: Scope,
}

/// All that opens the API. With nothing in it, it is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Empty for any name.
    pub username: String,
    /// Empty for none: then only tokens count.
    pub password: Secret,
    pub tokens: Vec<Token>,
}

/// Who asks, for the log.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub String);

/// Lets a request through if it may do what it asks for.
pub(super) async fn guard(
    State(api): State<Arc<Api>>,
    mut request: Request,
    next: Next,
) -> Response {
    let source = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|it| it.0.ip().to_canonical());
    match admit(&api, &request, source) {
        Ok(caller) => {
            request.extensions_mut().insert(caller.clone());
            let mut response = next.run(request).await;
            response.extensions_mut().insert(caller);
            response
        }
        Err(error) => {
            if request.headers().contains_key(header::AUTHORIZATION) {
                tokio::time::sleep(FAILURE_DELAY).await;
            }
            let mut response = error.into_response();
            if response.status() == StatusCode::UNAUTHORIZED {
                let challenge = HeaderValue::from_static(r#"Basic realm="mika", charset="UTF-8""#);
                let headers = response.headers_mut();
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            response
        }
    }
}

fn admit(api: &Api, request: &Request, source: Option<IpAddr>) -> Result<Caller, ApiError> {
    let needed = match *request.method() {
        Method::GET | Method::HEAD | Method::OPTIONS => Scope::Read,
        _ => Scope::Write,
    };
    if needed == Scope::Write {
        refuse_other_sites(request.headers())?;
    }
    let credentials = api.credentials.load();
    if credentials.is_empty() {
        return Ok(Caller("anybody".into()));
    }
    let authorization = request.headers().get(header::AUTHORIZATION);
    // Looked at before the password is, which would be told by the answer else. Tokens are too long
    // to be guessed, so those who have one are not locked out by their neighbours.
    if authorization.is_some_and(|value| !is_token(value)) && has_failed_often(api, source) {
        let message = "too many wrong credentials from your network; wait a minute";
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, message);
        return Err(error.retry_after(60));
    }
    let Some((caller, scope)) = authorization.and_then(|value| credentials.of(value)) else {
        // Those who sent nothing only have to be asked.
        if let (Some(_), Some(source)) = (authorization, limited(source)) {
            let _ = api.failures.allows(source, FAILURES_A_MINUTE, minute(api));
        }
        let message = "name and password, or a token, are wrong or missing";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, message));
    };
    if scope < needed {
        let message = "this token may only read";
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    Ok(Caller(caller))
}

fn is_token(authorization: &HeaderValue) -> bool {
    let scheme = authorization.as_bytes().get(..7);
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
}

fn has_failed_often(api: &Api, source: Option<IpAddr>) -> bool {
    let source = limited(source);
    source.is_some_and(|it| api.failures.is_reached(it, FAILURES_A_MINUTE, minute(api)))
}

/// Whoever is on this host could as well read the config, and may be a proxy that stands for
/// everybody.
fn limited(source: Option<IpAddr>) -> Option<IpAddr> {
    source.filter(|source| !source.is_loopback())
}

fn minute(api: &Api) -> u32 {
    api.sources.clock.now().mono.0 / 60
}

/// A browser that is logged in must not change anything because another site tells it to.
fn refuse_other_sites(headers: &HeaderMap) -> Result<(), ApiError> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let is_foreign = site.is_some_and(|site| site != b"same-origin" && site != b"none");
    if is_foreign {
        let message = "changes are not taken from the pages of other sites";
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    Ok(())
}

// === impl Credentials ===

impl Credentials {
    fn is_empty(&self) -> bool {
        self.password.is_empty() && self.tokens.is_empty()
    }

    /// Who sends that value of `Authorization`, and what they may do. It takes as long for whatever is
    /// wrong with it.
    fn of(&self, value: &HeaderValue) -> Option<(String, Scope)> {
        let value = value.as_bytes();
        if value.len() > AUTHORIZATION_MAX {
            return None;
        }
        let space = value.iter().position(|&byte| byte == b' ')?;
        let (scheme, rest) = (&value[..space], value[space..].trim_ascii());
        if scheme.eq_ignore_ascii_case(b"basic") {
            self.of_basic(rest)
        } else if scheme.eq_ignore_ascii_case(b"bearer") {
            self.of_token(rest)
        } else {
            None
        }
    }

    fn of_basic(&self, encoded: &[u8]) -> Option<(String, Scope)> {
        let pair = STANDARD.decode(encoded).ok()?;
        let colon = pair.iter().position(|&byte| byte == b':')?;
        let (name, password) = (&pair[..colon], &pair[colon + 1..]);
        if self.password.is_empty() {
            return None;
        }
        let any_name = Choice::from(u8::from(self.username.is_empty()));
        let right_name = any_name | name.ct_eq(self.username.as_bytes());
        let right = right_name & password.ct_eq(self.password.expose().as_bytes());
        let shown = String::from_utf8_lossy(name);
        bool::from(right).then(|| (shown.chars().take(64).collect(), Scope::Write))
    }

    fn of_token(&self, given: &[u8]) -> Option<(String, Scope)> {
        // All of them are looked at, so that the time does not tell which came near.
        let mut found = None;
        for token in &self.tokens {
            if bool::from(given.ct_eq(token.token.expose().as_bytes())) {
                found = Some(token);
            }
        }
        found.map(|token| (token.name.clone(), token.scope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        let token = |name: &str, scope| Token {
            name: name.into(),
            token: Secret::new(format!("token-of-{name}")),
            scope,
        };
        Credentials {
            username: "site".into(),
            password: Secret::new("pass:word"),
            tokens: vec![token("grafana", Scope::Read), token("shop", Scope::Write)],
        }
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    fn of(credentials: &Credentials, value: &str) -> Option<(String, Scope)> {
        credentials.of(&HeaderValue::from_str(value).unwrap())
    }

    #[test]
    fn name_and_password_or_a_token_open() {
        let known = credentials();
        let site = Some(("site".into(), Scope::Write));
        assert_eq!(of(&known, &basic("site:pass:word")), site);
        assert_eq!(
            of(&known, &basic("site:pass:word").replace("Basic", "bAsIc")),
            site
        );
        let grafana = Some(("grafana".into(), Scope::Read));
        assert_eq!(of(&known, "Bearer token-of-grafana"), grafana);
        let any_name = Credentials {
            username: String::new(),
            ..known
        };
        assert!(of(&any_name, &basic("whoever:pass:word")).is_some());
    }

    #[test]
    fn nothing_else_does() {
        let known = credentials();
        for wrong in [
            basic("site:pass"),
            basic("site:pass:word "),
            basic("Site:pass:word"),
            basic(":pass:word"),
            basic("site"),
            "Basic !".into(),
            "Basic".into(),
            "Bearer token-of-".into(),
            "Bearer ".into(),
            "Digest site:pass:word".into(),
            format!("Bearer {}", "x".repeat(AUTHORIZATION_MAX)),
        ] {
            assert_eq!(of(&known, &wrong), None, "{wrong}");
        }
        let no_password = Credentials {
            password: Secret::default(),
            ..credentials()
        };
        assert_eq!(of(&no_password, &basic("site:")), None);
    }
}
