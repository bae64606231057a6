//! The documents agree with each other and with the sources: links, alerts, the functions that
//! CONTRIBUTING.md names, and the rules that comments name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// README.md, CONTRIBUTING.md and the pages of docs.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    let files = fs::read_dir(root().join("docs")).expect("docs");
    let files = files.map(|file| file.expect("a file").path());
    pages.extend(files.filter(|path| path.extension().is_some_and(|it| it == "md")));
    assert!(pages.len() > 8, "{pages:?}");
    pages
}

/// What a heading is linked by: its letters and digits in lower case, with hyphens for spaces.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let kept = heading.chars().filter(kept);
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(page: &Path) -> BTreeSet<String> {
    let text = read(page);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(anchor).collect()
}

/// The targets of a page's links, those to other hosts left out.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets.filter(|target| !target.contains("://")).collect()
}

#[test]
fn every_link_leads_to_a_page_and_a_heading() {
    let mut faults = Vec::new();
    for page in pages() {
        for link in links(&read(&page)) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().expect("a folder").join(file),
            };
            let is_page = target.extension().is_some_and(|it| it == "md");
            let leads = target.exists()
                && (heading.is_empty() || (is_page && anchors(&target).contains(heading)));
            if !leads {
                faults.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(faults.is_empty(), "lead nowhere:\n{}", faults.join("\n"));
}

#[test]
fn every_alert_has_its_section_of_the_runbook_and_every_section_its_alert() {
    let alerts = read(&root().join("docs/alerts.yml"));
    let names = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let mut expected: BTreeSet<String> = names
        .map(|name| format!("docs/runbook.md#alert-{}", name.to_lowercase()))
        .collect();
    assert!(expected.len() > 10);
    let linked = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook: "));
    let linked: BTreeSet<String> = linked.map(str::to_owned).collect();
    assert_eq!(linked, expected);
    for anchor in anchors(&root().join("docs/runbook.md")) {
        if anchor.starts_with("alert-") {
            let place = format!("docs/runbook.md#{anchor}");
            assert!(expected.remove(&place), "no alert leads to {place}");
        }
    }
    assert_eq!(expected, BTreeSet::new(), "without a section");
}

/// The file of a module, such as `tracker::outbox`, relative to `src`.
fn source_of(module: &str) -> Option<PathBuf> {
    let path = root().join("src").join(module.replace("::", "/"));
    let files = [path.with_extension("rs"), path.join("mod.rs")];
    files.into_iter().find(|file| file.exists())
}

/// The paths `module::function` in the numbered lists of a page, whose items may go on in indented lines.
fn steps(page: &str) -> Vec<&str> {
    let is_item = |line: &&str| line.starts_with(|sign: char| sign.is_ascii_digit());
    let items = page
        .lines()
        .filter(|line| is_item(line) || line.starts_with("   "));
    let code = items.flat_map(|item| item.split('`').skip(1).step_by(2));
    code.filter(|word| word.contains("::")).collect()
}

#[test]
fn every_source_file_that_a_page_names_exists() {
    let mut missing = Vec::new();
    for page in pages() {
        let text = read(&page);
        let code = text.split('`').skip(1).step_by(2);
        let is_source = |word: &&str| Path::new(word).extension().is_some_and(|it| it == "rs");
        for file in code.filter(is_source).filter(|word| !word.contains(' ')) {
            if !root().join(file).exists() && !root().join("src").join(file).exists() {
                missing.push(format!("{}: {file}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "no such file:\n{}", missing.join("\n"));
}

#[test]
fn every_function_that_the_contributors_page_names_exists() {
    let page = read(&root().join("CONTRIBUTING.md"));
    let steps = steps(&page);
    assert!(steps.len() > 30, "{steps:?}");
    let is_there = |step: &str| {
        let (module, function) = step.rsplit_once("::")?;
        let source = read(&source_of(module)?);
        let is_head = |after: &str| after.starts_with(['(', '<']);
        let name = format!("fn {function}");
        let mut heads = source.split(&name).skip(1);
        heads.any(is_head).then_some(())
    };
    let missing: Vec<&&str> = steps.iter().filter(|it| is_there(it).is_none()).collect();
    assert!(
        missing.is_empty(),
        "not in the named file (rename them in CONTRIBUTING.md): {missing:?}"
    );
}

/// The ids of the rules of a page: `- **W8** …`.
fn rules(page: &str) -> Vec<&str> {
    let items = page.lines().filter_map(|line| line.strip_prefix("- **"));
    let ids = items.filter_map(|item| item.split_once("**").map(|(id, _)| id));
    ids.collect()
}

/// Whether `text` has `name` with no letter or digit behind it.
fn names(text: &str, name: &str) -> bool {
    let mut behind = text.split(name).skip(1);
    behind.any(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric()))
}

/// CONTRIBUTING.md says how to find the code of a rule: by `rule A3`, one rule each time.
#[test]
fn every_rule_is_named_where_it_is_decided() {
    let (page, sources) = (read(&root().join("docs/protocol.md")), sources());
    let rules = rules(&page);
    assert!(rules.len() > 60, "{rules:?}");
    let is_unnamed = |rule: &&&str| !names(&sources, &format!("rule {rule}"));
    let unnamed: Vec<&&str> = rules.iter().filter(is_unnamed).collect();
    assert!(
        unnamed.is_empty(),
        "no `rule ID` in src, in the comment of the function that decides it: {unnamed:?}"
    );
}

/// All sources in one text, with continued string literals joined.
fn sources() -> String {
    let mut folders = vec![root().join("src")];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                text += &read(&path);
            }
        }
    }
    let mut parts = text.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start())
}

/// Messages of the troubleshooting table: each quote has to be in the sources, at least one of its parts
/// between `…`. Short ones may be put together from parts, and are left out.
#[test]
fn the_messages_that_the_manual_explains_exist() {
    const PART_MIN: usize = 12;
    const QUOTE_MIN: usize = 20;
    let (page, sources) = (read(&root().join("docs/operations.md")), sources());
    let begin = page.find("| message | do |").expect("the table");
    let rows = page[begin..]
        .lines()
        .take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let quotes: Vec<&str> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|quote| quote.len() >= QUOTE_MIN)
        .collect();
    assert!(quotes.len() > 20, "{quotes:?}");
    let exists = |quote: &&&str| {
        let mut parts = quote
            .split('…')
            .map(|part| part.trim_matches([' ', ':', ';']));
        parts.any(|part| part.len() >= PART_MIN && sources.contains(part))
    };
    let missing: Vec<&&str> = quotes.iter().filter(|quote| !exists(quote)).collect();
    assert!(missing.is_empty(), "no such message in src: {missing:#?}");
}

