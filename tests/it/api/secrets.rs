//! Keys are secret: whatever is wrong with a key file, no part of it is shown.

use std::fs;
use std::process::Output;
use std::time::Duration;

use rustix::process::Signal;

use super::private;
use crate::harness::{Mika, poll};

const PATIENCE: Duration = Duration::from_secs(20);

/// No six letters in a row of the key's base64, and no list of its bytes.
fn assert_secret(key: &str, text: &str) {
    assert!(!text.contains("[45, 45, 45"), "{text}");
    for line in key.lines().filter(|line| !line.starts_with('-')) {
        for at in 0..line.len() - 6 {
            let part = &line[at..at + 6];
            assert!(!text.contains(part), "{part:?} in {text}");
        }
    }
}

fn both(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(text).expect("UTF-8")
}

fn check(mika: &Mika) -> Output {
    mika.command(env!("CARGO_BIN_EXE_mika"))
        .args(["--config", "config.json", "--check"])
        .output()
        .expect("mika starts")
}

#[test]
fn a_key_without_line_breaks_is_shown_nowhere() {
    let (mut mika, api) = private();
    let key = fs::read_to_string(mika.path("key_priv")).expect("a key");
    for broken in [key.replace('\n', ""), key.replace('\n', r"\n")] {
        fs::write(mika.path("key_priv"), &broken).expect("a key");
        let expected = if broken.contains(r"\n") {
            r"key_priv: not a PEM file: line breaks are written as the two characters \n (line 1)"
        } else {
            "key_priv: not a PEM file: no line breaks (line 1)"
        };
        let before = mika.log().len();
        mika.signal(Signal::USR2);
        poll(PATIENCE, "the reload is refused", || {
            mika.log()[before..].contains("not reloaded; going on as before")
        });
        let log = mika.log()[before..].to_owned();
        let checks = [
            check(&mika),
            mika.manage(&["check"]),
            mika.manage(&["check", "--json"]),
        ];
        for output in &checks {
            assert!(!output.status.success());
        }
        let [checked, managed, json] = checks.map(|output| both(&output));
        for text in [&log, &checked, &managed] {
            // A log line shows a text in quotes.
            assert!(text.replace(r"\\n", r"\n").contains(expected), "{text}");
        }
        // The key in place of the certificate, for a client of the API.
        let pinned = both(&mika.manage(&["stats", "--cert", "key_priv"]));
        assert!(
            pinned.contains("no certificate") || pinned.contains("not a PEM file"),
            "{pinned}"
        );
        for text in [&log, &checked, &managed, &json, &pinned] {
            assert_secret(&key, text);
        }
        assert_eq!(api.get("/api/version").status, 200);
    }
    assert_eq!(mika.stop(), 0);
    let before = mika.log().len();
    mika.launch();
    assert_eq!(mika.wait(PATIENCE), 2);
    let log = mika.log()[before..].to_owned();
    assert!(log.contains("not a PEM file"), "{log}");
    assert_secret(&key, &log);
}
