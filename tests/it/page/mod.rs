//! The dashboard: a real tracker, and the page in a real browser.

mod browser;

use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use mika::base::ids::InfoHash;

use crate::harness::{Mika, PROGRAM_DEADLINE, free_port, http, poll};
use browser::{Browser, ENTER, ESCAPE, TAB};

const NAME: &str = "ops";
const PASSWORD: &str = "größe: 12";
const TOKEN: &str = "only-to-look-at-things";

/// A name that would be a picture and a script where names are taken for markup.
const HOSTILE: &str = "<img src=x onerror=document.title='taken'>\u{202e}gpj.exe";
const HASH: &str = "00252b263d3b3f20232f7e7f80ffc328615a302d";

/// A private tracker with an API, a user, a torrent and a client.
struct Stage {
    mika: Mika,
    api: SocketAddr,
    passkey: String,
}

#[test]
fn a_keyboard_alone_signs_in_and_edits_the_whitelist() {
    let stage = Stage::start();
    let browser = Browser::start();
    browser.look(1280, 900, "light");
    browser.open(&stage.url());
    browser.wait("document.activeElement.id === 'username'");
    browser.press(&format!("{NAME}{TAB}wrong{ENTER}"));
    browser.wait("document.getElementById('login-error').textContent");
    browser.picture("login");
    // The focus is in the password's field again, and that is empty.
    browser.press(&format!("{PASSWORD}{ENTER}"));
    browser.wait("!document.getElementById('view-overview').hidden");

    browser.tab_to("a[href='#whitelist']");
    browser.press(&ENTER.to_string());
    browser.wait("!document.getElementById('view-whitelist').hidden");
    browser.tab_to("#prefix");
    browser.press(&format!("-XX01-{TAB}Example 1{ENTER}"));
    browser.wait("document.querySelector('#whitelist-rows').textContent.includes('-XX01-')");
    assert!(
        stage.whitelist().contains("Example 1"),
        "{}",
        stage.whitelist()
    );
    // A duplicate is refused, and the page shows it.
    browser.wait("document.activeElement.id === 'prefix'");
    browser.press(&format!("-XX01-{TAB}Example 2{ENTER}"));
    browser.wait("document.querySelector('.toast.failed')?.textContent.includes('already')");
    browser.picture("whitelist");

    let remove = "button[aria-label='Remove -XX01- Example 1']";
    browser.tab_to(remove);
    browser.press(&ENTER.to_string());
    browser.wait("document.getElementById('confirm').open");
    browser.press(&ESCAPE.to_string());
    browser.wait("!document.getElementById('confirm').open");
    assert!(stage.whitelist().contains("-XX01-"));
    browser.tab_to(remove);
    browser.press(&ENTER.to_string());
    browser.wait("document.activeElement.id === 'confirm-no'");
    browser.press(&format!("{TAB}{ENTER}"));
    browser.wait("!document.querySelector('#whitelist-rows').textContent.includes('-XX01-')");
    assert!(!stage.whitelist().contains("-XX01-"));
    assert_quiet(&browser);
}

#[test]
fn figures_move_under_load_and_come_back_after_a_restart() {
    let mut stage = Stage::start();
    let browser = Browser::start();
    browser.look(1440, 1000, "light");
    stage.sign_in(&browser);
    let (http, passkey) = (stage.mika.http(), stage.passkey.clone());
    under_load(http, &passkey, || {
        browser.wait("parseFloat(document.querySelectorAll('#chart-announces .legend b')[1].textContent.replace(',', '')) > 0.5");
        let points = "document.querySelector('#chart-announces .line.tone-2').getAttribute('points').split(' ').length";
        browser.wait(&format!("{points} > 3"));
        browser.wait("document.querySelectorAll('#busiest tbody tr').length === 1");
        browser.wait("document.querySelector('#events').textContent.includes('snatch')");
        browser.wait("document.querySelector('#events').textContent.includes('refusal')");
        browser.wait("document.querySelectorAll('#reasons tbody tr').length > 0");
        browser.picture("overview-light");
        browser.look(1440, 1000, "dark");
        browser.picture("overview-dark");
    });
    // A chart is read by the arrow keys, too.
    browser.tab_to("#chart-announces svg");
    browser.press("\u{e012}\u{e012}");
    browser.wait("document.querySelector('#chart-announces .tip:not([hidden])')?.textContent.includes('UDP')");
    let names = browser.text("return document.querySelector('#busiest tbody').textContent");
    assert!(
        names.contains("<img") && names.contains("\\u{202e}"),
        "{names}"
    );
    assert_eq!(
        browser.run("return document.querySelectorAll('#busiest img').length"),
        0
    );
    assert_ne!(browser.text("return document.title"), "taken");
    assert_quiet(&browser);

    stage.mika.kill9();
    browser.wait(
        "document.body.classList.contains('away') && !document.getElementById('notice').hidden",
    );
    browser.picture("away");
    stage.run();
    browser.wait("!document.body.classList.contains('away')");
}

