//! `genkey`: keys and certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
};

use super::Folder;

#[test]
fn genkey_makes_a_certificate_valid_for_every_name() {
    let folder = Folder::new();
    let text = folder.ok(&[
        "genkey",
        "--san",
        "tracker.example.org",
        "--san",
        "192.0.2.7",
    ]);
    assert!(text.starts_with("> Generating new keys...\n"), "{text}");
    let mode = fs::metadata(folder.path("key_priv"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let cert = CertificateDer::from_pem_file(folder.path("key_ca")).unwrap();
    let digest = Sha256::digest(&cert);
    let fingerprint: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    assert!(text.contains(&fingerprint.join(":")), "{text}");
    for name in [
        "localhost",
        "127.0.0.1",
        "::1",
        "tracker.example.org",
        "192.0.2.7",
    ] {
        assert!(handshakes(&folder, &cert, name), "{name}");
    }
    assert!(!handshakes(&folder, &cert, "other.example.org"));
}

#[test]
fn an_existing_key_is_kept_unless_forced() {
    let folder = Folder::new();
    folder.ok(&["genkey"]);
    let key = fs::read(folder.path("key_priv")).unwrap();
    assert!(folder.fails(1, &["genkey"]).contains("--force"));
    assert_eq!(fs::read(folder.path("key_priv")).unwrap(), key);
    let made = folder.json(&["genkey", "--force", "--days", "30"]);
    assert_ne!(fs::read(folder.path("key_priv")).unwrap(), key);
    assert_eq!(made["key"], "key_priv");
    let left: Vec<_> = fs::read_dir(folder.dir.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "temporary files are left: {left:?}");
    folder.fails(2, &["genkey", "--force", "--days", "0"]);
    folder.fails(2, &["genkey", "--force", "--san", "a b"]);
}

#[test]
fn a_replaced_certificate_keeps_the_names() {
    let folder = Folder::new();
    folder.ok(&[
        "genkey",
        "--san",
        "tracker.example.org",
        "--san",
        "192.0.2.7",
    ]);
    let made = folder.json(&["genkey", "--force", "--san", "2001:db8::7"]);
    let names = made["names"].as_array().unwrap();
    for name in [
        "localhost",
        "tracker.example.org",
        "192.0.2.7",
        "2001:db8::7",
    ] {
        assert!(names.contains(&json!(name)), "{name}: {names:?}");
    }
    let number = names.len();
    let again = folder.json(&["genkey", "--force"]);
    assert_eq!(again["names"].as_array().unwrap().len(), number);
}

/// Only root can give files away, so for others there is nothing to see.
#[test]
fn files_written_by_root_belong_to_the_folders_owner() {
    use std::os::unix::fs::{MetadataExt as _, chown};

    let folder = Folder::new();
    if chown(folder.dir.path(), Some(4711), Some(4712)).is_err() {
        return;
    }
    folder.ok(&["genkey"]);
    for name in ["key_priv", "key_ca"] {
        let file = fs::metadata(folder.path(name)).unwrap();
        assert_eq!((file.uid(), file.gid()), (4711, 4712), "{name}");
    }
}

#[test]
fn genkey_writes_both_files_or_none() {
    let tls = json!({"key": "nowhere/key", "cert": "cert"});
    let folder = Folder::with_config(&json!({"api": {"tls": tls}}));
    assert!(folder.fails(1, &["genkey"]).contains("nowhere/key"));
    assert_eq!(fs::read_dir(folder.dir.path()).unwrap().count(), 1);
}

/// Whether a client that trusts only `cert` connects to a server with the folder's pair as `name`.
fn handshakes(folder: &Folder, cert: &CertificateDer<'static>, name: &str) -> bool {
    let key = PrivateKeyDer::from_pem_file(folder.path("key_priv")).unwrap();
    let provider = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();

    while client.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut &bytes[..]).unwrap();
        server.process_new_packets().unwrap();
        bytes.clear();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut &bytes[..]).unwrap();
        if client.process_new_packets().is_err() {
            return false;
        }
    }
    true
}
