//! All output to stdout, stderr and progress bars, except the screen of `top`.
//!
//! Results go to stdout, as text for people or as one JSON document; messages and progress go to
//! stderr. Names come from strangers, so control characters are escaped.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::io::{self, BufWriter, Stdout, Write};
use std::marker::PhantomData;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressFinish, ProgressStyle};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::sync::edit::{Propagation, Saved};

const PROGRAM: &str = "mika-manage";

/// Writes results, messages and progress.
pub struct Printer {
    json: bool,
    out: BufWriter<Stdout>,
    bar: Option<ProgressBar>,
    /// Whether an unreachable cache was reported.
    has_warned: bool,
}

/// A column of a table for people: its title, and the cell of a row.
pub struct Column<T> {
    title: &'static str,
    cell: fn(&T) -> String,
    /// Aligned to the right, for numbers.
    right: bool,
}

/// A row of a list: serialized as JSON, or as cells of a table.
pub trait Row: Serialize + Sized + 'static {
    const COLUMNS: &'static [Column<Self>];
}

/// A list written page by page: a table, or a JSON array.
pub struct RowWriter<'a, T> {
    printer: &'a mut Printer,
    /// Grow with the pages; earlier pages stay as they are.
    widths: Vec<usize>,
    empty: bool,
    rows: PhantomData<T>,
}

/// A text column.
pub const fn left<T>(title: &'static str, cell: fn(&T) -> String) -> Column<T> {
    let right = false;
    Column { title, cell, right }
}

/// A column of numbers.
pub const fn right<T>(title: &'static str, cell: fn(&T) -> String) -> Column<T> {
    let right = true;
    Column { title, cell, right }
}

/// A number of bytes with a unit: `1.50 GiB`.
pub fn size(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// A number with separators: `1,234,567`.
pub fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

/// A number of seconds by its two largest units: `3d 4h`.
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

pub fn yes_no(flag: bool) -> String {
    if flag { "yes" } else { "no" }.into()
}

/// Prints clap's output: help on stdout, or errors on stderr.
pub fn arguments(error: &clap::Error) -> io::Result<()> {
    if error.use_stderr() {
        let text = error.render().to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let prefix =
            if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
                String::new()
            } else {
                format!("{PROGRAM}: ")
            };
        write!(io::stderr(), "{prefix}{text}")
    } else {
        error.print()?;
        io::stdout().flush()
    }
}

// === impl Printer ===

