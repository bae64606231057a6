//! Which module may use which. The table is the architecture; the tests hold sources and docs to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each module and the modules that it may use. No module uses one of a later row, so there are no cycles,
/// and a reader who starts at the top meets nothing unknown. docs/architecture.md has the same rows.
const TABLE: &[(&str, &str)] = &[
    // Plain values and small tools.
    ("base", ""),
    // What reports add up to, and what is passed on of them.
    ("accounting", "base"),
    ("change", "accounting base"),
    // Metrics, log and events of a process, and what its listeners share.
    ("telemetry", "base"),
    ("net", "base telemetry"),
    // Parsing, admission, membership. These three do not know each other.
    ("wire", "base"),
    ("registry", "base"),
    ("swarm", "accounting base change"),
    // The decision.
    (
        "tracker",
        "accounting base change registry swarm telemetry wire",
    ),
    // Where things are kept: a trait each, and its drivers. They know nothing of announces.
    ("cache", "base change registry"),
    ("storage", "accounting base change net registry"),
    // Changes on their way: the registry's from people to nodes, announces' from the tracker to storage.
    ("sync", "base cache registry storage telemetry"),
    ("journal", "base cache change storage telemetry tracker"),
    // Rows for the outside.
    ("view", "base change registry storage"),
    // Entrances: for clients, the web application, operators.
    ("listen", "base net telemetry tracker wire"),
    (
        "api",
        "base change journal net registry storage sync telemetry tracker view",
    ),
    // What was configured: the sections that modules define for themselves, and those of `node`.
    ("config", "api base cache storage telemetry tracker"),
    (
        "manage",
        "base cache change config journal net registry storage sync telemetry view wire",
    ),
    // The composition root: the one place that knows how the parts fit together.
    (
        "node",
        "api base cache change config journal listen net registry storage sync telemetry tracker wire",
    ),
    // Programs: arguments in, exit code out.
    ("daemon", "base config node"),
    ("bin/mika", "config daemon"),
    ("bin/mika-manage", "config manage"),
];

/// Calls that only one place may make, and that place.
const DOORS: &[(&str, &[&str])] = &[
    ("Instant::now", &["base/clock.rs"]),
    ("SystemTime::now", &["base/clock.rs"]),
    ("print!(", &["manage/print.rs", "daemon.rs"]),
    ("println!(", &["manage/print.rs", "daemon.rs"]),
];

