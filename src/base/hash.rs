//! Hashers with a random seed, because clients choose what is hashed.
//!
//! With the feature `contract`, the seeds are from the standard library's randomness in place of time and addresses: a
//! simulation controls that, and with it the order of maps.

#[cfg(not(feature = "contract"))]
pub use foldhash::{fast::RandomState, quality::RandomState as QualityRandomState};

#[cfg(feature = "contract")]
pub use seeded::{QualityRandomState, RandomState};

#[cfg(feature = "contract")]
mod seeded {
    use std::hash::BuildHasher;
    use std::sync::LazyLock;

    use foldhash::{SharedSeed, fast, quality};

    static SHARED: LazyLock<SharedSeed> = LazyLock::new(|| SharedSeed::from_u64(random()));

    fn random() -> u64 {
        std::hash::RandomState::new().hash_one(0)
    }

    macro_rules! random_states {
        ($($name:ident by $variant:ident;)*) => {$(
            /// Like the state of that variant of foldhash.
            #[derive(Clone, Debug)]
            pub struct $name($variant::SeedableRandomState);

            impl Default for $name {
                fn default() -> Self {
                    Self($variant::SeedableRandomState::with_seed(random(), &SHARED))
                }
            }

            impl BuildHasher for $name {
                type Hasher = $variant::FoldHasher<'static>;

                fn build_hasher(&self) -> Self::Hasher {
                    self.0.build_hasher()
                }
            }
        )*};
    }

    random_states! {
        RandomState by fast;
        QualityRandomState by quality;
    }
}
