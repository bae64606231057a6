//! The nearest of the words that would have been right.

/// The candidate that `word` was most likely meant to be, if any is near.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = plain(word);
    candidates
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&word, &plain(candidate));
            (distance, candidate)
        })
        .filter(|&(distance, candidate)| distance <= (candidate.len() / 3).max(1))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Without what people mix up most: case, and the sign between words.
fn plain(word: &str) -> String {
    word.to_lowercase().replace(['-', ' ', '.'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_word_that_was_meant() {
        let keys = ["announce_interval", "numwant", "max_numwant", "url"];
        for (typed, meant) in [
            ("anounce_interval", Some("announce_interval")),
            ("Announce-Interval", Some("announce_interval")),
            ("num_want", Some("numwant")),
            ("maxnumwant", Some("max_numwant")),
            ("ulr", Some("url")),
            ("password", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, keys), meant, "{typed}");
        }
    }
}
