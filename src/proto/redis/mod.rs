//! Redis: RESP2 in, RESP2 out.

pub mod args;
mod commands_entry;
pub mod commands_reply;
pub mod flags;
pub mod inline;
pub mod keys;
mod learn;
mod names;
mod options;
mod perfect;
pub mod spec;
pub mod table;
mod table_data;
#[cfg(test)]
mod testing;
mod tree;
mod wire;
