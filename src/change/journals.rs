//! Names of journals. Each start of a node has its own journal, `NODE#START.RANDOM`, so two
//! processes with the same name never mistake each other's batches for their own, even after a pause, or after
//! a cache or a database was restored from a backup. Earlier versions had one journal for all starts, named
//! after the node.

/// Separates the node from the start; names of nodes don't contain it.
pub const SEPARATOR: char = '#';

/// The node that a journal belongs to.
pub fn node_of(journal: &str) -> &str {
    match journal.rsplit_once(SEPARATOR) {
        Some((node, _)) => node,
        None => journal,
    }
}

/// A name for the journal of a node that starts now, given those of its earlier starts; `journals`
/// may contain those of other nodes, too.
pub fn next<'a>(node: &str, journals: impl IntoIterator<Item = &'a str>) -> String {
    let earlier = journals.into_iter().filter(|it| node_of(it) == node);
    let last = earlier.map(|it| order_of(it).0).max().unwrap_or(0);
    let start = last.saturating_add(1);
    format!("{node}{SEPARATOR}{start}.{:08x}", fastrand::u32(..))
}

/// Whether `other` is the journal of a later start of the same node: if both run, the later one
/// owns the name.
pub fn is_later(other: &str, own: &str) -> bool {
    node_of(other) == node_of(own) && order_of(other) > order_of(own)
}

/// Sorts journals by node and start. Leftovers are applied in that order, because reports of a later start
/// of a node count as later.
pub fn sort_by_start<T>(entries: &mut [(String, T)]) {
    entries.sort_by(|(one, _), (other, _)| {
        let key = |journal| (node_of(journal), order_of(journal));
        key(one).cmp(&key(other))
    });
}

/// The number of the start that a journal belongs to; 0 for a journal of an earlier version, which is for all starts.
pub fn start_of(journal: &str) -> u64 {
    order_of(journal).0
}

/// The number of the start, and the random part.
fn order_of(journal: &str) -> (u64, &str) {
    let start = journal
        .rsplit_once(SEPARATOR)
        .map_or("", |(_, start)| start);
    let (number, random) = start.split_once('.').unwrap_or((start, ""));
    (number.parse().unwrap_or(0), random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_the_name_after_all_others() {
        let first = next("a", []);
        assert_eq!(node_of(&first), "a");
        assert!(first.starts_with("a#1."), "{first}");
        let names = ["a", "b#9.00000000", &first, "a#7.00000000"];
        assert!(next("a", names).starts_with("a#8."));
    }

    #[test]
    fn the_later_start_has_the_name() {
        assert!(is_later("a#2.00000000", "a#1.ffffffff"));
        assert!(is_later("a#10.00000000", "a#9.00000000"));
        assert!(is_later("a#2.00000002", "a#2.00000001"));
        assert!(is_later("a#1.00000000", "a"));
        assert!(!is_later("a#2.00000000", "a#2.00000000"));
        assert!(!is_later("b#3.00000000", "a#2.00000000"));
    }

    #[test]
    fn earlier_starts_of_a_node_come_first() {
        let names = [
            "b#2.00000000",
            "a#10.00000000",
            "a#9.ffffffff",
            "a",
            "b#1.00000000",
        ];
        let mut entries = names.map(|name| (name.to_owned(), ()));
        sort_by_start(&mut entries);
        let sorted = entries.map(|(name, ())| name);
        let expected = [
            "a",
            "a#9.ffffffff",
            "a#10.00000000",
            "b#1.00000000",
            "b#2.00000000",
        ];
        assert_eq!(sorted, expected);
    }

    #[test]
    fn a_journal_of_an_earlier_version_is_named_as_its_node() {
        assert_eq!(node_of("a"), "a");
        assert_eq!(node_of("a#3.0a0b0c0d"), "a");
    }
}
