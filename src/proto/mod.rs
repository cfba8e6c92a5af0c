//! One folder a protocol. A protocol decodes, classifies and answers; it names no thread and no
//! runtime, and no other protocol.

pub mod redis;
pub mod tcp;
