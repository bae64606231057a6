//! `mika-manage whitelist`: list and change the clients that may announce.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::json;

use super::ExitStatus;
use super::open::Site;
use super::print::{Column, Printer, Row, is_unsafe, left};
use crate::registry::ClientPrefix;
use crate::storage::Storage;
use crate::sync::edit::{self, Editor};
use crate::view::ClientRow;

/// The largest list that is read: about 100,000 clients.
const FILE_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, Subcommand)]
pub enum WhitelistCommand {
    /// List all allowed clients
    List,
    /// Allow a client, or rename one
    #[command(after_help = "\
A prefix may begin with '-'; no other argument may.

Examples:
  mika-manage whitelist add -TR Transmission
  mika-manage whitelist add -qB4500- 'qBittorrent 4.5.0'")]
    Add {
        /// The first 1 to 20 characters of the client's peer id
        #[arg(allow_hyphen_values = true)]
        prefix: String,
        /// The name of the client
        client: String,
    },
    /// Refuse a client
    Remove {
        #[arg(allow_hyphen_values = true)]
        prefix: String,
    },
    /// Allow the clients of a list in the format of `export`; none if a line is wrong
    Import {
        /// Lines of a prefix, a tab and a name, or the JSON of `export --json`; empty lines and those
        /// that begin with # are skipped; - is stdin
        #[arg(allow_hyphen_values = true)]
        file: PathBuf,
    },
    /// Write the list in the format that `import` reads
    Export,
}

/// A row of `export --json`, with whatever else a program may have added.
#[derive(Deserialize)]
struct ImportedRow {
    prefix: String,
    client: String,
}

pub async fn run(
    command: WhitelistCommand,
    site: &Site,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    let (storage, editor) = (&*site.storage, &site.editor);
    match command {
        WhitelistCommand::List => printer.table(&rows(storage).await?)?,
        WhitelistCommand::Add { prefix, client } => add(prefix, client, editor, printer).await?,
        WhitelistCommand::Remove { prefix } => {
            printer.saved(editor.remove_client(&prefix).await?);
            let line = format_args!("{prefix} is refused from now on");
            printer.result(&json!({ "prefix": prefix }), line)?;
        }
        WhitelistCommand::Import { file } => return import(&file, editor, printer).await,
        WhitelistCommand::Export => export(storage, printer).await?,
    }
    Ok(ExitStatus::Success)
}

async fn add(prefix: String, name: String, editor: &Editor, printer: &mut Printer) -> Result<()> {
    let line = format!("{prefix} ({name}) is allowed");
    let client = ClientPrefix { prefix, name };
    let clients = std::slice::from_ref(&client);
    printer.saved(editor.add_clients(clients).await?);
    Ok(printer.result(&ClientRow::from(client), line)?)
}

async fn import(file: &Path, editor: &Editor, printer: &mut Printer) -> Result<ExitStatus> {
    let name = if file == Path::new("-") {
        "stdin".into()
    } else {
        file.display().to_string()
    };
    let text = read(file).with_context(|| name.clone())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (clients, errors) = if is_json(text) {
        let rows: Vec<ImportedRow> = serde_json::from_str(text).with_context(|| name.clone())?;
        let rows = rows.into_iter().map(|row| (row.prefix, row.client));
        checked((1..).zip(rows))
    } else {
        parse(text)
    };
    for (line, error) in &errors {
        printer.message(format_args!("{name}:{line}: {error}"));
    }
    ensure!(
        errors.is_empty(),
        "{name}: nothing was changed; correct the lines above and try again"
    );
    if !clients.is_empty() {
        printer.saved(editor.add_clients(&clients).await?);
    }
    let imported = clients.len();
    let line = format_args!("{imported} clients are allowed");
    printer.result(&json!({ "imported": imported }), line)?;
    Ok(ExitStatus::Success)
}

async fn export(storage: &dyn Storage, printer: &mut Printer) -> Result<()> {
    let rows = rows(storage).await?;
    if printer.is_json() {
        printer.document(&rows)?;
        return Ok(());
    }
    for row in rows {
        if row.prefix.starts_with('#') {
            let prefix = &row.prefix;
            printer.message(format_args!(
                "warning: {prefix} is left out: in a list, '#' begins a comment"
            ));
            continue;
        }
        let name = plain(&row.client);
        if name != row.client.trim() {
            printer.message(format_args!(
                "note: the name of {} was simplified for the list; --json has it in full",
                row.prefix
            ));
        }
        printer.tabbed(&[&row.prefix, &name])?;
    }
    Ok(())
}

