//! Authentication: a name and password, or a token with a scope.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use subtle::{Choice, ConstantTimeEq};

use super::Api;
use super::error::ApiError;
use crate::base::secret::Secret;

/// Wrong credentials that one network (a /24 or /48) may send in a minute.
const FAILURES_A_MINUTE: u32 = 30;

/// The delay of every response to wrong credentials.
const FAILURE_DELAY: Duration = Duration::from_millis(100);

/// The longest accepted value of `Authorization`, in bytes.
const AUTHORIZATION_MAX: usize = 1024;

/// What the log calls a caller who uses the password, if the config has no username.
const UNNAMED: &str = "password";

/// What a caller may do; each scope includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessScope {
    /// Read `/metrics` and `/api/stats`.
    Metrics,
    /// Read everything but passkeys.
    Read,
    /// Everything.
    Write,
}

/// A token that a program sends in place of name and password.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The caller's name in the log.
    pub name: String,
    pub token: Secret,
    pub scope: AccessScope,
}

/// The credentials that the API accepts. Without any, it is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// If empty, any name will do.
    pub username: String,
    /// Empty for none: then only tokens are accepted.
    pub password: Secret,
    pub tokens: Vec<Token>,
}

/// The authenticated caller.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The name in the log: one from the config, never one that the caller chose.
    pub name: String,
    pub scope: AccessScope,
}

/// Lets a request through if its caller has the scope for it.
pub(super) async fn guard(
    State(api): State<Arc<Api>>,
    mut request: Request,
    next: Next,
) -> Response {
    let source = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|client| client.0.ip().to_canonical());
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
    api.names.check_host(request)?;
    let needed = needed(request);
    if needed == AccessScope::Write {
        api.names.check_source(request)?;
    }
    let credentials = api.credentials.load();
    if credentials.is_empty() {
        return Ok(Caller {
            name: "anybody".into(),
            scope: AccessScope::Write,
        });
    }
    let authorization = request.headers().get(header::AUTHORIZATION);
    // Checked before the password: otherwise the response would tell whether the guess was right.
    // Tokens are too long to be guessed, so their callers are not locked out by their neighbours.
    if authorization.is_some_and(|value| !is_token(value)) && has_failed_often(api, source) {
        let message = "too many wrong credentials from your network; wait a minute";
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, message);
        return Err(error.retry_after(60));
    }
    let Some((name, scope)) = authorization.and_then(|value| credentials.of(value)) else {
        // A request without credentials is no failed attempt.
        if let (Some(_), Some(source)) = (authorization, limited(source)) {
            let _ = api.failures.allows(source, FAILURES_A_MINUTE, minute(api));
        }
        let message = "name and password, or a token, are wrong or missing";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, message));
    };
    if scope < needed {
        let message = match scope {
            AccessScope::Metrics => "this token is for /metrics and /api/stats only",
            AccessScope::Read | AccessScope::Write => "this token may only read",
        };
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    Ok(Caller { name, scope })
}

/// The scope that a request needs, by its method and route.
fn needed(request: &Request) -> AccessScope {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("", MatchedPath::as_str);
    match *request.method() {
        Method::GET | Method::HEAD if matches!(route, "/metrics" | "/api/stats") => {
            AccessScope::Metrics
        }
        Method::GET | Method::HEAD | Method::OPTIONS => AccessScope::Read,
        _ => AccessScope::Write,
    }
}

fn is_token(authorization: &HeaderValue) -> bool {
    let scheme = authorization.as_bytes().get(..7);
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
}

fn has_failed_often(api: &Api, source: Option<IpAddr>) -> bool {
    let source = limited(source);
    source.is_some_and(|source| {
        api.failures
            .is_reached(source, FAILURES_A_MINUTE, minute(api))
    })
}

/// Callers on this host are not limited: they could just as well read the config, or may be a proxy for
/// all others.
fn limited(source: Option<IpAddr>) -> Option<IpAddr> {
    source.filter(|source| !source.is_loopback())
}

fn minute(api: &Api) -> u32 {
    api.sources.clock.now().mono.0 / 60
}

impl Credentials {
    fn is_empty(&self) -> bool {
        self.password.is_empty() && self.tokens.is_empty()
    }

    /// The caller's name and scope for that value of `Authorization`. Comparisons take constant time.
    fn of(&self, value: &HeaderValue) -> Option<(String, AccessScope)> {
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

    fn of_basic(&self, encoded: &[u8]) -> Option<(String, AccessScope)> {
        let pair = STANDARD.decode(encoded).ok()?;
        let colon = pair.iter().position(|&byte| byte == b':')?;
        let (name, password) = (&pair[..colon], &pair[colon + 1..]);
        if self.password.is_empty() {
            return None;
        }
        let any_name = Choice::from(u8::from(self.username.is_empty()));
        let right_name = any_name | name.ct_eq(self.username.as_bytes());
        let right = right_name & password.ct_eq(self.password.expose().as_bytes());
        let name = match self.username.as_str() {
            "" => UNNAMED,
            name => name,
        };
        bool::from(right).then(|| (name.to_owned(), AccessScope::Write))
    }

    fn of_token(&self, given: &[u8]) -> Option<(String, AccessScope)> {
        // All tokens are compared, so that the time does not tell which one was close.
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
            tokens: vec![
                token("grafana", AccessScope::Read),
                token("shop", AccessScope::Write),
            ],
        }
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    fn of(credentials: &Credentials, value: &str) -> Option<(String, AccessScope)> {
        credentials.of(&HeaderValue::from_str(value).unwrap())
    }

    #[test]
    fn name_and_password_or_a_token_is_accepted() {
        let known = credentials();
        let site = Some(("site".into(), AccessScope::Write));
        assert_eq!(of(&known, &basic("site:pass:word")), site);
        assert_eq!(
            of(&known, &basic("site:pass:word").replace("Basic", "bAsIc")),
            site
        );
        let grafana = Some(("grafana".into(), AccessScope::Read));
        assert_eq!(of(&known, "Bearer token-of-grafana"), grafana);
        let any_name = Credentials {
            username: String::new(),
            ..known
        };
        let by_any_name = of(&any_name, &basic("anyone:pass:word"));
        assert_eq!(by_any_name, Some((UNNAMED.into(), AccessScope::Write)));
    }

    #[test]
    fn wrong_credentials_are_refused() {
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