#[test]
fn users_and_torrents_are_looked_up_and_disabled() {
    let stage = Stage::start();
    let browser = Browser::start();
    browser.look(1280, 900, "dark");
    stage.sign_in(&browser);
    browser.click("a[href='#users']");
    browser.wait("document.querySelectorAll('#users-rows tbody tr').length === 2");
    browser.run("document.getElementById('users-q').focus()");
    browser.press(&format!("ali{ENTER}"));
    browser.wait("document.querySelectorAll('#users-rows tbody tr').length === 1");
    browser.click("#users-rows tbody button");
    browser.wait("document.getElementById('detail').open");
    let passkey = "return document.querySelector('.passkey').textContent";
    assert_ne!(browser.text(passkey), stage.passkey);
    browser.picture("user");
    browser.click(".secret button");
    assert_eq!(browser.text(passkey), stage.passkey);
    browser.click("#detail .actions .danger");
    browser.wait("document.getElementById('confirm').open");
    browser.click("#confirm-yes");
    browser.wait("document.querySelector('#detail .actions button').textContent === 'Enable'");
    let user = stage.mika.managed(&["--json", "users", "show", "alice"]);
    assert!(user.contains(r#""enabled":false"#), "{user}");
    browser.click("#detail-close");

    browser.click("a[href='#torrents']");
    browser.wait("!document.getElementById('view-torrents').hidden");
    browser.run("document.getElementById('torrents-q').focus()");
    browser.press(&format!("{HASH}{ENTER}"));
    browser.wait("document.getElementById('detail').open");
    browser.click("#detail .actions .danger");
    browser.wait("document.activeElement.id === 'reason'");
    browser.press(&format!("a <b>dupe</b>{ENTER}"));
    browser.wait("document.querySelector('#detail-body').textContent.includes('a <b>dupe</b>')");
    let torrent = stage.mika.managed(&["--json", "torrents", "show", HASH]);
    assert!(torrent.contains("a <b>dupe</b>"), "{torrent}");
    browser.picture("torrent");
    browser.click("#detail .actions button");
    browser.wait("document.querySelector('#detail .actions button').textContent === 'Disable'");
    assert_quiet(&browser);
}

#[test]
fn a_list_that_fails_to_load_shows_an_error() {
    let stage = Stage::start();
    let browser = Browser::start();
    stage.sign_in(&browser);
    let renamed = "ALTER TABLE whitelist RENAME TO elsewhere";
    stage
        .mika
        .storage()
        .execute_batch(renamed)
        .expect("a rename");
    browser.click("a[href='#whitelist']");
    browser.wait("document.body.textContent.includes(\"It can't be shown: storage can't do it\")");
}

#[test]
fn a_read_only_token_sees_disabled_forms() {
    let stage = Stage::start();
    let browser = Browser::start();
    browser.open(&stage.url());
    browser.click("#login-other");
    browser.wait("document.activeElement.id === 'token'");
    browser.press(&format!("{TOKEN}{ENTER}"));
    browser.wait("!document.getElementById('view-overview').hidden");
    browser.click("a[href='#whitelist']");
    browser.wait("document.querySelectorAll('#whitelist-rows tbody tr').length === 1");
    browser.click("#whitelist-rows button");
    browser.click("#confirm-yes");
    browser.wait("document.querySelector('.read-only')");
    let off = "return [...document.querySelectorAll('#view-whitelist [data-writes]')].every((it) => it.disabled)";
    assert_eq!(browser.run(off), true);
    assert!(stage.whitelist().contains("-MK"), "{}", stage.whitelist());
    browser.click("#sign-out");
    browser.wait("!document.getElementById('login').hidden");
    assert_eq!(browser.run("return sessionStorage.length"), 0);
}

#[test]
fn an_open_public_tracker_asks_for_no_login_and_has_no_users() {
    let api = free_port();
    let mut mika = Mika::prepare(&json!({ "mode": "public", "api": { "listen": [api] } }));
    mika.managed(&["genkey"]);
    mika.run();
    poll(PROGRAM_DEADLINE, "the API accepts", || {
        TcpStream::connect(api).is_ok()
    });
    let browser = Browser::start();
    // An unknown view leads to the first one.
    browser.open(&format!("https://{api}/#users"));
    browser.wait("!document.getElementById('view-overview').hidden");
    let hidden = "return ['login', 'nav-users', 'sign-out'].every((id) => document.getElementById(id).hidden)";
    assert_eq!(browser.run(hidden), true);
    assert_quiet(&browser);
}

#[test]
fn a_phone_shows_every_view_without_scrolling_sideways_in_light_and_dark() {
    let stage = Stage::start();
    let browser = Browser::start();
    browser.look(360, 780, "light");
    stage.sign_in(&browser);
    let mut papers = Vec::new();
    for colours in ["light", "dark"] {
        browser.look(360, 780, colours);
        for view in ["overview", "users", "torrents", "whitelist"] {
            browser.run(&format!("location.hash = '{view}'"));
            browser.wait(&format!("!document.getElementById('view-{view}').hidden && !document.querySelector('[aria-busy]')"));
            let width = browser.run("return document.documentElement.scrollWidth");
            assert!(
                width.as_u64().unwrap() <= 360,
                "{view} is {width} pixels wide"
            );
            browser.picture(&format!("phone-{view}-{colours}"));
        }
        papers.push(browser.text("return getComputedStyle(document.body).backgroundColor"));
    }
    assert_ne!(papers[0], papers[1]);
    // The switch overrides the system, and is remembered.
    browser.run("const it = document.getElementById('theme'); it.value = 'light'; it.dispatchEvent(new Event('change'))");
    browser.open(&stage.url());
    let paper = "getComputedStyle(document.body).backgroundColor";
    browser.wait(&format!("{paper} === '{}'", papers[0]));
    assert_quiet(&browser);
}

/// No error and nothing that the policy forbade, but for the answers that ask for a login.
fn assert_quiet(browser: &Browser) {
    let is_expected =
        |line: &String| line.contains("status of 401") || line.contains("status of 409");
    let lines: Vec<String> = browser
        .console()
        .into_iter()
        .filter(|line| !is_expected(line))
        .collect();
    assert!(lines.is_empty(), "{lines:#?}");
}

/// Announces while `act` runs: of peers that complete, and of an unknown user that is refused.
fn under_load(tracker: SocketAddr, passkey: &str, act: impl FnOnce()) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let hash = http::escape(&HASH.parse::<InfoHash>().unwrap().0);
            let mut connection = http::Connection::open(tracker).unwrap();
            // One peer stays, for the list of the busiest.
            let target = format!(
                "/{passkey}/announce?info_hash={hash}&peer_id=-MK0001-staying00000&port=6882&uploaded=0&downloaded=0&left=0&event=started"
            );
            connection.get(&target).unwrap();
            let mut number: u32 = 0;
            while !over.load(Ordering::Relaxed) {
                let (peer, event) = (number / 3 % 4, ["started", "completed", "stopped"][number as usize % 3]);
                let left = u32::from(event == "started");
                let key = if number % 20 == 19 { "nobody-knows-me" } else { passkey };
                let target = format!(
                    "/{key}/announce?info_hash={hash}&peer_id=-MK0001-{peer:012}&port=6881&uploaded=0&downloaded=0&left={left}&event={event}"
                );
                connection.get(&target).unwrap();
                number += 1;
                thread::sleep(Duration::from_millis(20));
            }
        });
        let _ended = Ended(&over);
        act();
    });
}

