//! Where reads may go. Not which one of them it is: that is [`super::balance`].

/// `reads.from`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// The primary only.
    #[default]
    Primary,
    /// Replicas; the primary when no replica is ready.
    PreferReplica,
    /// Replicas only, else an error.
    Replica,
    /// Primary and replicas alike.
    Any,
}

/// A set of a shard's members in which a read looks for a ready one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Every member whose gate says replica.
    Replicas,
    /// Every member whose gate says primary or replica.
    Any,
    /// The member whose gate says primary.
    Primary,
}

/// The sources a read tries, the second only when nothing in the first is ready. A write goes to
/// the primary and does not ask.
pub const fn order(from: ReadFrom) -> [Option<Source>; 2] {
    match from {
        ReadFrom::Primary => [Some(Source::Primary), None],
        ReadFrom::PreferReplica => [Some(Source::Replicas), Some(Source::Primary)],
        ReadFrom::Replica => [Some(Source::Replicas), None],
        ReadFrom::Any => [Some(Source::Any), None],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_prefer_replica_falls_back() {
        use Source::{Any, Primary, Replicas};
        assert_eq!(order(ReadFrom::Primary), [Some(Primary), None]);
        assert_eq!(order(ReadFrom::PreferReplica), [Some(Replicas), Some(Primary)]);
        assert_eq!(order(ReadFrom::Replica), [Some(Replicas), None]);
        assert_eq!(order(ReadFrom::Any), [Some(Any), None]);
    }
}
