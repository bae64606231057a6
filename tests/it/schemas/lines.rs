//! What is wrong in a file is said with its line, before anything runs.

use serde_json::json;

use super::Server;
use crate::harness::Mika;

/// Without the database.
#[test]
fn the_daemon_and_its_check_read_the_file() {
    let mut site = Server::Sqlite.site(
        "site",
        "",
        "-- based on: mika\n-- name: whitelist\nSELECT 1, 2\n",
    );
    site.use_file();
    let check = |site: &super::Site<'_>| {
        let mut command = site.mika.command(env!("CARGO_BIN_EXE_mika"));
        let output = command
            .args(["-config", "config.json", "--check"])
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    assert_eq!(check(&site).0, Some(0), "{}", check(&site).1);
    for (schema, problem) in [
        (
            "-- base on: mika\n",
            "storage.schema ./site.sql:1: \"-- base on: mika\" can't be understood: did you mean \"-- based on: mika\"?",
        ),
        (
            "-- based on: mika\n-- name: whitelst\nSELECT 1, 2",
            "./site.sql:2: there is no statement \"whitelst\": did you mean \"whitelist\"?",
        ),
        (
            "-- based on: mika\n\n-- name: user\nSELECT :idd",
            "./site.sql:3: the statement user: there is no parameter :idd",
        ),
    ] {
        site.write(schema);
        let (code, said) = check(&site);
        assert!(code == Some(2) && said.contains(problem), "{said}");
        let (is_right, said) = site.says(&["check"]);
        assert!(
            !is_right && said.contains(problem) && said.contains("docs/schemas.md"),
            "{said}"
        );
        assert!(!said.contains("storage.url"), "{said}");
        site.mika.launch();
        assert_eq!(site.mika.wait(crate::harness::PROGRAM_DEADLINE), 2);
    }
    std::fs::remove_file(site.mika.path("site.sql")).unwrap();
    let (code, said) = check(&site);
    assert!(
        code == Some(2) && said.contains("storage.schema ./site.sql: No such file"),
        "{said}"
    );
}

#[test]
fn the_list_has_whole_sentences() {
    let mika = Mika::prepare(&json!({}));
    let list = mika.managed(&["schema", "list"]);
    let rows: Vec<&str> = list.lines().skip(1).map(str::trim_end).collect();
    assert_eq!(rows.len(), 5, "{list}");
    assert!(rows.iter().all(|row| row.ends_with('.')), "{list}");
    assert!(
        list.contains("peer_id, vstring), and nothing else of Mika's."),
        "{list}"
    );
}