async fn rows(storage: &dyn Storage) -> Result<Vec<ClientRow>> {
    let clients = storage.whitelist().await?;
    Ok(clients.into_iter().map(ClientRow::from).collect())
}

fn read(file: &Path) -> Result<String> {
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file)?)
    };
    let mut text = String::new();
    source.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    ensure!(
        text.len() as u64 <= FILE_BYTES_MAX,
        "larger than {} MiB",
        FILE_BYTES_MAX >> 20
    );
    Ok(text)
}

/// Whether a list is JSON, and not text whose first prefix begins with `[`.
fn is_json(text: &str) -> bool {
    let inner = text.trim_start().strip_prefix('[').map(str::trim_start);
    inner.is_some_and(|rest| rest.starts_with('{') || rest.trim_end() == "]")
}

/// A name in the form that a list can hold: a site's own rows may have any characters and any length.
fn plain(name: &str) -> String {
    let blank = |letter| if is_unsafe(letter) { ' ' } else { letter };
    let name: String = name.chars().map(blank).collect();
    let name: String = name.trim().chars().take(edit::TEXT_MAX).collect();
    name.trim_end().into()
}

/// The clients of a list, and its errors by line.
fn parse(text: &str) -> (Vec<ClientPrefix>, Vec<(usize, String)>) {
    let (mut rows, mut errors) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('\t') {
            Some((prefix, name)) => rows.push((number, (prefix.to_owned(), name.to_owned()))),
            None => errors.push((number, "expected a prefix, a tab and a name".into())),
        }
    }
    let (clients, wrong) = checked(rows);
    errors.extend(wrong);
    errors.sort_by_key(|(number, _)| *number);
    (clients, errors)
}

/// Trims and checks prefixes and names, which are numbered by line or row.
fn checked(
    rows: impl IntoIterator<Item = (usize, (String, String))>,
) -> (Vec<ClientPrefix>, Vec<(usize, String)>) {
    let (mut clients, mut errors) = (Vec::new(), Vec::new());
    let mut lines_by_prefix: HashMap<String, usize> = HashMap::new();
    for (number, (prefix, name)) in rows {
        let client = ClientPrefix {
            prefix: prefix.trim().into(),
            name: plain(&name),
        };
        if let Some(before) = lines_by_prefix.insert(client.prefix.clone(), number) {
            let prefix = &client.prefix;
            errors.push((
                number,
                format!("the prefix {prefix:?} is in line {before} already"),
            ));
        }
        match edit::validate_client(&client) {
            Ok(()) => clients.push(client),
            Err(error) => errors.push((number, error.to_string())),
        }
    }
    (clients, errors)
}

impl Row for ClientRow {
    const COLUMNS: &'static [Column<Self>] = &[
        left("PREFIX", |row| row.prefix.clone()),
        left("CLIENT", |row| row.client.clone()),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_comments_and_blank_lines_and_any_line_end() {
        let (clients, errors) = parse("# ours\n\n-TR\tTransmission\r\n-qB\t qBittorrent \n");
        assert_eq!(errors, []);
        let names: Vec<&str> = clients.iter().map(|client| &*client.name).collect();
        assert_eq!(names, ["Transmission", "qBittorrent"]);
    }

    #[test]
    fn a_list_from_another_system_and_without_names_is_accepted() {
        let (clients, errors) = parse("-TR \tTransmission\r\n-qB\t\r\n");
        assert_eq!(errors, []);
        let clients: Vec<_> = clients
            .iter()
            .map(|client| (&*client.prefix, &*client.name))
            .collect();
        assert_eq!(clients, [("-TR", "Transmission"), ("-qB", "")]);
    }

    #[test]
    fn a_prefix_with_a_bracket_is_not_json() {
        assert!(is_json("[]\n") && is_json(" [\n {\"prefix\": \"-TR\"}]"));
        assert!(!is_json("[AB\tbracket\n") && !is_json("-TR\t[]\n") && !is_json(""));
    }

    #[test]
    fn names_of_a_site_are_simplified() {
        assert_eq!(plain("tab\there\r\n"), "tab here");
        assert_eq!(plain("a\u{202e}b"), "a b");
        assert_eq!(plain(&"x".repeat(300)).len(), edit::TEXT_MAX);
    }

    #[test]
    fn every_wrong_line_is_reported() {
        let (_, errors) =
            parse("-TR Transmission\n-qB\tq\n-qB\tr\n\tx\n-way-too-long-for-a-prefix\ty\n");
        let lines: Vec<usize> = errors.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 3, 4, 5]);
    }
}