impl Printer {
    pub fn new(json: bool) -> Self {
        Self {
            json,
            out: BufWriter::with_capacity(1 << 16, io::stdout()),
            bar: None,
            has_warned: false,
        }
    }

    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A line of the text result.
    pub fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.out, "{}", escape(&text.to_string()))
    }

    /// A line that is flushed at once.
    pub fn line_now(&mut self, text: impl Display) -> io::Result<()> {
        let bar = self.bar.clone();
        let write = || {
            self.line(text)?;
            self.out.flush()
        };
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// A tab-separated line for programs.
    pub fn tabbed(&mut self, texts: &[&str]) -> io::Result<()> {
        let texts: Vec<Cow<str>> = texts.iter().map(|text| escape(text)).collect();
        writeln!(self.out, "{}", texts.join("\t"))
    }

    /// A raw result.
    pub fn text(&mut self, text: &[u8]) -> io::Result<()> {
        self.out.write_all(text)
    }

    /// The JSON document that is the result.
    pub fn document(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = to_json(value)?;
        writeln!(self.out, "{text}")
    }

    /// The result: a line, or a JSON document.
    pub fn result(&mut self, value: &impl Serialize, line: impl Display) -> io::Result<()> {
        if self.json {
            return self.document(value);
        }
        self.line(line)
    }

    /// One record: names and values, or a JSON object.
    pub fn record(&mut self, value: &impl Serialize, fields: &[(&str, String)]) -> io::Result<()> {
        if self.json {
            return self.document(value);
        }
        let width = fields
            .iter()
            .map(|(name, _)| name.width())
            .max()
            .unwrap_or(0);
        for (name, text) in fields {
            writeln!(self.out, "{name:width$}  {}", escape(text))?;
        }
        Ok(())
    }

    /// The whole list that is the result.
    pub fn table<T: Row>(&mut self, rows: &[T]) -> io::Result<()> {
        let mut list = self.list()?;
        list.page(rows)?;
        list.end()
    }

    pub fn list<T: Row>(&mut self) -> io::Result<RowWriter<'_, T>> {
        if self.json {
            self.out.write_all(b"[")?;
        }
        Ok(RowWriter {
            widths: T::COLUMNS
                .iter()
                .map(|column| column.title.width())
                .collect(),
            printer: self,
            empty: true,
            rows: PhantomData,
        })
    }

    /// One line on stderr; write errors are ignored.
    pub fn message(&mut self, text: impl Display) {
        let _ = self.out.flush();
        let text = text.to_string();
        let write = || {
            let _ = writeln!(io::stderr(), "{PROGRAM}: {}", escape(&text));
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// The value of an edit. Warns once if the edit can't be published to running nodes.
    pub fn saved<T>(&mut self, saved: Saved<T>) -> T {
        if let Propagation::Pending(reason) = &saved.propagation
            && !self.has_warned
        {
            self.has_warned = true;
            self.message(format_args!(
                "saved, but the cache can't be updated now ({reason}): running nodes follow when it is back"
            ));
        }
        saved.value
    }

    /// Shows a count of `what` until [`Printer::end_progress`], if stderr is a terminal.
    pub fn start_progress(&mut self, what: &'static str) {
        let style = ProgressStyle::with_template("{spinner} {human_pos} {msg} ({per_sec})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner()
            .with_style(style)
            .with_message(what)
            .with_finish(ProgressFinish::AndClear);
        bar.enable_steady_tick(Duration::from_millis(100));
        self.bar = Some(bar);
    }

    pub fn progress(&self, steps: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(steps);
        }
    }

    pub fn end_progress(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Flushes the output.
    pub fn finish(&mut self) -> io::Result<()> {
        self.end_progress();
        self.out.flush()
    }

    fn table_line<T>(
        &mut self,
        columns: &[Column<T>],
        widths: &[usize],
        cells: &[Cow<str>],
    ) -> io::Result<()> {
        let mut line = String::new();
        for ((column, &width), cell) in columns.iter().zip(widths).zip(cells) {
            let padding = " ".repeat(width.saturating_sub(cell.width()));
            let (before, after) = if column.right {
                (&*padding, "")
            } else {
                ("", &*padding)
            };
            let _ = write!(line, "{before}{cell}{after}  ");
        }
        writeln!(self.out, "{}", line.trim_end())
    }
}

// === impl RowWriter ===

impl<T: Row> RowWriter<'_, T> {
    pub fn page(&mut self, rows: &[T]) -> io::Result<()> {
        if self.printer.json {
            return self.json_page(rows);
        }
        let cell = |row, column: &Column<T>| escape(&(column.cell)(row)).into_owned().into();
        let cells = |row| T::COLUMNS.iter().map(|column| cell(row, column)).collect();
        let cells: Vec<Vec<Cow<str>>> = rows.iter().map(cells).collect();
        for row in &cells {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        if self.empty {
            self.title()?;
        }
        for row in &cells {
            self.printer.table_line(T::COLUMNS, &self.widths, row)?;
        }
        Ok(())
    }

    pub fn end(mut self) -> io::Result<()> {
        match (self.printer.json, self.empty) {
            (true, true) => writeln!(self.printer.out, "]"),
            (true, false) => writeln!(self.printer.out, "\n]"),
            (false, true) => self.title(),
            (false, false) => Ok(()),
        }
    }

    /// For messages between pages.
    pub fn printer(&mut self) -> &mut Printer {
        self.printer
    }

    fn title(&mut self) -> io::Result<()> {
        self.empty = false;
        let titles: Vec<Cow<str>> = T::COLUMNS
            .iter()
            .map(|column| column.title.into())
            .collect();
        self.printer.table_line(T::COLUMNS, &self.widths, &titles)
    }

    fn json_page(&mut self, rows: &[T]) -> io::Result<()> {
        for row in rows {
            let separator = if self.empty { "\n" } else { ",\n" };
            self.empty = false;
            write!(self.printer.out, "{separator}{}", to_json(row)?)?;
        }
        Ok(())
    }
}

/// Escapes characters that control a terminal or hide text.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_by(text, |letter| letter.escape_default().to_string())
}

/// JSON without raw control characters in strings: serde escapes only those of ASCII.
fn to_json(value: &impl Serialize) -> io::Result<String> {
    let text = serde_json::to_string(value)?;
    let escape = |letter| format!("\\u{:04x}", u32::from(letter));
    Ok(escape_by(&text, escape).into_owned())
}

fn escape_by(text: &str, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_unsafe(letter) {
            escaped.push_str(&escape(letter));
        } else {
            escaped.push(letter);
        }
    }
    escaped.into()
}

/// Control characters, and those that change the direction of text; all within 16 bits.
pub fn is_unsafe(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_escapes_are_escaped() {
        assert_eq!(escape("Größe 日本"), "Größe 日本");
        assert_eq!(escape("a\x1b[31m\u{9b}b\n"), "a\\u{1b}[31m\\u{9b}b\\n");
        assert_eq!(escape("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn json_is_escaped_without_loss() {
        let text = to_json(&"a\x1b\u{7f}\u{9b}\u{202e}é").unwrap();
        assert_eq!(text, r#""a\u001b\u007f\u009b\u202eé""#);
        let back: String = serde_json::from_str(&text).unwrap();
        assert_eq!(back, "a\x1b\u{7f}\u{9b}\u{202e}é");
    }

    #[test]
    fn durations_have_two_units() {
        assert_eq!(duration(59), "59s");
        assert_eq!(duration(61), "1m 1s");
        assert_eq!(duration(7260), "2h 1m");
        assert_eq!(duration(3 * 86_400 + 4 * 3600 + 59), "3d 4h");
    }
}
