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

/// Words as the end of a message: `"a", "b" or "c"`.
pub fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((only, _)) => only.clone(),
        None => "nothing".into(),
    }
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

    #[test]
    fn lists_the_words_as_a_sentence_does() {
        assert_eq!(one_of(["a"]), r#""a""#);
        assert_eq!(one_of(["a", "b", "c"]), r#""a", "b" or "c""#);
    }
}
