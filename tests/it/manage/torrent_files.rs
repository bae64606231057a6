//! .torrent files: what libtorrent loads is imported under the same info hashes, and what it refuses
//! is refused.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use mika::manage::torrent_file;
use serde_json::Value;

use super::Folder;

/// Debian's Python, which has Debian's libtorrent, whatever else is in the PATH.
const PYTHON: &str = "/usr/bin/python3";

const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/it/manage/torrent_corpus.py"
);

/// A folder with a corpus in its folder `t`, and what libtorrent makes of each file.
fn corpus() -> (Folder, Vec<Value>) {
    let folder = Folder::new();
    fs::create_dir(folder.path("t")).unwrap();
    let mut command = Command::new(PYTHON);
    let output = command.arg(SCRIPT).arg(folder.path("t")).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    let results = results.as_array().unwrap().clone();
    assert!(results.len() > 2000, "{}", results.len());
    (folder, results)
}

#[test]
fn files_are_accepted_and_hashed_as_by_libtorrent() {
    let (folder, results) = corpus();
    let mut differences = Vec::new();
    for theirs in &results {
        let path = folder.path("t").join(theirs["file"].as_str().unwrap());
        let ours = torrent_file::read(&path).map(|file| {
            let first = file.torrent.info_hash.to_string();
            [
                Some(first),
                file.torrent.info_hash_v2.map(|hash| hash.to_string()),
            ]
        });
        let hash = |key: &str| theirs[key].as_str().map(str::to_owned);
        let expected = match (hash("v1"), hash("v2")) {
            (Some(v1), v2) => [Some(v1), v2],
            (None, v2) => [v2, None],
        };
        let agree = match &ours {
            Ok(hashes) => theirs["error"].is_null() && *hashes == expected,
            Err(reason) => !theirs["error"].is_null() && !reason.is_empty(),
        };
        if !agree {
            differences.push(format!("{theirs}: {ours:?}"));
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn a_folder_is_imported_and_each_bad_file_is_listed() {
    let (folder, results) = corpus();
    let outcome = folder.run(&["--json", "torrents", "import", "t"]);
    assert_eq!(outcome.status, 1, "{}", outcome.stderr);
    let summary: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let name = |row: &Value| row["file"].as_str().unwrap().to_owned();
    let bad = results.iter().filter(|row| !row["error"].is_null());
    let bad: BTreeSet<String> = bad.map(|row| format!("t/{}", name(row))).collect();
    let refused = summary["refused"].as_array().unwrap();
    let refused: BTreeSet<String> = refused
        .iter()
        .map(|row| row["path"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(refused, bad);
    let loaded = summary["added"].as_u64().unwrap() + summary["known"].as_u64().unwrap();
    assert_eq!(loaded as usize, results.len() - bad.len());
    // No name can do anything to a terminal, nor as a file name.
    let listed = folder.json(&["torrents", "list"]);
    for row in listed.as_array().unwrap() {
        let name = row["name"].as_str().unwrap();
        let is_harmless = |letter: char| !letter.is_control() && !"/\\\u{202e}".contains(letter);
        assert!(!name.is_empty() && name.chars().all(is_harmless), "{row}");
    }
}
