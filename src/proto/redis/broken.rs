//! How an upstream connection ended: why, and how far it had come. Not what becomes of what was under
//! way on it: that is [`super::failure`].

use std::sync::Arc;

/// Why a connection ended, and in which phase.
#[derive(Debug, thiserror::Error)]
#[error("backend {backend}: {phase}: {reason}")]
pub struct UpstreamError {
    pub backend: Arc<str>,
    pub phase: Phase,
    pub reason: String,
    /// We ran out of descriptors or memory: no fault of the backend's.
    pub ours: bool,
    /// The server's own words to what waits: it runs a script and was told nothing.
    pub busy: Option<Vec<u8>>,
}

/// How far a connection had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Connect,
    Handshake,
    /// It says that it is no primary.
    Role,
    Write,
    Read,
    /// What the backend sent is not RESP, or answers nothing we asked.
    Protocol,
    /// Control took the backend out.
    Evicted,
    /// It was one session's own, and nobody has a use for it any more.
    Released,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Handshake => "handshake",
            Self::Role => "role",
            Self::Write => "write",
            Self::Read => "read",
            Self::Protocol => "protocol",
            Self::Evicted => "out of rotation",
            Self::Released => "released",
        })
    }
}