/// Ends the load, also when the test fails.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// === impl Stage ===

impl Stage {
    fn start() -> Self {
        let api = free_port();
        let tokens = json!([{ "name": "wall", "token": TOKEN, "scope": "read" }]);
        let mika = Mika::prepare(&json!({
            "mode": "private",
            "api": { "listen": [api], "username": NAME, "password": PASSWORD, "tokens": tokens },
        }));
        mika.managed(&["genkey"]);
        let passkey = mika.managed(&["users", "add", "alice"]).trim().to_owned();
        mika.managed(&["users", "add", "bob"]);
        mika.managed(&["whitelist", "add", "-MK", "Test"]);
        mika.managed(&["torrents", "add", HASH, "--name", HOSTILE]);
        let mut stage = Self { mika, api, passkey };
        stage.run();
        stage
    }

    fn run(&mut self) {
        self.mika.run();
        poll(PROGRAM_DEADLINE, "the API accepts", || {
            TcpStream::connect(self.api).is_ok()
        });
    }

    fn url(&self) -> String {
        format!("https://{}/", self.api)
    }

    fn sign_in(&self, browser: &Browser) {
        browser.open(&self.url());
        browser.wait("document.activeElement.id === 'username'");
        browser.press(&format!("{NAME}{TAB}{PASSWORD}{ENTER}"));
        browser.wait("!document.getElementById('view-overview').hidden");
    }

    fn whitelist(&self) -> String {
        self.mika.managed(&["whitelist", "list"])
    }
}
