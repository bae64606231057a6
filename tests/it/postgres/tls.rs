//! Encrypted connections, and what a connection must be sure of.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use mika::storage::StorageError;

use super::open;
use crate::harness::postgres::Postgres;
use crate::harness::{PROGRAM_DEADLINE, poll};

/// Writes lines to a file of the server's data folder, as its account.
fn write(server: &Postgres, name: &str, text: &str) {
    let folder = server.sql("postgres", "SHOW data_directory");
    let lines = format!("SELECT unnest(string_to_array('{}', E'\\n'))", text.trim());
    let path = format!("{folder}/{name}");
    server.sql("postgres", &format!("COPY ({lines}) TO '{path}'"));
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn a_connection_is_as_sure_of_its_server_as_the_url_demands() {
    let server = Postgres::start();
    server.database("mika");
    server.sql(
        "mika",
        "CREATE ROLE it LOGIN PASSWORD 'secret'; GRANT CREATE ON SCHEMA public TO it",
    );
    let certificate = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (made, other) = (certificate("127.0.0.1"), certificate("127.0.0.1"));
    write(&server, "server.crt", &made.cert.pem());
    write(&server, "server.key", &made.signing_key.serialize_pem());
    // Only with TLS does this account get in, and only by its password, which is bound to the certificate.
    let accounts = "hostssl all it all scram-sha-256\nhost all mika all trust\nlocal all all trust";
    write(&server, "pg_hba.conf", accounts);
    server.sql("postgres", "ALTER SYSTEM SET ssl = on");
    server.sql("postgres", "SELECT pg_reload_conf()");
    poll(PROGRAM_DEADLINE, "the server has TLS", || {
        let used = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        server.sql("postgres", used) == "t"
    });

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: String| {
        let path = folder.path().join(name);
        fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let (own, foreign) = (
        file("own.pem", made.cert.pem()),
        file("foreign.pem", other.cert.pem()),
    );
    let url = server.url("mika").replace("//mika@", "//it:secret@");
    for options in [
        String::new(),
        "?sslmode=require&channel_binding=require".to_owned(),
        format!("?sslmode=verify-full&sslrootcert={own}&channel_binding=require"),
    ] {
        let storage = open(&format!("{url}{options}"));
        storage.migrate().await.unwrap();
        assert!(storage.identity().await.is_ok(), "{options}");
    }
    for (options, problem) in [
        ("?sslmode=disable".to_owned(), "pg_hba"),
        ("?sslmode=verify-full".to_owned(), "no TLS"),
        (
            format!("?sslmode=verify-full&sslrootcert={foreign}"),
            "no TLS",
        ),
        (format!("?sslmode=require&sslkey={own}"), "no TLS: sslkey"),
        (
            format!("?sslmode=verify-ca&sslrootcert={own}x"),
            "no TLS: /",
        ),
    ] {
        let error = open(&format!("{url}{options}")).identity().await;
        let error = error.unwrap_err();
        assert!(matches!(error, StorageError::Broken(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains(problem), "{options}: {text}");
        assert!(!text.contains("secret@"), "{text}");
    }
}
