//! Logins and scopes.

use serde_json::{Value, json};

use super::private;
use crate::harness::api::{Api, BASIC, READER, WRITER, with_api};

/// Every route of the document: method, path with its parameters filled in, and whether it is open.
fn routes(api: &Api) -> Vec<(String, String, bool)> {
    let document = api.json("/api/openapi.json");
    let paths = document["paths"].as_object().expect("paths");
    let mut routes = Vec::new();
    for (path, methods) in paths {
        for (method, route) in methods.as_object().expect("methods") {
            let path = path.replace("{info_hash}", super::HASH);
            let path = path.replace("{user_id}", "7").replace("{prefix}", "-TR");
            let is_open = route["security"] == json!([{}]);
            routes.push((method.to_uppercase(), path, is_open));
        }
    }
    assert!(routes.len() > 20, "{routes:?}");
    routes
}

#[test]
fn without_valid_credentials_only_health_routes_answer() {
    let (_mika, api) = private();
    let mut open = Vec::new();
    for (method, path, is_open) in routes(&api) {
        if is_open {
            open.push(path);
            continue;
        }
        for wrong in [
            "",
            "Bearer wrong-token-01234",
            "Basic c2l0ZTp3cm9uZw==",
            "Basic",
            "Negotiate x",
        ] {
            let answer = api.as_whom(wrong).send(&method, &path, &[], b"{}");
            assert!(
                answer.is_error(401),
                "{method} {path} as {wrong:?}: {}",
                answer.text()
            );
            let challenge = answer.header("www-authenticate").expect("a challenge");
            assert!(challenge.starts_with("Basic "), "{challenge}");
        }
        if method != "GET" {
            let answer = api.as_whom(READER).send(&method, &path, &[], b"{}");
            assert!(answer.is_error(403), "{method} {path}: {}", answer.text());
        }
    }
    assert_eq!(open, ["/healthz", "/readyz"]);
    let document = api.as_whom("").get("/api/openapi.json");
    assert!(document.is_error(401));
}

#[test]
fn a_reader_reads_and_a_writer_does_both() {
    let (mika, api) = private();
    let client = json!({ "prefix": "-TR", "client": "Transmission" });
    for whom in [READER, WRITER, BASIC] {
        assert_eq!(
            api.as_whom(whom).get("/api/whitelist").status,
            200,
            "{whom}"
        );
    }
    assert!(
        api.as_whom(READER)
            .post("/api/whitelist", &client)
            .is_error(403)
    );
    assert_eq!(
        api.as_whom(WRITER).post("/api/whitelist", &client).status,
        201
    );
    let log = mika.log();
    assert!(log.contains(r#"caller="writer""#), "{log}");
}

#[test]
fn a_metrics_token_sees_the_figures_only() {
    let metrics = "metrics-token-0123";
    let token = json!({ "name": "prometheus", "token": metrics, "scope": "metrics" });
    let mut mika = with_api(&json!({ "mode": "private", "api": { "tokens": [token] } }));
    mika.run();
    let api = Api::of(&mika);
    let prometheus = api.as_whom(&format!("Bearer {metrics}"));
    for (method, path, _) in routes(&api) {
        let is_figures = ["/metrics", "/api/stats", "/healthz", "/readyz"].contains(&&path[..]);
        let answer = prometheus.send(&method, &path, &[], b"{}");
        if is_figures {
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        } else {
            assert!(answer.is_error(403), "{method} {path}: {}", answer.text());
        }
    }
    assert!(prometheus.get("/api/openapi.json").is_error(403));
    let mut stats = mika.command(env!("CARGO_BIN_EXE_mika-manage"));
    stats.args(["--config", "config.json", "stats"]);
    let output = stats.env("MIKA_API_TOKEN", metrics).output();
    assert!(output.expect("mika-manage starts").status.success());
}

#[test]
fn a_reader_sees_no_passkey_anywhere() {
    let (mika, api) = private();
    let passkey = "passkey-of-seven";
    let user = json!({ "user_id": 7, "passkey": passkey, "name": "seven" });
    assert_eq!(api.post("/api/user", &user).status, 200);
    let torrent = json!({ "torrent_id": 5, "info_hash": super::HASH, "name": "five" });
    assert_eq!(api.post("/api/torrent", &torrent).status, 201);
    super::announce(&mika, passkey, "left=0&event=started");
    super::announce(&mika, passkey, "left=x&compact=0&info_hash=short");
    let reader = api.as_whom(READER);
    for (method, path, _) in routes(&api) {
        if method != "GET" || path == "/api/events" {
            continue;
        }
        let answer = reader.get(&path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(
            !answer.text().contains(passkey),
            "{path}: {}",
            answer.text()
        );
        let found = reader.get(&format!("{path}?q={passkey}"));
        assert!(
            !found.text().contains("\"seven\"") || path.starts_with("/api/user/"),
            "{path}"
        );
    }
    let seen = reader.json("/api/user/7");
    assert_eq!(
        (&seen["username"], &seen["passkey"]),
        (&json!("seven"), &Value::Null)
    );
    for whom in [WRITER, BASIC] {
        assert_eq!(api.as_whom(whom).json("/api/user/7")["passkey"], passkey);
    }
    assert!(!mika.log().contains(passkey), "{}", mika.log());
}

#[test]
fn the_log_never_has_a_name_that_the_client_chose() {
    let mut mika = with_api(&json!({ "api": { "username": "" } }));
    mika.run();
    let api = Api::of(&mika);
    let client = json!({ "prefix": "-TR", "client": "Transmission" });
    let admin = "Basic YWRtaW46aHVudGVyMg=="; // admin:hunter2
    assert_eq!(
        api.as_whom(admin).post("/api/whitelist", &client).status,
        201
    );
    let log = mika.log();
    assert!(log.contains(r#"caller="password""#), "{log}");
    assert!(!log.contains("admin"), "{log}");
}

#[test]
fn without_credentials_the_api_is_open_to_this_host_only() {
    let open = json!({ "api": { "username": "", "password": "", "tokens": [] } });
    let mut mika = with_api(&open);
    mika.run();
    let api = Api::of(&mika).as_whom("");
    assert_eq!(api.json("/api/version")["name"], "mika");
    assert_eq!(mika.stop(), 0);

    mika.reconfigure(&json!({ "api": { "listen": ["0.0.0.0:0"] } }));
    mika.launch();
    assert_eq!(mika.wait(crate::harness::PROGRAM_DEADLINE), 2);
    let log = mika.log();
    assert!(log.contains("api.password: expected a password"), "{log}");
}

#[test]
fn slow_and_endless_requests_are_closed() {
    let (_mika, api) = private();
    let long = format!("X-Long: {}", "x".repeat(20_000));
    let answer = api.try_send("GET", "/api/version", &[&long], b"");
    assert!(answer.map_or(true, |answer| answer.status == 431));
    // A silent connection is closed; others are answered meanwhile.
    let mut silent = api.connect().expect("a connection");
    assert_eq!(api.json("/api/version")["name"], "mika");
    let ended = silent.read();
    assert!(ended.as_deref().unwrap_or_default().is_empty(), "{ended:?}");
}

#[test]
fn the_document_names_each_operation_once() {
    let (_mika, api) = private();
    let document = api.json("/api/openapi.json");
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths
        .values()
        .flat_map(|methods| methods.as_object().expect("methods").values());
    let mut ids: Vec<&Value> = operations
        .map(|operation| &operation["operationId"])
        .collect();
    let number = ids.len();
    ids.sort_by_key(ToString::to_string);
    ids.dedup();
    assert_eq!(ids.len(), number);
}
