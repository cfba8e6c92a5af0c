//! The kinds of connection a worker keeps to one backend: what a server remembers of a connection
//! (its database, the version of its replies) must be the same for all who share it. Not the
//! connections themselves: those are [`super::upstream`]'s.

/// What all requests on one connection have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Class {
    pub db: u8,
    pub resp: Resp,
    pub lane: Lane,
    /// Whose name and password it was opened with; 0: the cluster's own.
    pub identity: u32,
}

/// Who may keep whom waiting: a server reads nothing more of a connection on which a script runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lane {
    #[default]
    Usual,
    /// For what must be heard meanwhile: SCRIPT KILL.
    Aside,
}

/// The version of the protocol in which a server answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Resp {
    #[default]
    Two,
    Three,
}

impl Class {
    /// Whether it is one of the few that a worker always has at hand; the others are closed when
    /// nobody has wanted them for a while.
    pub(super) fn is_usual(self) -> bool {
        self.lane == Lane::Usual && self.identity == 0
    }

    /// The same beside the usual one; in database 0, for a server that is busy with a script refuses
    /// SELECT.
    pub(super) fn aside(self) -> Self {
        Self { lane: Lane::Aside, db: 0, ..self }
    }

    /// Its place among the usual connections to one backend, dense from 0.
    pub(super) fn index(self) -> usize {
        2 * usize::from(self.db) + usize::from(self.resp == Resp::Three)
    }
}
