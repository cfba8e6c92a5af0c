//! The kinds of connection a worker keeps to one backend: what a server remembers of a connection
//! (its database, the version of its replies) must be the same for all who share it. Not the
//! connections themselves: those are [`super::upstream`]'s.

/// What all requests on one connection have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Class {
    pub db: u8,
    pub resp: Resp,
}

/// The version of the protocol in which a server answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Resp {
    #[default]
    Two,
    Three,
}

impl Class {
    /// Its place among the connections to one backend, dense from 0.
    pub(super) fn index(self) -> usize {
        2 * usize::from(self.db) + usize::from(self.resp == Resp::Three)
    }
}