/// The rows of the module table of docs/architecture.md: a module and what it may use.
fn documented_rows(page: &str) -> Vec<(&str, &str)> {
    let begin = page.find("| module | what it is | may use |");
    let table = page[begin.expect("a table")..].lines().skip(2);
    let rows = table.map_while(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    rows.map(|row| {
        let module = row.split('`').next().unwrap_or_default();
        let uses = row.rsplit('|').next().unwrap_or_default();
        (module, uses.trim())
    })
    .collect()
}

#[test]
fn the_documented_table_is_this_one() {
    let page = fs::read_to_string(root().with_file_name("docs").join("architecture.md")).unwrap();
    assert_eq!(
        documented_rows(&page),
        TABLE,
        "docs/architecture.md (left) and TABLE (right)"
    );
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let mut faults = Vec::new();
    for file in sources() {
        let Some(module) = module_of(&file) else {
            continue;
        };
        let Some(allowed) = allowed(&module) else {
            let file = file.display();
            faults.push(format!(
                "src/{file}: module {module} is not in the table of tests/layers.rs"
            ));
            continue;
        };
        for arrow in arrows(&without_tests(&read(&file)), depth(&file)) {
            if arrow.to != module && !allowed.contains(&arrow.to.as_str()) {
                faults.push(format!(
                    "src/{}:{}: {module} -> {}",
                    file.display(),
                    arrow.line,
                    arrow.to
                ));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "forbidden arrows:\n{}",
        faults.join("\n")
    );
}

#[test]
fn the_table_has_each_module_once_and_no_unused_arrow() {
    let mut used = BTreeMap::<String, BTreeSet<String>>::new();
    for file in sources() {
        if let Some(module) = module_of(&file) {
            let arrows = arrows(&without_tests(&read(&file)), depth(&file));
            let targets = used.entry(module).or_default();
            targets.extend(arrows.into_iter().map(|arrow| arrow.to));
        }
    }
    let mut faults = Vec::new();
    for (row, (module, uses)) in TABLE.iter().enumerate() {
        if TABLE[..row].iter().any(|(other, _)| other == module) {
            faults.push(format!("{module} has two rows"));
        }
        let is_unused = |target: &&str| used.get(*module).is_none_or(|it| !it.contains(*target));
        let unused = uses.split_whitespace().filter(is_unused);
        faults.extend(unused.map(|target| format!("{module} -> {target} is not used")));
    }
    assert!(faults.is_empty(), "in the table:\n{}", faults.join("\n"));
}

#[test]
fn a_type_that_leaves_its_file_has_a_name_of_its_own() {
    let mut files_by_name = BTreeMap::<String, Vec<String>>::new();
    for file in sources() {
        for line in without_tests(&read(&file)).lines() {
            if let Some(name) = visible_type(line) {
                let files = files_by_name.entry(name).or_default();
                files.push(file.display().to_string());
            }
        }
    }
    assert!(files_by_name.len() > 300, "{}", files_by_name.len());
    files_by_name.retain(|_, files| files.len() > 1);
    assert_eq!(files_by_name, BTreeMap::new());
}

#[test]
fn clocks_are_read_and_lines_printed_in_one_place_only() {
    let mut faults = Vec::new();
    for file in sources() {
        let name = file.to_string_lossy();
        for (number, line) in without_tests(&read(&file)).lines().enumerate() {
            for (word, places) in DOORS {
                if line.contains(word) && !places.iter().any(|place| name.starts_with(place)) {
                    faults.push(format!("src/{name}:{}: {word}", number + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "out of place:\n{}", faults.join("\n"));
}

#[test]
fn every_arrow_points_to_an_earlier_row() {
    for (row, (module, uses)) in TABLE.iter().enumerate() {
        for used in uses.split_whitespace() {
            let known = TABLE[..row].iter().any(|(name, _)| *name == used);
            assert!(known, "{module} -> {used}: not a line above");
        }
    }
}

#[test]
fn the_source_reader_finds_every_form_of_a_path() {
    let text = "\
use crate::base::ids::UserId;
use crate::{
    change::{Batch, Change}, clock,
};
//! a comment on crate::node
/// and [`crate::node`]
fn f() -> crate::wire::Reply { super::super::swarm::g(super::near()) } // crate::node
#[cfg(test)]
use crate::manage;
#[cfg(test)]
mod tests {
    use crate::api;
}
fn g() { mycrate::other() + crate::telemetry::metrics::h() }
";
    let found: Vec<(usize, String)> = arrows(&without_tests(text), 2)
        .into_iter()
        .map(|arrow| (arrow.line, arrow.to))
        .collect();
    let expected = [
        (1, "base"),
        (2, "change"),
        (2, "clock"),
        (7, "wire"),
        (7, "swarm"),
        (14, "telemetry"),
    ];
    assert_eq!(found, expected.map(|(line, to)| (line, to.to_owned())));
}

/// A use of another module of the crate.
struct Arrow {
    line: usize,
    to: String,
}

/// All arrows of a source file that lies `depth` modules below the root of the crate.
fn arrows(text: &str, depth: usize) -> Vec<Arrow> {
    let mut arrows = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let rest_of_text = || text.lines().skip(index + 1);
        for tail in ["crate::", "mika::"]
            .iter()
            .flat_map(|root| tails(line, root))
        {
            let names = match tail.strip_prefix('{') {
                Some(group) => {
                    let group: Vec<&str> = std::iter::once(group).chain(rest_of_text()).collect();
                    outer_names(&group.join(" "))
                }
                None => vec![first_name(tail)],
            };
            arrows.extend(names.into_iter().map(|to| Arrow {
                line: index + 1,
                to,
            }));
        }
        let to_root = "super::".repeat(depth);
        arrows.extend(tails(line, &to_root).map(|tail| Arrow {
            line: index + 1,
            to: first_name(tail),
        }));
    }
    arrows
}

/// The name of a type that a line of a source defines for other files.
fn visible_type(line: &str) -> Option<String> {
    let rest = line.strip_prefix("pub")?;
    let rest = match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')')?.1,
        None => rest,
    };
    let (kind, name) = rest.trim_start().split_once(' ')?;
    ["struct", "enum", "trait", "type", "union"]
        .contains(&kind)
        .then(|| first_name(name))
}

/// What follows each path that begins with `root`.
fn tails<'a>(line: &'a str, root: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(root).filter_map(move |(at, _)| {
        let begins_here = !line[..at].ends_with(|c: char| is_name(c) || c == ':');
        begins_here.then(|| &line[at + root.len()..])
    })
}

/// The first name of each path in a group, whose opening brace was read.
fn outer_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut level = 0;
    let mut at_start = true;
    for (at, sign) in group.char_indices() {
        match sign {
            '{' => level += 1,
            '}' if level == 0 => break,
            '}' => level -= 1,
            ',' if level == 0 => at_start = true,
            _ if is_name(sign) && at_start => {
                names.push(first_name(&group[at..]));
                at_start = false;
            }
            _ => {}
        }
    }
    names
}

fn first_name(path: &str) -> String {
    path.chars().take_while(|&c| is_name(c)).collect()
}

fn is_name(sign: char) -> bool {
    sign.is_alphanumeric() || sign == '_'
}

/// The text with comments and what is compiled for tests only left blank, so that line numbers stay.
/// It relies on the layout of rustfmt: an item ends where its indentation comes back.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut test_item: Option<usize> = None;
    let mut in_body = false;
    for line in text.lines() {
        let code = match line.find("//") {
            Some(at) if at == 0 || line[..at].ends_with(' ') => &line[..at],
            _ => line,
        };
        let trimmed = code.trim();
        let indentation = code.len() - code.trim_start().len();
        if let Some(outer) = test_item {
            let ends = indentation == outer && trimmed.starts_with('}');
            let is_one_line = !in_body && trimmed.ends_with([';', '}']);
            in_body |= trimmed.ends_with('{');
            if ends || is_one_line {
                test_item = None;
            }
        } else if trimmed == "#[cfg(test)]" {
            test_item = Some(indentation);
            in_body = false;
        } else {
            kept.push_str(code);
        }
        kept.push('\n');
    }
    kept
}

/// The row of the table that a file belongs to; none for the root of the crate.
fn module_of(file: &Path) -> Option<String> {
    let path = file.with_extension("");
    let path = path.to_str()?;
    if path == "lib" {
        return None;
    }
    let is_program = path.starts_with("bin/");
    let end = if is_program { None } else { path.find('/') };
    Some(path[..end.unwrap_or(path.len())].to_owned())
}

/// How many `super::` lead from a file to the root of the crate.
fn depth(file: &Path) -> usize {
    let is_parent = file.file_stem().is_some_and(|stem| stem == "mod");
    file.components().count() - usize::from(is_parent)
}

fn allowed(module: &str) -> Option<Vec<&'static str>> {
    let row = TABLE.iter().find(|(name, _)| *name == module)?;
    Some(row.1.split_whitespace().collect())
}

/// Every source file but those of unit tests, relative to `src`.
fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(&root(), &mut files);
    files.sort();
    assert!(!files.is_empty());
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
        if is_test {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
}

fn read(file: &Path) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
