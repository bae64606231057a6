//! Sessions of TLS, which clients resume by tickets.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use super::a;
use crate::harness::{Mika, PROGRAM_DEADLINE, poll};

const PYTHON: &str = "/usr/bin/python3";

/// Two announces by OpenSSL, the second one by the session of the first; prints whether that was resumed.
const BY_OPENSSL: &str = r"
import socket, ssl, sys
port, pem, request = int(sys.argv[1]), sys.argv[2], sys.argv[3].encode()
context = ssl.create_default_context(cafile=pem)
context.maximum_version = ssl.TLSVersion[sys.argv[4]]
def announce(session):
    plain = socket.create_connection(('127.0.0.1', port), 10)
    with context.wrap_socket(plain, server_hostname='localhost', session=session) as tls:
        tls.sendall(request)
        reply = b''
        while more := tls.recv(4096):
            reply += more
        assert reply.startswith(b'HTTP/1.1 200 OK'), reply
        return tls.session, tls.session_reused
session, reused = announce(None)
assert not reused
print(announce(session)[1])
";

/// A client that keeps its sessions.
struct Client {
    address: SocketAddr,
    config: Arc<ClientConfig>,
}

/// What a connection was told.
#[derive(Debug, PartialEq)]
struct Seen {
    handshake: HandshakeKind,
    tickets: u32,
}

impl Client {
    /// Trusts the certificate that the tracker has now.
    fn new(mika: &Mika, version: &'static SupportedProtocolVersion) -> Self {
        let mut roots = RootCertStore::empty();
        let pem = std::fs::read(mika.path("key_ca")).expect("a certificate");
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.expect("a certificate");
            roots.add(certificate).expect("a root");
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            address: mika.http(),
            config: Arc::new(config),
        }
    }

    /// An announce on a connection of its own.
    fn announce(&self) -> io::Result<Seen> {
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(Arc::clone(&self.config), name).expect("a client");
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut tls = StreamOwned::new(client, stream);
        tls.write_all(request().as_bytes())?;
        let mut reply = String::new();
        tls.read_to_string(&mut reply)?;
        assert!(reply.starts_with("HTTP/1.1 200 OK"), "{reply}");
        Ok(Seen {
            handshake: tls.conn.handshake_kind().expect("the end of a handshake"),
            tickets: tls.conn.tls13_tickets_received(),
        })
    }

    fn handshake(&self) -> HandshakeKind {
        self.announce().expect("a reply").handshake
    }
}

fn request() -> String {
    format!("GET {} HTTP/1.1\r\nConnection: close\r\n\r\n", a(""))
}

fn tracker() -> Mika {
    let config = json!({ "http": { "tls": { "key": "key_priv", "cert": "key_ca" } } });
    let mut mika = Mika::prepare(&config);
    mika.managed(&["genkey"]);
    mika.run();
    mika
}

fn reload(mika: &Mika) {
    let before = mika.log().len();
    mika.signal(Signal::HUP);
    poll(PROGRAM_DEADLINE, "the reload", || {
        mika.log()[before..].contains(" reloaded ")
    });
}

#[test]
fn sessions_are_resumed_while_the_certificate_is_the_same() {
    let mut mika = tracker();
    for version in [&TLS12, &TLS13] {
        let client = Client::new(&mika, version);
        let is_13 = version == &TLS13;
        let expected = |handshake| Seen {
            handshake,
            tickets: u32::from(is_13),
        };
        let seen = || client.announce().expect("a reply");
        assert_eq!(seen(), expected(HandshakeKind::Full));
        // More than a server would keep in memory.
        for _ in 0..300 {
            let other = Client::new(&mika, version);
            assert_eq!(other.handshake(), HandshakeKind::Full);
        }
        assert_eq!(seen(), expected(HandshakeKind::Resumed));
        reload(&mika);
        assert_eq!(seen(), expected(HandshakeKind::Resumed));
    }
    assert_eq!(mika.stop(), 0);
}

#[test]
fn another_certificate_and_another_start_begin_with_full_handshakes() {
    let mut mika = tracker();
    let trusting_the_old = Client::new(&mika, &TLS13);
    assert_eq!(trusting_the_old.handshake(), HandshakeKind::Full);
    mika.managed(&["genkey", "--force"]);
    reload(&mika);
    let error = trusting_the_old.announce().expect_err("it is not trusted");
    assert!(error.to_string().contains("certificate"), "{error}");

    let mut client = Client::new(&mika, &TLS13);
    let both = [client.handshake(), client.handshake()];
    assert_eq!(both, [HandshakeKind::Full, HandshakeKind::Resumed]);
    assert_eq!(mika.stop(), 0);
    mika.run();
    client.address = mika.http();
    let both = [client.handshake(), client.handshake()];
    assert_eq!(both, [HandshakeKind::Full, HandshakeKind::Resumed]);
    assert_eq!(mika.stop(), 0);
}

#[test]
fn openssl_resumes_its_sessions() {
    let mut mika = tracker();
    for version in ["TLSv1_2", "TLSv1_3"] {
        let port = mika.http().port().to_string();
        let pem = mika.path("key_ca");
        let done = Command::new(PYTHON)
            .args(["-c", BY_OPENSSL, &port])
            .arg(&pem)
            .args([&request(), version])
            .output()
            .expect("python3 starts");
        let said = String::from_utf8_lossy(&done.stdout);
        assert_eq!(said, "True\n", "{version}: {done:?}");
    }
    assert_eq!(mika.stop(), 0);
}
