//! A small HTTPS client for the daemon's API, with timeouts and a size limit.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::UsageError;
use super::pinned::{self, OtherCertificate};
use crate::base::secret::Secret;
use crate::config::Config;
use crate::view::TrackerStats;

/// The timeout for connecting, for the TLS handshake, and for a response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest response that is read.
const BODY_BYTES_MAX: usize = 4 << 20;

const PASSWORD: &str = "MIKA_API_PASSWORD";
const TOKEN: &str = "MIKA_API_TOKEN";

/// The daemon's address, if not the one from the config.
#[derive(Debug, Args)]
pub struct DaemonAddress {
    /// The API of another daemon: https://host:port [default: the first of api.listen]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The name to sign in with [default: api.username]
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// The certificate that it must have, a PEM file [default: api.tls.cert]
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
}

/// The API of a daemon. Connects on the first request, and again after a lost connection.
pub struct Daemon {
    host: String,
    port: u16,
    cert: PathBuf,
    tls: TlsConnector,
    login: Option<HeaderValue>,
    connection: Option<SendRequest<Empty<Bytes>>>,
}

/// The body of an error response.
#[derive(Deserialize)]
struct ErrorMessage {
    message: String,
}

impl Daemon {
    /// The daemon of the config or of the arguments. The environment overrides the login of the config:
    /// `MIKA_API_TOKEN`, else `MIKA_API_PASSWORD`.
    pub fn find(address: &DaemonAddress, config: &Config) -> Result<Self> {
        let (host, port) = if let Some(url) = &address.url {
            parse(url)?
        } else {
            let listen = config.api.listen.first().ok_or_else(|| {
                UsageError(
                    "the config has no API: name its address in api.listen and make its key \
                     with `mika-manage genkey`, or ask another daemon with --url"
                        .into(),
                )
            })?;
            (reachable(*listen).to_string(), listen.port())
        };
        let cert = address.cert.as_ref().unwrap_or(&config.api.tls.cert);
        let username = address.username.as_ref().unwrap_or(&config.api.username);
        Ok(Self {
            host,
            port,
            tls: TlsConnector::from(pinned::config(cert)?),
            cert: cert.clone(),
            login: login(username, config)?,
            connection: None,
        })
    }

    /// The address for messages.
    pub fn address(&self) -> String {
        match self.host.parse() {
            Ok(IpAddr::V6(ip)) => SocketAddr::from((ip, self.port)).to_string(),
            _ => format!("{}:{}", self.host, self.port),
        }
    }

    /// The daemon's figures, and the document that they were read from.
    pub async fn stats(&mut self) -> Result<(TrackerStats, serde_json::Value)> {
        let body = self.get("/api/stats").await?;
        let what = || format!("{}: the reply is not one of Mika's API", self.address());
        let document = serde_json::from_slice(&body).with_context(what)?;
        let stats = TrackerStats::from_json(&document).with_context(what)?;
        Ok((stats, document))
    }

