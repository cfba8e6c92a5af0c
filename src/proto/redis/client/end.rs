//! How a session ends. Not who ends it, nor what is said then.

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closed or vanished.
    Client,
    /// QUIT.
    Quit,
    /// There was no TLS handshake.
    Handshake,
    /// What it sent is not Redis protocol.
    Protocol,
    /// It read too slowly: `redis.client_output_limit`.
    OutputLimit,
    /// Others waited for longer than `redis.slow_client_grace` behind what it did not read.
    SlowReader,
    /// `limits.memory`.
    Memory,
    /// CLIENT KILL.
    Killed,
    /// The server that was to tell it of changed keys is lost: what it has kept of them may be old.
    TrackingLost,
    /// `timeouts.client_idle`.
    Idle,
    /// We are stopping.
    Shutdown,
    /// The server closed the connection that was the client's own.
    Backend,
    /// A reply was cut in the middle by a backend.
    ReplyCut,
}
