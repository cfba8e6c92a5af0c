//! Which backend of a cluster a token stands for. Not whether it may be picked.

use super::Codec;
use foldhash::fast::FixedState;
use std::collections::HashMap;

/// What stands for a backend in a cookie's value; it has no byte that a cookie may not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(Box<str>);

/// The tokens of a cluster's backends, by their places. Made with the cluster.
#[derive(Clone, Debug, Default)]
pub struct Jar {
    /// Clients look up what they like, but nothing they send is put in: the seed may be known.
    places: HashMap<Box<[u8]>, usize, FixedState>,
    tokens: Box<[Token]>,
}

impl Jar {
    /// The tokens of backends by their ids, in order. Of two with the same id the first counts.
    pub fn new<'i>(codec: &Codec, ids: impl IntoIterator<Item = &'i str>) -> Self {
        let tokens: Box<[Token]> = ids.into_iter().map(|id| codec.token(id)).collect();
        let mut places = HashMap::with_capacity_and_hasher(tokens.len(), FixedState::default());
        for (place, token) in tokens.iter().enumerate() {
            places.entry(token.0.as_bytes().into()).or_insert(place);
        }
        Self { places, tokens }
    }

    /// The place of the backend in the list that was given.
    #[inline]
    pub fn index(&self, token: &[u8]) -> Option<usize> {
        self.places.get(token).copied()
    }

    /// What [`Codec::write`] needs for the backend at that place.
    pub fn token(&self, index: usize) -> Option<&Token> {
        self.tokens.get(index)
    }
}

impl Token {
    pub(super) fn new(text: String) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}
