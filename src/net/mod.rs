//! Sockets, addresses and buffers: how bytes move. It does not know what a command, a shard or a
//! replica is.

pub mod addr;
pub mod buffer;
pub mod dial;
pub mod early;
mod linger;
pub mod listener;
pub mod memory;
pub mod origin;
pub mod outgoing;
pub mod pool;
pub mod prefix;
pub mod proxy_protocol;
pub mod relay;
pub mod spawn;
mod splice;
pub mod stream;
pub mod tls;
