//! A headless Chromium, driven over WebDriver: a user with a mouse, or with a keyboard alone.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::http::{Connection, Reply};
use crate::harness::{free_port, poll};

/// How long the browser may take to start, and the page to do what it was asked.
const BROWSER_DEADLINE: Duration = Duration::from_secs(60);
pub const PAGE_DEADLINE: Duration = Duration::from_secs(30);

const ARGUMENTS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

pub const TAB: char = '\u{e004}';
pub const ENTER: char = '\u{e007}';
pub const ESCAPE: char = '\u{e00c}';

/// Tabs after which a search by keyboard gives up.
const TABS_MAX: usize = 200;

/// One window, with a profile of its own.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    profile: TempDir,
}

// === impl Browser ===

impl Browser {
    pub fn start() -> Self {
        let address = free_port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={}", address.port()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts; scripts/test installs it");
        let profile = tempfile::tempdir().expect("a temporary folder");
        let mut browser = Self {
            driver,
            address,
            session: String::new(),
            profile,
        };
        poll(BROWSER_DEADLINE, "chromedriver answers", || {
            browser.ask("GET", "/status", &Value::Null).is_ok()
        });
        let profile = format!("--user-data-dir={}", browser.profile.path().display());
        let arguments: Vec<&str> = ARGUMENTS.into_iter().chain([profile.as_str()]).collect();
        let wanted = json!({
            "acceptInsecureCerts": true,
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": arguments },
        });
        let session = browser.ask(
            "POST",
            "/session",
            &json!({ "capabilities": { "alwaysMatch": wanted } }),
        );
        let session = session.expect("a session");
        browser.session = session["sessionId"].as_str().expect("its id").into();
        browser
    }

    pub fn open(&self, url: &str) {
        self.call("/url", &json!({ "url": url }));
    }

    /// The value of a script that ends with `return`.
    pub fn run(&self, script: &str) -> Value {
        self.call("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    pub fn text(&self, script: &str) -> String {
        self.run(script).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a JavaScript expression is true.
    pub fn wait(&self, expression: &str) {
        poll(PAGE_DEADLINE, expression, || {
            self.run(&format!("return Boolean({expression})")) == true
        });
    }

    /// Presses one key after another.
    pub fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                let action = |kind: &str| json!({ "type": kind, "value": key.to_string() });
                [action("keyDown"), action("keyUp")]
            })
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.call("/actions", &json!({ "actions": [keyboard] }));
    }

    /// Goes on by the tab key until the element of a selector has the focus.
    pub fn tab_to(&self, selector: &str) {
        let script = format!("return document.activeElement.matches({})", json!(selector));
        for _ in 0..TABS_MAX {
            if self.run(&script) == true {
                let is_seen = "return document.activeElement.matches(':focus-visible')";
                assert_eq!(self.run(is_seen), true, "{selector}: the focus is not seen");
                return;
            }
            self.press(&TAB.to_string());
        }
        panic!("{selector} can't be reached by the tab key");
    }

    pub fn click(&self, selector: &str) {
        let selector = json!(selector);
        self.wait(&format!("document.querySelector({selector})"));
        self.run(&format!("document.querySelector({selector}).click()"));
    }

    /// The window's width and height, and which colours the system is set to.
    pub fn look(&self, width: u32, height: u32, colours: &str) {
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            &json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 }),
        );
        let feature = json!({ "name": "prefers-color-scheme", "value": colours });
        self.devtools(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [feature] }),
        );
    }

    /// A picture of the whole page, if `MIKA_SCREENSHOTS` names a folder for people to look at.
    pub fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("MIKA_SCREENSHOTS") else {
            return;
        };
        let shot = self.devtools(
            "Page.captureScreenshot",
            &json!({ "captureBeyondViewport": true }),
        );
        let picture = decode(shot["data"].as_str().expect("a picture"));
        fs::write(Path::new(&folder).join(format!("{name}.png")), picture).expect("a file");
    }

    /// What the console has said since the last call: errors, and what the policy of the page forbade.
    pub fn console(&self) -> Vec<String> {
        let log = self.call("/se/log", &json!({ "type": "browser" }));
        let lines = log.as_array().expect("a list").iter();
        lines
            .map(|line| line["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.call(
            "/goog/cdp/execute",
            &json!({ "cmd": command, "params": parameters }),
        )
    }

    fn call(&self, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}{path}", self.session);
        self.ask("POST", &path, body)
            .unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let reply = self
            .exchange(method, path, &body)
            .map_err(|error| error.to_string())?;
        let answer: Value =
            serde_json::from_slice(&reply.body).map_err(|error| error.to_string())?;
        match reply.status {
            200 => Ok(answer["value"].clone()),
            _ => Err(answer["value"]["message"].to_string()),
        }
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> std::io::Result<Reply> {
        let mut connection = Connection::open(self.address)?;
        connection.wait_up_to(BROWSER_DEADLINE)?;
        let (host, length) = (self.address, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        connection.send(head.as_bytes())?;
        connection.send(body.as_bytes())?;
        connection.receive()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let path = format!("/session/{}", self.session);
            let _ = self.ask("DELETE", &path, &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn decode(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    let decoded = base64::engine::general_purpose::STANDARD.decode(text);
    decoded.expect("base64")
}
