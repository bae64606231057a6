//! A client of either server that keeps its connection, for transactions that stay open between two calls.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

/// What a client prints when it has run everything.
const DONE: &str = "done";

/// A server's own command-line client. It ends when it goes out of scope.
pub struct Session {
    process: Child,
    answers: BufReader<ChildStdout>,
}

impl Session {
    /// Starts `client`, which reads SQL from its input, and prints each answer at once.
    pub fn open(mut client: Command) -> Self {
        let mut process = client
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the client starts");
        let answers = BufReader::new(process.stdout.take().expect("a pipe"));
        Self { process, answers }
    }

    /// Runs statements, each with a `;`, and waits until they are done.
    pub fn run(&mut self, sql: &str) {
        assert!(self.try_run(sql), "the client ended");
    }

    /// The same; false if the client ended, because the server refused a statement.
    pub fn try_run(&mut self, sql: &str) -> bool {
        self.begin(&format!("{sql}\nSELECT '{DONE}';"));
        let mut line = String::new();
        while line.trim() != DONE {
            line.clear();
            let count = self
                .answers
                .read_line(&mut line)
                .expect("the client answers");
            if count == 0 {
                return false;
            }
        }
        true
    }

    /// The same, without waiting.
    pub fn begin(&mut self, sql: &str) {
        let input = self.process.stdin.as_mut().expect("a pipe");
        writeln!(input, "{sql}").expect("the client reads");
        input.flush().expect("the client reads");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
