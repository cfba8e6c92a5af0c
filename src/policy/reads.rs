//! Where reads may go.

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
