//! The keywords of a schema's file, which begin lines of comment: one that is mistyped must not be taken for a remark.

use super::statements::{NAME, call};
use crate::base::suggest::nearest;

/// How the lines of the head begin, after `-- `.
pub const BASED_ON: &str = "based on:";
pub const PREFIX: &str = "prefix:";
pub const FOLLOW: &str = "follow ";
/// How a statement begins, likewise.
const NAMED: &str = "name:";

/// Whether a text, without `-- `, begins with a keyword of the head.
pub fn is_instruction(text: &str) -> bool {
    [BASED_ON, PREFIX, FOLLOW]
        .into_iter()
        .any(|keyword| text.starts_with(keyword))
}

/// Why a line that looks like one with a keyword does not work.
pub fn problem(line: &str, is_head: bool) -> Option<String> {
    let comment = line.trim_start().strip_prefix("--")?;
    let text = comment.trim_start_matches(['-', ' ', '\t']).trim_end();
    let (keyword, rest) = meant(text)?;
    let right = format!(
        "-- {}{}{rest}",
        keyword,
        if keyword == FOLLOW { "" } else { " " }
    );
    let begins_so = line.starts_with(&format!("-- {keyword}"));
    if !begins_so {
        return Some(format!("did you mean {right:?}?"));
    }
    (!is_head && keyword != NAMED).then(|| format!("it belongs above the first \"{NAME}\""))
}

/// The keyword that a text was meant to begin with, and what is after it; none for a remark.
fn meant(text: &str) -> Option<(&'static str, &str)> {
    let spaced = text.split_inclusive(':').flat_map(str::split_whitespace);
    let words: Vec<&str> = spaced.collect();
    if let [first, _, "as", ..] = words[..]
        && nearest(first, ["follow"]).is_some()
    {
        return Some((FOLLOW, text[first.len()..].trim_start()));
    }
    if let [before @ .., last] = words.as_slice()
        && let Some(keyword) = with_colon(&before.join(" "))
        && (keyword != NAMED || is_name(last))
    {
        return Some((keyword, last));
    }
    None
}

/// The keyword with a colon that was meant.
fn with_colon(words: &str) -> Option<&'static str> {
    let keywords = [BASED_ON, PREFIX, NAMED];
    let without = |keyword: &'static str| keyword.trim_end_matches(':');
    let words = words.trim_end_matches(':').trim_end();
    let near = nearest(words, keywords.map(without))?;
    keywords
        .into_iter()
        .find(|keyword| without(keyword) == near)
}

/// Whether a word is, or was meant to be, the name of a statement.
fn is_name(word: &str) -> bool {
    call(word).is_some() || word.contains('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_keyword_is_no_remark() {
        for (line, right) in [
            (
                "-- folow users as user by id: name",
                "-- follow users as user by id: name",
            ),
            (
                "--follow users as whitelist",
                "-- follow users as whitelist",
            ),
            (
                "-- Follow  users as whitelist",
                "-- follow users as whitelist",
            ),
            ("-- base on: mika", "-- based on: mika"),
            ("-- based on mika", "-- based on: mika"),
            ("-- prefx: t_", "-- prefix: t_"),
            ("-- nmae: users", "-- name: users"),
            (" -- name: users", "-- name: users"),
            ("--name:users", "-- name: users"),
            ("-- name users_named", "-- name: users_named"),
        ] {
            let problem = problem(line, true).unwrap_or_default();
            assert_eq!(problem, format!("did you mean {right:?}?"), "{line}");
        }
    }

    #[test]
    fn remarks_and_right_lines_are_left_alone() {
        for line in [
            "-- A site of ours, based on: nothing at all.",
            "-- Note: names are unique",
            "-- The names: users",
            "-- follow users as user by id: name",
            "-- based on: mika",
            "-- prefix: a-b",
            "-- name: users",
            "-- name:users",
            "-----------------",
            "SELECT 1 -- name: users",
            "",
        ] {
            assert_eq!(problem(line, true), None, "{line}");
        }
        let late = problem("-- follow users as whitelist", false).unwrap();
        assert!(late.contains("above the first"), "{late}");
        assert_eq!(problem("-- follow up later", false), None);
        assert_eq!(problem("-- name: users", false), None);
    }
}
