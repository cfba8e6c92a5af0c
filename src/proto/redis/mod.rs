//! Redis: RESP2 in, RESP2 out.

pub mod args;
pub mod probe;
pub mod table;
