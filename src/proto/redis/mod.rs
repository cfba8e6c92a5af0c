//! Redis: RESP2 in, RESP2 out.

pub mod args;
pub mod frame;
pub mod scan;
pub mod table;
