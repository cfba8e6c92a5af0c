//! What must hold of every parser of this folder, whatever bytes it is fed. Not the bytes: the
//! targets in fuzz/ and tests/corpus.rs choose those, and the program calls none of it.
//!
//! Each function takes any bytes and panics when an invariant is broken.

pub use super::{
    cluster::slots::fuzz as cluster_slots,
    fuzz_replies::{cursor, gather, learn, replies},
    fuzz_requests::{inline, keys, requests},
    handshake::fuzz as handshake,
    message::fuzz as messages,
    probe::fuzz as probe,
    sentinel::fuzz as sentinel,
};

/// Ends at which `len` bytes arrive one by one, or in at most 256 steps when they are many, so that
/// an input of any size takes milliseconds.
pub(super) fn steps(len: usize) -> impl Iterator<Item = usize> {
    let step = len / 256 + 1;
    (0..len).step_by(step).chain([len])
}
