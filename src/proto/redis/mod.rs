//! Redis: RESP2 in, RESP2 out.

pub mod args;
pub mod commands_reply;
pub mod inline;
pub mod keys;
mod learn;
mod names;
mod perfect;
pub mod table;
mod table_data;
mod tree;
mod wire;
