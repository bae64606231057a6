//! The document against the routes: schemathesis makes requests from it, good and bad, and checks
//! the answers.

use super::private;
use crate::harness::{number, python_tool};

#[test]
fn the_routes_follow_the_openapi_document() {
    let (mika, api) = private();
    let examples = number("MIKA_SCHEMA_EXAMPLES", 25).to_string();
    let output = python_tool("schemathesis")
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
