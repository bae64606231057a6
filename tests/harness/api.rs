//! A client of the API: HTTPS that trusts only the daemon's own certificate, and JSON.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Mika, free_port};

/// What opens the API of [`with_api`].
pub const BASIC: &str = "Basic c2l0ZTpodW50ZXIy"; // site:hunter2
pub const WRITER: &str = "Bearer writer-token-0123";
pub const READER: &str = "Bearer reader-token-0123";

/// How long one read may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The API of a daemon, asked under some authorization.
#[derive(Clone)]
pub struct Api {
    address: SocketAddr,
    config: Arc<ClientConfig>,
    /// The value of the header; empty for none.
    pub authorization: String,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// An open connection.
pub struct Connection(StreamOwned<ClientConnection, TcpStream>);

/// A daemon with an API on a free port, prepared but not running: with a name and a password, and a
/// token of each scope. Its key and certificate are made.
pub fn with_api(config: &Value) -> Mika {
    let mut whole = json!({ "api": {
        "listen": [free_port()],
        "username": "site",
        "password": "hunter2",
        "tokens": [
            { "name": "writer", "token": "writer-token-0123", "scope": "write" },
            { "name": "reader", "token": "reader-token-0123", "scope": "read" },
        ],
    }});
    super::merge(&mut whole, config);
    let mika = Mika::prepare(&whole);
    mika.managed(&["genkey"]);
    mika
}

// === impl Api ===

impl Api {
    /// The API of that daemon.
    pub fn of(mika: &Mika) -> Self {
        let listen = &mika.config["api"]["listen"][0];
        let address = listen.as_str().expect("an address").parse();
        Self::at(mika, address.expect("an address"))
    }

    /// Whatever that daemon serves over TLS at another address, with the certificate of its API.
    pub fn at(mika: &Mika, address: SocketAddr) -> Self {
        let pem = fs::read(mika.path("key_ca")).expect("a certificate");
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.expect("a certificate");
            roots.add(certificate).expect("a root");
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            address,
            config: Arc::new(config),
            authorization: BASIC.into(),
        }
    }

    /// The same under another authorization.
    pub fn as_whom(&self, authorization: &str) -> Self {
        Self {
            authorization: authorization.into(),
            ..self.clone()
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn connect(&self) -> io::Result<Connection> {
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(Arc::clone(&self.config), name).expect("a client");
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut tls = StreamOwned::new(client, stream);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        Ok(Connection(tls))
    }

    /// Sends a request on a connection of its own, with headers beside the authorization.
    pub fn send(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
        let answer = self.try_send(method, target, headers, body);
        answer.unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    pub fn try_send(
        &self,
        method: &str,
        target: &str,
        headers: &[&str],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut connection = self.connect()?;
        connection.request(method, target, &self.authorization, headers, body)?;
        connection.answer()
    }

    pub fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], &[])
    }

    pub fn delete(&self, target: &str) -> Answer {
        self.send("DELETE", target, &[], &[])
    }

    pub fn post(&self, target: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let json = ["Content-Type: application/json"];
        self.send("POST", target, &json, body.as_bytes())
    }

    /// The body of a GET, which must be answered.
    pub fn json(&self, target: &str) -> Value {
        let answer = self.get(target);
        assert_eq!(answer.status, 200, "GET {target}: {}", answer.text());
        answer.json()
    }
}

// === impl Connection ===

impl Connection {
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        authorization: &str,
        headers: &[&str],
        body: &[u8],
    ) -> io::Result<()> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
        if !authorization.is_empty() {
            write!(head, "Authorization: {authorization}\r\n").expect("a String takes all");
        }
        for header in headers {
            write!(head, "{header}\r\n").expect("a String takes all");
        }
        write!(head, "Content-Length: {}\r\n\r\n", body.len()).expect("a String takes all");
        self.0.write_all(head.as_bytes())?;
        self.0.write_all(body)
    }

    /// Sends a head as it is, which must ask for no body.
    pub fn send_head(&mut self, head: &str) -> io::Result<()> {
        self.0.write_all(head.as_bytes())
    }

    /// The next answer, with the body of Content-Length.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut answer = self.head()?;
        let length = answer.header("content-length").unwrap_or("0");
        let length: usize = length.parse().map_err(|_| malformed())?;
        answer.body.resize(length, 0);
        self.0.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    /// The head of the next answer.
    pub fn head(&mut self) -> io::Result<Answer> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).map_err(|_| malformed())?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status = status.and_then(|status| status.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": "));
        Ok(Answer {
            status: status.ok_or_else(malformed)?,
            headers: headers
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect(),
            body: Vec::new(),
        })
    }

    /// Bytes as they come.
    pub fn read(&mut self) -> io::Result<String> {
        let mut chunk = [0; 4096];
        let length = self.0.read(&mut chunk)?;
        Ok(String::from_utf8_lossy(&chunk[..length]).into_owned())
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not HTTP")
}

// === impl Answer ===

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Whether this is an error of that status as all are: its status, its name, and a message.
    pub fn is_error(&self, status: u16) -> bool {
        let json = self.header("content-type") == Some("application/json");
        let body = self.json();
        json && self.status == status
            && body["code"] == status
            && ["error", "message"]
                .iter()
                .all(|key| body[key].as_str().is_some_and(|text| !text.is_empty()))
    }
}
