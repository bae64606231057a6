//! A certificate of a test's own for servers on 127.0.0.1, which only those trust who are told to.

use std::fs;

use tempfile::TempDir;

/// The variable of the environment that names the file of roots to trust, in place of the system's.
pub const ROOTS: &str = "SSL_CERT_FILE";

/// A key and its self-signed certificate, in files.
pub struct Certificate {
    cert: String,
    key: String,
    _folder: TempDir,
}

// === impl Certificate ===

impl Certificate {
    pub fn make() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let names = vec!["127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let write = |name: &str, pem: String| {
            let path = folder.path().join(name);
            fs::write(&path, pem).expect("a file");
            path.to_str().expect("UTF-8").to_owned()
        };
        Self {
            cert: write("cert.pem", made.cert.pem()),
            key: write("key.pem", made.signing_key.serialize_pem()),
            _folder: folder,
        }
    }

    /// The certificate's file, which is also the file of roots for those that trust it.
    pub fn path(&self) -> &str {
        &self.cert
    }

    /// Arguments with which a Redis server, a cluster of them and sentinels speak TLS only.
    pub fn of_redis(&self) -> [&str; 12] {
        [
            "--tls-cert-file",
            &self.cert,
            "--tls-key-file",
            &self.key,
            "--tls-ca-cert-file",
            &self.cert,
            "--tls-auth-clients",
            "no",
            "--tls-replication",
            "yes",
            "--tls-cluster",
            "yes",
        ]
    }
}
