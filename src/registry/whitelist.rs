//! The whitelist: the clients that may announce, by the first bytes of their peer id (BEP 20).

use crate::base::ids::PeerId;

/// One allowed client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPrefix {
    /// The first 1 to 20 bytes of `peer_id`, such as `-TR3000-` or `-qB`.
    pub prefix: String,
    /// Its name for people.
    pub name: String,
}

/// The prefixes of all allowed clients. An empty list allows none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whitelist {
    /// Sorted, so that equal lists are equal values.
    prefixes: Vec<Box<[u8]>>,
}

impl Whitelist {
    pub fn new(clients: &[ClientPrefix]) -> Self {
        let mut prefixes: Vec<Box<[u8]>> = clients
            .iter()
            .map(|client| client.prefix.as_bytes().into())
            .collect();
        prefixes.sort();
        prefixes.dedup();
        Self { prefixes }
    }

    pub fn allows(&self, peer_id: &PeerId) -> bool {
        self.prefixes
            .iter()
            .any(|prefix| peer_id.0.starts_with(prefix))
    }

    pub fn len(&self) -> usize {
        self.prefixes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_allows_what_begins_with_it() {
        let client = |prefix: &str| ClientPrefix {
            prefix: prefix.into(),
            name: "x".into(),
        };
        let list = Whitelist::new(&[client("-TR3000-"), client("-qB")]);
        assert!(list.allows(&PeerId(*b"-TR3000-abcdefghijkl")));
        assert!(list.allows(&PeerId(*b"-qB4500-abcdefghijkl")));
        assert!(!list.allows(&PeerId(*b"-TR2940-abcdefghijkl")));
        assert!(!Whitelist::default().allows(&PeerId([0; 20])));
    }
}
