//! `mika-manage users`: list and change users.

use std::io::{self, BufRead as _, Read as _};

use anyhow::{Result, bail};
use clap::Subcommand;
use serde::Serialize;

use super::open::Site;
use super::print::{self, Column, Printer, Row, left, right};
use super::{ExitStatus, PAGE, UsageError, report_bad};
use crate::base::ids::{InvalidPasskey, Passkey, UserId};
use crate::config::{Config, Mode};
use crate::storage::{self, Storage, StorageError, StoredUser, UserKey};
use crate::sync::load::stored_users;
use crate::view::UserRecord;

#[derive(Debug, Subcommand)]
pub enum UsersCommand {
    /// List all users, without their passkeys
    List {
        /// Sort by this key; totals in descending order
        #[arg(short, long, value_name = "KEY", default_value = "id")]
        sort: UserKey,
    },
    /// Show one user, with the passkey
    Show { user: String },
    /// Add a user and print the passkey
    Add {
        name: String,
        /// Use this passkey instead of a random one: 8 to 64 letters, digits, '_' or '-'. A single - reads
        /// it from stdin, because other users of this host can see the arguments of a program
        #[arg(long, value_name = "PASSKEY|-")]
        passkey: Option<String>,
    },
    /// Let a user announce again
    Enable { user: String },
    /// Refuse a user's announces
    Disable { user: String },
    /// Give a user a new random passkey and print it; the old one is refused from then on
    Passkey { user: String },
}

#[derive(Serialize)]
struct UserPasskey<'a> {
    id: u32,
    username: &'a str,
    passkey: &'a str,
}

#[derive(Serialize)]
struct UserState<'a> {
    id: u32,
    username: &'a str,
    enabled: bool,
}

pub async fn run(command: UsersCommand, site: &Site, printer: &mut Printer) -> Result<ExitStatus> {
    let (storage, editor) = (&*site.storage, &site.editor);
    match command {
        UsersCommand::List { sort } => list(sort, storage, printer).await?,
        UsersCommand::Show { user } => show(find(storage, &user).await?, printer)?,
        UsersCommand::Add { name, passkey } => {
            let passkey = passkey.map(given_passkey).transpose()?;
            let (id, passkey) = printer.saved(editor.add_user(&name, passkey).await?);
            let what = format!("added the user {name} (id {}), passkey:", id.0);
            print_passkey(&what, id, &name, &passkey, &site.config, printer)?;
        }
        UsersCommand::Enable { user } => set_enabled(&user, true, site, printer).await?,
        UsersCommand::Disable { user } => set_enabled(&user, false, site, printer).await?,
        UsersCommand::Passkey { user } => {
            let id = id_of(storage, &user).await?;
            let passkey = printer.saved(editor.new_passkey(id).await?);
            let name = storage.user(id).await?.map(|stored| stored.user.username);
            let name = name.unwrap_or_default();
            let what = format!("the new passkey of {name} (id {}):", id.0);
            print_passkey(&what, id, &name, &passkey, &site.config, printer)?;
        }
    }
    Ok(ExitStatus::Success)
}

/// The passkey of the arguments, or a line of stdin for `-`. It is not parsed by clap, whose errors
/// show what was typed.
fn given_passkey(text: String) -> Result<Passkey> {
    /// The limit of bytes to read; a passkey has at most 64.
    const LINE_MAX: u64 = 1024;
    let text = if text == "-" {
        let mut line = String::new();
        let mut stdin = io::stdin().lock().take(LINE_MAX);
        let read = stdin.read_line(&mut line);
        read.map_err(|_| UsageError("--passkey -: stdin has no line of text".into()))?;
        line.trim().to_owned()
    } else {
        text
    };
    let passkey = text.parse();
    Ok(passkey.map_err(|error: InvalidPasskey| UsageError(format!("--passkey: {error}")))?)
}

async fn list(sort: UserKey, storage: &dyn Storage, printer: &mut Printer) -> Result<()> {
    let mut list = printer.list::<UserRecord>()?;
    let mut all = Vec::new();
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        let page = stored_users(storage, at, PAGE).await?;
        report_bad(&page.bad, list.printer());
        cursor = page.next;
        let mut rows: Vec<UserRecord> = page.rows.into_iter().map(UserRecord::from).collect();
        if sort == UserKey::Id {
            list.page(&rows)?;
        } else {
            all.append(&mut rows);
        }
    }
    if sort != UserKey::Id {
        sort_rows(&mut all, sort);
        for rows in all.chunks(PAGE as usize) {
            list.page(rows)?;
        }
    }
    Ok(list.end()?)
}

