//! The patches in `tests/sim/breakages`, which break the sources on purpose: each has to apply to the sources as they
//! are. `scripts/sim --breakages` checks that the simulator finds them.

use std::fs;
use std::path::Path;

/// One place that a patch changes: the lines that have to be there, and those that take their place.
struct Hunk<'a> {
    file: &'a str,
    before: String,
    after: String,
}

fn hunks(patch: &str) -> Vec<Hunk<'_>> {
    let mut hunks: Vec<Hunk<'_>> = Vec::new();
    let mut file = "";
    for line in patch.split_inclusive('\n') {
        if let Some(path) = line.strip_prefix("+++ b/") {
            file = path.trim_end();
        } else if line.starts_with("@@ ") {
            hunks.push(Hunk {
                file,
                before: String::new(),
                after: String::new(),
            });
        } else if line.starts_with("diff --git ") {
            file = "";
        } else if let Some(hunk) = hunks.last_mut().filter(|hunk| hunk.file == file) {
            let text = &line[1..];
            match line.as_bytes()[0] {
                b' ' => {
                    hunk.before += text;
                    hunk.after += text;
                }
                b'-' => hunk.before += text,
                b'+' => hunk.after += text,
                _ => {}
            }
        }
    }
    hunks
}

#[test]
fn each_breakage_applies_to_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = 0;
    for entry in fs::read_dir(root.join("tests/sim/breakages")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_none_or(|extension| extension != "patch")
        {
            continue;
        }
        found += 1;
        let patch = fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy();
        let hunks = hunks(&patch);
        assert!(!hunks.is_empty(), "{name} changes nothing");
        for hunk in hunks {
            let source = fs::read_to_string(root.join(hunk.file)).unwrap();
            let places = source.matches(&hunk.before).count();
            assert!(
                places == 1 && hunk.before != hunk.after,
                "{name} does not fit {} any more; there are {places} places for\n{}",
                hunk.file,
                hunk.before
            );
        }
    }
    assert!(found >= 12, "only {found} breakages are there");
}
