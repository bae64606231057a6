//! `mika-manage completions` and `mika-manage man`.

use std::io;

use anyhow::Result;
use clap::{Arg, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::print::Printer;
use super::{Cli, ExitStatus};
use crate::base::shell;

pub fn completions(kind: Shell, printer: &mut Printer) -> Result<ExitStatus> {
    let mut script = shell::completions(Cli::command(), kind);
    if kind == Shell::Bash {
        // The generator encodes the hyphen of the name inconsistently.
        let text = String::from_utf8_lossy(&script);
        script = text.replace("mika__subcmd__manage", "mika__manage").into();
    }
    printer.text(&script)?;
    Ok(ExitStatus::Success)
}

pub fn man(printer: &mut Printer) -> Result<ExitStatus> {
    printer.text(&page()?)?;
    Ok(ExitStatus::Success)
}

/// One page of the whole tool, with a section for every command.
fn page() -> io::Result<Vec<u8>> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut page = shell::page(command.clone())?;
    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    for subcommand in command.get_subcommands() {
        describe(subcommand, subcommand.get_name(), &mut roff);
    }
    roff.control("SH", ["NOTES"]);
    after_help(&command, &mut roff);
    roff.to_writer(&mut page)?;
    Ok(page)
}

/// Describes the subcommands of `command`, or the command itself without any; `path` is its full name.
fn describe(command: &Command, path: &str, roff: &mut Roff) {
    let mut below = command.get_subcommands().peekable();
    if below.peek().is_some() {
        for subcommand in below {
            describe(
                subcommand,
                &format!("{path} {}", subcommand.get_name()),
                roff,
            );
        }
        return;
    }
    let arguments = || {
        command
            .get_arguments()
            .filter(|argument| !argument.is_global_set() && argument.get_id() != "help")
    };
    let mut heading = path.to_owned();
    for argument in arguments() {
        heading.push(' ');
        heading.push_str(&usage(argument));
    }
    // Arguments of a control line are not escaped, and a bare hyphen is not a minus sign.
    roff.control("SS", [heading.replace('-', r"\-").as_str()]);
    let about = command.get_long_about().or_else(|| command.get_about());
    if let Some(about) = about {
        roff.text([roman(format!("{about}."))]);
    }
    for argument in arguments() {
        let Some(help) = argument.get_help() else {
            continue;
        };
        roff.control("TP", []);
        roff.text(label(argument));
        roff.text([roman(help.to_string())]);
    }
    after_help(command, roff);
}

fn after_help(command: &Command, roff: &mut Roff) {
    let Some(help) = command.get_after_help() else {
        return;
    };
    roff.control("PP", []);
    shell::preformatted(&help.to_string(), roff);
}

/// An argument as a usage line shows it: `[--days DAYS]`, `PATH...`.
fn usage(argument: &Arg) -> String {
    let mut text: String = label(argument).iter().map(plain).collect();
    let repeats = argument
        .get_num_args()
        .is_some_and(|range| range.max_values() > 1)
        || matches!(argument.get_action(), clap::ArgAction::Append);
    if repeats {
        text.push_str("...");
    }
    if argument.is_required_set() {
        text
    } else {
        format!("[{text}]")
    }
}

fn label(argument: &Arg) -> Vec<Inline> {
    let mut parts = Vec::new();
    if let Some(short) = argument.get_short() {
        parts.push(bold(format!("-{short}")));
        parts.push(roman("|"));
    }
    if let Some(long) = argument.get_long() {
        parts.push(bold(format!("--{long}")));
    }
    if argument.is_positional() || argument.get_action().takes_values() {
        if !parts.is_empty() {
            parts.push(roman(" "));
        }
        let names = argument.get_value_names().unwrap_or_default();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        parts.push(italic(names.join(" ")));
    }
    parts
}

fn plain(part: &Inline) -> &str {
    match part {
        Inline::Roman(text) | Inline::Italic(text) | Inline::Bold(text) => text,
        Inline::LineBreak => "\n",
    }
}