    async fn get(&mut self, path: &str) -> Result<Bytes> {
        // The daemon may have closed the connection, or been restarted.
        let kept = self.connection.take().filter(SendRequest::is_ready);
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let mut request = Request::get(path)
            .header(HOST, self.address())
            .header(ACCEPT, "application/json");
        if let Some(login) = &self.login {
            request = request.header(AUTHORIZATION, login);
        }
        let request = request.body(Empty::new())?;
        let exchange = async {
            let response = connection.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
            let body = body.map_err(|error| Error::msg(error.to_string()))?;
            Ok((head.status, body.to_bytes()))
        };
        let (status, body) = self.within("no reply", exchange).await?;
        self.connection = Some(connection);
        self.check_status(status, &body)?;
        Ok(body)
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port));
        let tcp = self
            .within("no connection", async { Ok(tcp.await?) })
            .await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(self.host.clone())?;
        let tls = self.tls.connect(name, tcp);
        let tls = self
            .within("no TLS", async {
                tls.await.map_err(|error| self.explain(error))
            })
            .await?;
        let (sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        // Ends with the sender, which sees its errors.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Runs `work` with the timeout; errors name the address.
    async fn within<T>(&self, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let address = self.address();
        match time::timeout(TIMEOUT, work).await {
            Ok(result) => result.with_context(|| format!("{what}: the API at {address}")),
            Err(_) => bail!("{what} within {TIMEOUT:?}: the API at {address}"),
        }
    }

    /// Adds a hint to a handshake that failed because of another certificate.
    fn explain(&self, error: std::io::Error) -> Error {
        if pinned::is_other(&error) {
            return OtherCertificate(self.cert.clone()).into();
        }
        error.into()
    }

    fn check_status(&self, status: StatusCode, body: &[u8]) -> Result<()> {
        if status.is_success() {
            return Ok(());
        }
        let address = self.address();
        let said = serde_json::from_slice(body)
            .map_or_else(|_| status.to_string(), |body: ErrorMessage| body.message);
        let is_login = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        ensure!(
            !is_login,
            "the API at {address} refuses the login ({said}): look at api.username and api.password, \
             or {PASSWORD} or {TOKEN} in the environment"
        );
        bail!("the API at {address} answers {}: {said}", status.as_u16());
    }
}

/// Host and port of `https://host:port`.
fn parse(url: &str) -> Result<(String, u16)> {
    // What is before a '@' may be a password, which belongs in the environment.
    let shown = url.rsplit_once('@').map_or(url, |_| "…@…");
    let wrong = || UsageError(format!("--url {shown:?}: expected https://host:port"));
    let url: Uri = url.parse().map_err(|_| wrong())?;
    let authority = url.authority().ok_or_else(wrong)?;
    let port = authority.port_u16().ok_or_else(wrong)?;
    let host = authority.host().trim_matches(['[', ']']);
    let is_plain = url.scheme_str() == Some("https")
        && url.path_and_query().is_none_or(|path| path == "/")
        && !authority.as_str().contains('@')
        && ServerName::try_from(host).is_ok();
    ensure!(is_plain, wrong());
    Ok((host.to_owned(), port))
}

/// The address of a listener as seen from its own host.
fn reachable(listen: SocketAddr) -> IpAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// The `Authorization` to send; none if neither a token nor a password is set.
fn login(username: &str, config: &Config) -> Result<Option<HeaderValue>> {
    let password = &config.api.password;
    let text = match std::env::var(TOKEN) {
        Ok(token) if !token.is_empty() => Secret::new(format!("Bearer {token}")),
        _ if password.is_empty() => return Ok(None),
        _ => {
            let pair = format!("{username}:{}", password.expose());
            Secret::new(format!("Basic {}", BASE64.encode(pair)))
        }
    };
    let mut value = HeaderValue::from_str(text.expose())
        .map_err(|_| UsageError(format!("{TOKEN} holds characters that no token has")))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_a_port() {
        for (url, host, port) in [
            (
                "https://tracker.example.org:34001",
                "tracker.example.org",
                34001,
            ),
            ("https://192.0.2.7:1/", "192.0.2.7", 1),
            ("https://[::1]:65535", "::1", 65535),
        ] {
            assert_eq!(parse(url).unwrap(), (host.to_owned(), port), "{url}");
        }
        let error = parse("https://site:hunter2@127.0.0.1:34001").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        for url in [
            "http://127.0.0.1:34001",
            "https://127.0.0.1",
            "https://:34001",
            "https://a b:1",
            "https://host:65536",
            "https://host:1/api",
            "https://[::1:34001",
            "https://::1:34001",
            "127.0.0.1:34001",
        ] {
            assert!(parse(url).unwrap_err().is::<UsageError>(), "{url}");
        }
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_loopback() {
        let of = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(of("0.0.0.0:34001"), "127.0.0.1");
        assert_eq!(of("[::]:34001"), "::1");
        assert_eq!(of("192.0.2.7:34001"), "192.0.2.7");
    }
}