/// docs/drivers.md says so.
#[test]
fn the_example_of_a_storage_driver_is_short() {
    let of = |file: &str| {
        let path = root().join("examples/custom_driver").join(file);
        read(&path).lines().count()
    };
    assert!(of("driver.rs") + of("file.rs") < 250);
}

/// The cases and options of `scripts/bench` that pages name exist.
#[test]
fn commands_that_measure_exist() {
    let scripts = root().join("scripts");
    let shared = read(&scripts.join("bench"));
    let mut commands = 0;
    for page in ["docs/bench.md", "docs/scaling.md"] {
        let text = read(&root().join(page));
        for command in text
            .lines()
            .filter_map(|line| line.strip_prefix("scripts/bench "))
        {
            let words = command.split('#').next().unwrap_or_default();
            let mut words = words.split_whitespace();
            let case = words.next().expect("a case");
            if case == "--help" {
                continue;
            }
            let options = read(&scripts.join(format!("bench.d/cases/{case}.py")));
            for option in words.filter(|word| word.starts_with("--")) {
                let declared = format!("\"{option}\"");
                assert!(
                    options.contains(&declared) || shared.contains(&declared),
                    "{page}: scripts/bench {command}"
                );
            }
            commands += 1;
        }
    }
    assert!(commands > 10, "{commands} commands were found");
}

/// The rows of the tables of a page, cell by cell.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("| "));
    lines
        .map(|line| {
            line.trim_end_matches('|')
                .split('|')
                .map(str::trim)
                .collect()
        })
        .collect()
}

/// What a formula of numbers, names, `+ - * /` and parentheses comes to, from left to right, with a blank between its
/// words.
struct Formula<'a> {
    words: std::iter::Peekable<std::str::SplitWhitespace<'a>>,
    known: &'a BTreeMap<String, f64>,
}

impl Formula<'_> {
    fn sum(&mut self) -> f64 {
        let mut sum = self.product();
        while let Some(sign) = self.words.next_if(|word| matches!(*word, "+" | "-")) {
            let next = self.product();
            sum += if sign == "+" { next } else { -next };
        }
        sum
    }

    fn product(&mut self) -> f64 {
        let mut product = self.value();
        while let Some(sign) = self.words.next_if(|word| matches!(*word, "*" | "/")) {
            let next = self.value();
            product *= if sign == "*" { next } else { 1.0 / next };
        }
        product
    }

    fn value(&mut self) -> f64 {
        let word = self.words.next().expect("a value");
        if word == "(" {
            let sum = self.sum();
            assert_eq!(self.words.next(), Some(")"));
            return sum;
        }
        let number = word.parse().ok();
        number
            .or_else(|| self.known.get(word).copied())
            .unwrap_or_else(|| panic!("{word} is no number and was not given before"))
    }
}

/// In docs/scaling.md, rows `name | value | …` give numbers, and rows `name | formula | value | …` what follows from
/// them and from rows before, to within two in a hundred.
#[test]
fn the_plan_for_many_nodes_is_what_its_formulas_come_to() {
    let page = read(&root().join("docs/scaling.md"));
    let mut known = BTreeMap::new();
    let mut computed = 0;
    for row in rows(&page) {
        let cell = |at: usize| row.get(at).map_or("", |cell| cell.trim_matches('`'));
        let number = |at: usize| cell(at).replace(',', "").parse::<f64>().ok();
        let is_name = row.first().is_some_and(|name| name.starts_with('`'));
        let (Some(value), true) = (number(1).or(number(2)), is_name) else {
            continue;
        };
        if number(1).is_none() {
            let words = cell(1).split_whitespace().peekable();
            let known = &known;
            let found = Formula { words, known }.sum();
            let is_near = (found - value).abs() <= 0.02 * found.abs();
            assert!(is_near, "{}: {value} is not {found}", cell(0));
            computed += 1;
        }
        known.insert(cell(0).to_owned(), value);
    }
    assert!(computed > 10, "{computed} formulas were found");
}
