//! Redis: RESP2 in, RESP2 out. No other protocol, and no decision that `policy` can take.

pub mod args;
mod block;
mod blocking;
mod class;
pub mod client;
mod commands_entry;
pub mod commands_reply;
mod cursor;
mod digest;
mod dispatch;
pub mod duty;
mod entry;
mod explain;
mod failure;
mod fan_out;
mod feed;
pub mod flags;
mod flight;
mod forms;
pub mod frame;
mod fuzz_replies;
mod fuzz_requests;
#[doc(hidden)]
pub mod fuzzing;
mod gather;
mod handshake;
pub mod hub;
mod info;
pub mod inline;
pub mod insight;
pub mod keys;
mod learn;
mod lease;
pub mod library;
mod line;
mod local;
pub mod multi;
mod names;
mod options;
mod outbox;
mod perfect;
mod pin;
pub mod probe;
mod reply;
mod route;
pub mod scan;
mod scripts;
pub mod session;
mod sluice;
pub mod spec;
mod split;
#[cfg(test)]
mod stage;
pub mod table;
mod table_data;
mod tally;
#[cfg(test)]
mod testing;
mod tree;
mod tree_merge;
mod turn;
mod upload;
pub mod upstream;
mod waiting;
mod wire;

pub use reply::refused;
