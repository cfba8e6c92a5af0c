//! Redis: RESP2 in, RESP2 out.

pub mod args;
pub mod keys;
mod names;
mod perfect;
pub mod table;
mod table_data;
