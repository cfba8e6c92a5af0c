//! Redis: RESP2 in, RESP2 out.

pub mod args;
pub mod client;
mod cursor;
mod dispatch;
mod entry;
mod failure;
mod fan_out;
pub mod frame;
mod gather;
mod handshake;
pub mod hub;
mod info;
pub mod keys;
mod line;
mod local;
mod names;
mod outbox;
mod perfect;
pub mod reply;
mod route;
pub mod scan;
pub mod session;
mod split;
pub mod table;
mod table_data;
pub mod upstream;
