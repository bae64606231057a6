//! Tables, config and `check`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use super::shared::Shared;
use super::{Folder, Outcome};

#[test]
fn migrate_prints_what_it_did() {
    let folder = Folder::new();
    let status = folder.run(&["--json", "migrate", "--status"]);
    assert_eq!(status.status, 1);
    let rows: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(rows[0]["applied"], false);
    assert!(folder.ok(&["migrate"]).starts_with("applied 0001_"));
    assert_eq!(folder.ok(&["migrate"]), "up to date\n");
    assert_eq!(folder.json(&["migrate"]), json!({"applied": []}));
    assert_eq!(folder.json(&["migrate", "--status"])[0]["applied"], true);
}

#[test]
fn wrong_arguments_and_configs_exit_with_2() {
    let folder = Folder::with_config(&json!({"storage": {"driver": "oracle"}}));
    folder.fails(2, &["users", "lits"]);
    let error = folder.fails(2, &["users", "list"]);
    assert!(
        error.contains("oracle") && error.contains("sqlite"),
        "{error}"
    );
    for config in ["-c", "--config", "-config"] {
        let error = folder.fails(2, &[config, "nowhere.json", "users", "list"]);
        assert!(error.contains("nowhere.json"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn reading_commands_create_no_database() {
    let folder = Folder::new();
    let said = folder.ok(&["check"]);
    assert!(said.contains("made at the first use"), "{said}");
    let status = folder.run(&["migrate", "--status"]);
    assert_eq!(status.status, 1);
    assert!(status.stdout.contains("0001_init"));
    assert!(!folder.path("mika.db").exists());
}

#[test]
fn a_restored_database_without_a_cache_has_everything() {
    let folder = Folder::new();
    assert_eq!(folder.json(&["restored"]), json!([]));
    assert!(
        folder
            .run(&["restored", "--apply"])
            .stderr
            .contains("has everything")
    );
    folder.fails(2, &["restored", "--apply", "--drop"]);
    let said = folder.fails(2, &["restored", "--spill", "nowhere"]);
    assert!(said.contains("there is no spill file"), "{said}");
}

#[test]
fn a_copy_can_get_its_own_identity() {
    let folder = Folder::new();
    let first = folder.json(&["restored", "--new-identity"]);
    let second = folder.json(&["restored", "--new-identity"]);
    assert_eq!(second["former"], first["id"]);
    assert_ne!(second["id"], first["id"]);
    folder.fails(2, &["restored", "--new-identity", "--apply"]);
}

#[test]
fn an_invalid_passkey_is_not_shown() {
    let folder = Folder::new();
    let said = folder.fails(2, &["users", "add", "bob", "--passkey", "my secret"]);
    assert!(
        said.contains("8 to 64") && !said.contains("secret"),
        "{said}"
    );
}

#[test]
fn check_reports_problems_with_a_hint() {
    let folder = Folder::with_config(&json!({"mode": "private"}));
    folder.ok(&["migrate"]);
    let outcome = folder.run(&["check"]);
    assert_eq!(outcome.status, 1, "{outcome:?}");
    let problems = |text: &str| {
        text.lines()
            .filter(|line| line.starts_with("problem"))
            .count()
    };
    assert_eq!(problems(&outcome.stdout), 1, "{outcome:?}");
    assert!(
        outcome.stdout.contains("→ mika-manage whitelist add"),
        "{outcome:?}"
    );
    folder.ok(&["whitelist", "add", "-TR", "Transmission"]);
    folder.ok(&["genkey"]);
    assert_eq!(problems(&folder.ok(&["check"])), 0);

    fs::copy(folder.path("key_priv"), folder.path("old")).unwrap();
    folder.ok(&["genkey", "--force"]);
    fs::rename(folder.path("old"), folder.path("key_priv")).unwrap();
    let outcome = folder.run(&["check", "--json"]);
    assert_eq!(outcome.status, 1, "{outcome:?}");
    let tried: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let bad: Vec<&Value> = tried
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["ok"] == false)
        .collect();
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert_eq!(bad[0]["what"], "api.tls");
    assert_eq!(bad[0]["level"], "problem");
    let of = |what: &str| {
        tried
            .as_array()
            .unwrap()
            .iter()
            .find(|it| it["what"] == what)
    };
    assert_eq!(of("config").unwrap()["level"], "ok");

    let outcome = folder.run(&["-c", "nowhere.json", "check"]);
    assert_eq!(
        (outcome.status, problems(&outcome.stdout)),
        (1, 1),
        "{outcome:?}"
    );
}

#[test]
fn check_tests_the_cache() {
    let mut site = Shared::new();
    site.fill(1, 1, 1);
    let lines = |outcome: Outcome| -> Vec<String> {
        let cache = |line: &&str| line.contains(" cache: ");
        outcome
            .stdout
            .lines()
            .filter(cache)
            .map(Into::into)
            .collect()
    };
    let cold = lines(site.folder.run(&["check"]));
    assert!(
        cold[0].starts_with("problem") && cold[0].ends_with("mika-manage warmup"),
        "{cold:?}"
    );
    site.folder.ok(&["warmup"]);
    let warm = lines(site.folder.run(&["check"]));
    assert!(warm[0].starts_with("ok"), "{warm:?}");
    let all = site.folder.run(&["check"]);
    assert_eq!(all.status, 0, "{all:?}");
    for fine in ["ok       cache settings: ", "ok       cache clock: "] {
        assert!(all.stdout.contains(fine), "{all:?}");
    }
    assert!(
        all.stdout
            .contains("note     cache settings: appendonly is off"),
        "{all:?}"
    );
    site.redis
        .cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let evicting = site.folder.run(&["check"]);
    assert_eq!(evicting.status, 1, "{evicting:?}");
    let problem = "problem  cache settings: maxmemory-policy is allkeys-lru";
    assert!(evicting.stdout.contains(problem), "{evicting:?}");
    site.redis.kill9();
    let away = lines(site.folder.run(&["check"]));
    assert!(
        away[0].starts_with("problem")
            && away[0].ends_with("→ start it, or correct the address in cache.url"),
        "{away:?}"
    );
}

#[test]
fn config_warnings_are_lines_of_the_report() {
    let config = json!({
        "mode": "public",
        "http": { "trusted_proxies": ["0.0.0.0/0"] },
        "api": { "listen": ["127.0.0.1:34001"] },
    });
    let folder = Folder::with_config(&config);
    folder.ok(&["genkey"]);
    let outcome = folder.run(&["check"]);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    for line in [
        "note     config: http.trusted_proxies: 0.0.0.0/0 is every address",
        "note     api: the API is open to everybody on this host",
    ] {
        assert!(outcome.stdout.contains(line), "{outcome:?}");
    }
    assert!(!outcome.stderr.contains("note"), "{outcome:?}");
    let tried = folder.json(&["check"]);
    let notes = tried
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["level"] == "note");
    let notes: Vec<&Value> = notes.collect();
    assert!(
        notes.len() >= 2 && notes.iter().all(|it| it["ok"] == true),
        "{notes:?}"
    );
}

#[test]
fn readable_secrets_are_reported_with_a_safe_command() {
    let config = json!({ "mode": "public", "api": { "password": "hunter2" } });
    let folder = Folder::with_config(&config);
    folder.ok(&["genkey"]);
    folder.ok(&["migrate"]);
    let set = |name: &str, mode: u32| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(folder.path(name), mode).unwrap();
    };
    let warnings = || {
        let said = folder.ok(&["check"]);
        let warnings = said
            .lines()
            .filter(|line| line.starts_with("note     files: "));
        warnings.map(str::to_owned).collect::<Vec<_>>()
    };
    for name in ["config.json", "key_priv", "mika.db"] {
        set(name, 0o600);
    }
    assert_eq!(warnings(), Vec::<String>::new());
    for name in ["config.json", "key_priv", "mika.db"] {
        set(name, 0o644);
        let [warning] = &warnings()[..] else {
            panic!("{name}: {:?}", warnings());
        };
        assert!(warning.contains(&format!("{name} holds ")), "{warning}");
        assert!(
            warning.ends_with(&format!("→ chmod 600 {name}")),
            "{warning}"
        );
        let tried = folder.json(&["check"]);
        let of_files = |it: &&Value| it["what"] == "files";
        let found = tried.as_array().unwrap().iter().find(of_files).unwrap();
        assert_eq!(
            (&found["ok"], &found["hint"]),
            (&json!(true), &json!(format!("chmod 600 {name}")))
        );
        set(name, 0o640);
    }
    assert_eq!(warnings(), Vec::<String>::new());
    // A config without secrets may be world-readable.
    folder.write(
        "config.json",
        br#"{"mode": "public", "storage": {"url": "sqlite://mika.db"}}"#,
    );
    set("config.json", 0o644);
    assert_eq!(warnings(), Vec::<String>::new());
}
