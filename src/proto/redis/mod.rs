//! Redis: RESP2 or RESP3 in, the same out. No other protocol, and no decision that `policy` can take.

pub mod args;
mod card;
pub mod class;
pub mod client;
mod client_list;
mod client_reply;
mod commands_entry;
pub mod commands_reply;
mod cursor;
mod dispatch;
pub mod duty;
mod entry;
mod failure;
mod fan_out;
mod feed;
pub mod flags;
mod forms;
pub mod frame;
mod fuzz_replies;
mod fuzz_requests;
#[doc(hidden)]
pub mod fuzzing;
mod gather;
mod handshake;
mod hello;
pub mod hub;
mod info;
pub mod inline;
pub mod keys;
mod learn;
mod lease;
pub mod library;
mod line;
mod local;
mod names;
mod options;
mod outbox;
mod pause;
pub mod peers;
mod perfect;
mod pin;
pub mod probe;
mod reply;
mod route;
pub mod scan;
mod scripts;
pub mod session;
pub mod spec;
mod split;
#[cfg(test)]
mod stage;
pub mod table;
mod table_data;
mod tally;
#[cfg(test)]
mod testing;
mod tracking;
mod tree;
mod turn;
mod upload;
pub mod upstream;
mod wire;

pub use reply::refused;
