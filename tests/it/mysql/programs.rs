//! The programs with a site's database that is set up wrongly.

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use super::SITE_2015;
use crate::harness::api::{Api, with_api};
use crate::harness::mariadb::MariaDb;
use crate::harness::redis::Redis;
use crate::harness::{Mika, PROGRAM_DEADLINE, poll};

/// How long the daemon may take to look at the database again.
const LOOKS: Duration = Duration::from_secs(60);

/// A server with an empty database `site`, and the part of a config that names it.
fn site(options: &[&str], schema: &str) -> (MariaDb, Value) {
    let server = MariaDb::start_with(options);
    let url = server.database("site");
    let config = json!({
        "mode": "private",
        "storage": { "driver": "mysql", "url": url, "schema": schema },
        "tracker": { "whitelist": false },
    });
    (server, config)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_passkey_that_does_not_fit_is_not_shown_as_saved() {
    let (server, config) = site(&["--sql-mode="], "mika-2015");
    server.sql(&format!(
        "USE site; {SITE_2015} ALTER TABLE users MODIFY passkey VARCHAR(20) NOT NULL;
         INSERT INTO users VALUES (7, 'passkey-7', 'seven')"
    ));
    let mika = Mika::prepare(&config);
    mika.managed(&["migrate"]);
    let output = mika.manage(&["users", "passkey", "seven"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let printed = stderr(&output);
    assert!(
        printed.contains("the column `passkey` of `users` holds 20 characters, this has 32"),
        "{printed}"
    );
    assert_eq!(server.sql("SELECT passkey FROM site.users"), "passkey-7");
    let output = mika.manage(&["whitelist", "add", "-TR4050-abcdefghijklm", "x"]);
    assert_eq!(output.status.code(), Some(2), "longer than any peer id");
    let check = mika.manage(&["check"]);
    assert_eq!(check.status.code(), Some(1));
    let printed = stdout(&check);
    assert!(
        printed.contains("ALTER TABLE `users` MODIFY `passkey` VARCHAR(64)"),
        "{printed}"
    );
}

#[test]
fn triggers_lost_while_the_daemon_runs_are_reported_and_restored() {
    let (server, config) = site(&[], "mika");
    let mut mika = Mika::prepare(&config);
    mika.managed(&["migrate"]);
    server.sql("INSERT INTO site.users (id, passkey, username) VALUES (7, 'passkey-7', 'seven')");
    let status = mika.managed(&["migrate", "--status"]);
    assert!(!status.contains("no"), "{status}");
    mika.run();
    server.sql(
        "USE site; CREATE TABLE _users_gho LIKE users; INSERT INTO _users_gho SELECT * FROM users;
         RENAME TABLE users TO _users_del, _users_gho TO users; DROP TABLE _users_del",
    );
    poll(LOOKS, "the log reports the triggers", || {
        mika.log().contains("missing from the table users")
    });
    let output = mika.manage(&["migrate", "--status"]);
    let row = stdout(&output);
    let row = row.lines().find(|line| line.contains("triggers")).unwrap();
    assert!(row.ends_with("no"), "{row}");
    assert!(stderr(&output).contains("mika_users_update"));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(mika.manage(&["check"]).status.code(), Some(1));
    // Edits made meanwhile take effect as well, without a restart.
    server.sql("INSERT INTO site.users (id, passkey, username) VALUES (8, 'passkey-8', 'eight')");
    let made = mika.managed(&["migrate"]);
    assert_eq!(made.lines().count(), 3, "{made}");
    assert!(made.contains("trigger mika_users_update"), "{made}");
    poll(LOOKS, "the registry is loaded again", || {
        let log = mika.log();
        let mut loads = log.lines().filter(|line| line.contains("registry loaded"));
        loads.clone().count() > 1
            && loads
                .next_back()
                .is_some_and(|line| line.contains("users=2"))
    });
    assert_eq!(mika.managed(&["migrate"]).trim(), "up to date");
    let aborted = "SELECT variable_value FROM information_schema.global_status \
        WHERE variable_name = 'Aborted_clients'";
    let before = server.sql(aborted);
    mika.managed(&["check"]);
    assert_eq!(
        server.sql(aborted),
        before,
        "connections are closed in form"
    );
    poll(LOOKS, "the log says that it is over", || {
        mika.log().contains("the database is as it should be again")
    });
    assert_eq!(mika.stop(), 0);
}

#[test]
fn the_daemon_does_not_start_with_a_table_without_transactions() {
    let (server, config) = site(&[], "mika");
    let mut mika = Mika::prepare(&config);
    mika.managed(&["migrate"]);
    server.sql("ALTER TABLE site.torrents ENGINE = MyISAM");
    mika.launch();
    assert_eq!(mika.wait(PROGRAM_DEADLINE), 1);
    let log = mika.log();
    assert!(
        log.contains("the table torrents has the engine MyISAM")
            && log.contains("ALTER TABLE `torrents` ENGINE = InnoDB"),
        "{log}"
    );
    let check = mika.manage(&["check"]);
    assert_eq!(check.status.code(), Some(1));
    assert!(stdout(&check).contains("credit could count twice"));
    server.sql("ALTER TABLE site.torrents ENGINE = InnoDB");
    mika.run();
}

#[test]
fn unfinished_rows_do_not_fail_a_warmup() {
    let (server, mut config) = site(&[], "mika-2015");
    let redis = Redis::start();
    config["cache"] = json!({ "driver": "redis", "url": redis.url() });
    server.sql(&format!(
        "USE site; {SITE_2015} ALTER TABLE users MODIFY passkey VARCHAR(255) NULL;
         INSERT INTO users (passkey, username) SELECT NULL, CONCAT('user-', seq) FROM seq_1_to_3500;
         INSERT INTO users (passkey, username) VALUES ('passkey-1', 'one');
         INSERT INTO torrents (info_hash, release_name) VALUES ('', 'a draft')"
    ));
    let mut mika = Mika::prepare(&config);
    mika.managed(&["migrate"]);
    let output = mika.manage(&["warmup"]);
    let printed = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert_eq!(printed.lines().count(), 1, "{printed}");
    assert!(
        printed.contains("3500 users without a passkey, 1 torrents without an info hash"),
        "{printed}"
    );
    let check = mika.managed(&["check"]);
    assert!(
        check.contains("note     tables: 3500 users have no passkey yet"),
        "{check}"
    );
    mika.run();
    let log = mika.log();
    assert!(!log.contains("passed over"), "{log}");
    let output = mika.manage(&["users", "passkey", "user-17"]);
    assert_eq!(output.status.code(), Some(1));
    let printed = stderr(&output);
    assert!(
        printed.contains("has no passkey yet; give one with: mika-manage users passkey 17"),
        "{printed}"
    );
    let printed = stderr(&mika.manage(&["users", "show", "17"]));
    assert!(
        printed.contains("the user 17 has no passkey yet"),
        "{printed}"
    );
    mika.managed(&["users", "passkey", "17"]);
    let given = "SELECT COUNT(*) FROM site.users WHERE LENGTH(passkey) = 32 AND id = 17";
    assert_eq!(server.sql(given), "1");
    server.sql("INSERT INTO site.users (passkey, username) VALUES ('bad!', 'bad')");
    let output = mika.manage(&["warmup"]);
    assert_eq!(
        output.status.code(),
        Some(1),
        "a malformed one is a problem"
    );
}

#[test]
fn the_api_answers_for_values_and_never_with_500() {
    let (server, config) = site(&["--sql-mode="], "mika-2015");
    server.sql(&format!(
        "USE site; {SITE_2015} ALTER TABLE users MODIFY username VARCHAR(20) NOT NULL;
         ALTER TABLE xbt_client_whitelist ADD UNIQUE KEY (peer_id)"
    ));
    let mut mika = with_api(&config);
    mika.managed(&["migrate"]);
    mika.run();
    let api = Api::of(&mika);
    let user = |id: u32, name: &str| json!({ "user_id": id, "passkey": format!("passkey-{id}"), "name": name });
    assert_eq!(api.get("/api/users?q=%E7%94%A8%E6%88%B7").status, 200);
    let refused = api.post("/api/user", &user(1, "用户"));
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(
        refused.text().contains("`username`") && refused.text().contains("latin1"),
        "{}",
        refused.text()
    );
    let rows: Vec<Value> = (1..=1000)
        .map(|id| {
            user(
                id,
                if id == 700 {
                    "a name of more than twenty characters"
                } else {
                    "ok"
                },
            )
        })
        .collect();
    let answer = api.post("/api/users", &json!(rows));
    let result = answer.json();
    assert_eq!(
        (&result["added"], &result["invalid"]),
        (&json!(999), &json!(1)),
        "{}",
        answer.text()
    );
    assert_eq!(result["results"][699]["status"], "invalid");
    assert!(
        result["results"][699]["message"]
            .as_str()
            .unwrap()
            .contains("`username`")
    );
    let client = |prefix: &str| json!({ "prefix": prefix, "client": "" });
    assert_eq!(api.post("/api/whitelist", &client("-lt0D60-")).status, 201);
    let refused = api.post("/api/whitelist", &client("-LT0D60-"));
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert_eq!(
        server.sql("SELECT peer_id FROM site.xbt_client_whitelist"),
        "-lt0D60-"
    );
    // A client without a name survives export and import.
    let list = mika.managed(&["whitelist", "export"]);
    let file = mika.path("list");
    std::fs::write(&file, list.replace('\n', "\r\n")).unwrap();
    mika.managed(&["whitelist", "remove", "-lt0D60-"]);
    mika.managed(&["whitelist", "import", file.to_str().unwrap()]);
    std::fs::write(&file, mika.managed(&["whitelist", "export", "--json"])).unwrap();
    mika.managed(&["whitelist", "import", file.to_str().unwrap()]);
    assert_eq!(mika.managed(&["whitelist", "export"]), list);
}