/// The rows are ordered by id, which a stable sort keeps among equals.
fn sort_rows(rows: &mut [UserRecord], key: UserKey) {
    use std::cmp::Reverse;
    match key {
        UserKey::Id => rows.sort_by_key(|row| row.id),
        UserKey::Name => rows.sort_by_cached_key(|row| row.username.to_lowercase()),
        UserKey::Uploaded => rows.sort_by_key(|row| Reverse(row.uploaded)),
        UserKey::Downloaded => rows.sort_by_key(|row| Reverse(row.downloaded)),
        UserKey::Snatches => rows.sort_by_key(|row| Reverse(row.snatches)),
        UserKey::Announces => rows.sort_by_key(|row| Reverse(row.announces)),
        UserKey::SeedTime => rows.sort_by_key(|row| Reverse(row.seed_time)),
    }
}

fn show(stored: StoredUser, printer: &mut Printer) -> Result<()> {
    let passkey = stored.user.passkey.expose().to_owned();
    let user = UserRecord {
        passkey: Some(passkey.clone()),
        ..stored.into()
    };
    let fields = [
        ("id", user.id.to_string()),
        ("name", user.username.clone()),
        ("passkey", passkey),
        ("enabled", print::yes_no(user.enabled)),
        ("may leech", print::yes_no(user.can_leech)),
        ("uploaded", print::size(user.uploaded)),
        ("downloaded", print::size(user.downloaded)),
        ("snatches", user.snatches.to_string()),
        ("announces", user.announces.to_string()),
        ("seed time", print::duration(user.seed_time)),
    ];
    Ok(printer.record(&user, &fields)?)
}

async fn set_enabled(user: &str, enabled: bool, site: &Site, printer: &mut Printer) -> Result<()> {
    let found = find(&*site.storage, user).await?.user;
    let saved = site.editor.set_user_enabled(found.id, enabled).await?;
    printer.saved(saved);
    let (id, username) = (found.id.0, found.username.as_str());
    let state = if enabled { "enabled" } else { "disabled" };
    let line = format_args!("{username} (id {id}) is {state}");
    let user = UserState {
        id,
        username,
        enabled,
    };
    Ok(printer.result(&user, line)?)
}

/// Only the passkey is the result, for scripts; `what` and the usage are messages.
fn print_passkey(
    what: &str,
    id: UserId,
    name: &str,
    passkey: &Passkey,
    config: &Config,
    printer: &mut Printer,
) -> Result<()> {
    if printer.is_json() {
        printer.document(&UserPasskey {
            id: id.0,
            username: name,
            passkey: passkey.expose(),
        })?;
        return Ok(());
    }
    printer.message(what);
    printer.line(passkey.expose())?;
    if let Some(address) = config.http.listen.first() {
        let tls = config.http.tls.is_some();
        let scheme = if tls { "https" } else { "http" };
        let port = address.port();
        printer.message(format_args!(
            "announce URL: {scheme}://YOUR-HOST:{port}/PASSKEY/announce"
        ));
    }
    if config.mode == Mode::Public {
        printer.message("note: mode is \"public\" in the config, so users are not credited");
    }
    Ok(())
}

/// The id of the user. A user without a passkey can be found only by id.
async fn id_of(storage: &dyn Storage, text: &str) -> Result<UserId> {
    match find(storage, text).await {
        Ok(found) => Ok(found.user.id),
        Err(error) => match (text.parse(), error.downcast_ref()) {
            (Ok(id), None | Some(StorageError::Invalid(_))) => Ok(UserId(id)),
            _ => Err(error),
        },
    }
}

/// The user with that id, or else with that name.
async fn find(storage: &dyn Storage, text: &str) -> Result<StoredUser> {
    let all_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits && let Ok(id) = text.parse().map(UserId) {
        if let Some(found) = storage.user(id).await? {
            return Ok(found);
        }
        if storage.is_unfinished(id).await? {
            return Err(storage::no_passkey(&id.0.to_string()).into());
        }
    }
    let mut found = storage.users_named(text).await?;
    if found.len() > 1 {
        let ids: Vec<String> = found.iter().map(|row| row.user.id.0.to_string()).collect();
        bail!(
            "{} users are named {text}; name one by its id: {}",
            ids.len(),
            ids.join(", ")
        );
    }
    match found.pop() {
        Some(user) => Ok(user),
        None => bail!("there is no user {text}; see: mika-manage users list"),
    }
}

impl Row for UserRecord {
    const COLUMNS: &'static [Column<Self>] = &[
        right("ID", |row| row.id.to_string()),
        left("NAME", |row| row.username.clone()),
        left("ENABLED", |row| print::yes_no(row.enabled)),
        left("LEECH", |row| print::yes_no(row.can_leech)),
        right("UPLOADED", |row| print::size(row.uploaded)),
        right("DOWNLOADED", |row| print::size(row.downloaded)),
        right("SNATCHES", |row| row.snatches.to_string()),
        right("ANNOUNCES", |row| row.announces.to_string()),
        right("SEED TIME", |row| print::duration(row.seed_time)),
    ];
}
