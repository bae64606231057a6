//! `mika-manage`: the real program in a folder of its own.

mod cleanup;
mod edits;
mod genkey;
mod registry;
mod shared;
mod stats;
mod tables;
mod tools;
mod torrent_files;
mod warmup;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const HASH: &str = "00252b263d3b3f20232f7e7f80ffc328615a302d";

/// A folder with its own config and database.
struct Folder {
    dir: TempDir,
}

/// What a call of the program left behind.
#[derive(Debug)]
struct Outcome {
    status: i32,
    stdout: String,
    stderr: String,
}

// === impl Folder ===

impl Folder {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn with_config(config: &Value) -> Self {
        let folder = Self::new();
        folder.write("config.json", config.to_string().as_bytes());
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, contents: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mika-manage"));
        command.current_dir(self.dir.path()).args(arguments);
        for variable in crate::harness::SECRETS {
            command.env_remove(variable);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.command(arguments).output().unwrap().into()
    }

    fn run_with_stdin(&self, arguments: &[&str], input: &str) -> Outcome {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// Stdout of a call that must succeed.
    fn ok(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert_eq!(outcome.status, 0, "{arguments:?}: {outcome:?}");
        outcome.stdout
    }

    /// The same with `--json`, read.
    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Stderr of a call that must fail with `status`, in one line after the program's name.
    fn fails(&self, status: i32, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert_eq!(outcome.status, status, "{arguments:?}: {outcome:?}");
        assert!(outcome.stderr.starts_with("mika-manage: "), "{outcome:?}");
        outcome.stderr
    }

    fn sql(&self, statements: &str) {
        let database = rusqlite::Connection::open(self.path("mika.db")).unwrap();
        database.execute_batch(statements).unwrap();
    }
}

// === impl Outcome ===

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
