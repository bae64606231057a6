//! The document against the routes: schemathesis makes requests from it, good and bad, and checks
//! the answers.

use std::path::PathBuf;
use std::process::Command;

use super::private;
use crate::harness::number;

/// Where `scripts/test` installs it.
fn schemathesis() -> PathBuf {
    let target = env!("CARGO_TARGET_TMPDIR");
    PathBuf::from(target).join("../python/bin/schemathesis")
}

#[test]
fn the_routes_follow_the_openapi_document() {
    let (mika, api) = private();
    let program = schemathesis();
    assert!(
        program.exists(),
        "{} is missing: run scripts/test, which installs it",
        program.display()
    );
    let examples = number("MIKA_SCHEMA_EXAMPLES", 25).to_string();
    let output = Command::new(program)
        .current_dir(mika.folder())
        .args([
            "run",
            &format!("https://{}/api/openapi.json", api.address()),
        ])
        .args(["--header", &format!("Authorization: {}", api.authorization)])
        .args([
            "--tls-verify",
            "key_ca",
            "--checks",
            "all",
            "--max-examples",
            &examples,
        ])
        // A stream has no end; a bulk is answered also where none of its rows could be added; and
        // DELETE disables a user or torrent, which is there afterwards.
        .args(["--exclude-path", "/api/events"])
        .args([
            "--exclude-checks",
            "ensure_resource_availability,use_after_free",
        ])
        .arg("--no-color")
        .env("NO_PROXY", "*")
        .output()
        .expect("schemathesis starts");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
