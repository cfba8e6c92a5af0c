//! One folder a protocol. A protocol decodes, classifies and answers; it names no thread and no
//! runtime, and no other protocol.
//!
//! There is no trait over them: which protocol a listener speaks, and how a backend is probed, are
//! closed sets that the worker and control match on, so that each protocol has the arguments it
//! needs and nothing is boxed.

pub mod admission;
pub mod http;
pub mod redis;
pub mod tcp;
