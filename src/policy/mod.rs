//! Pure decisions over plain values. Nothing here reads a clock, draws a random number, does I/O,
//! logs or locks: time, dice and measurements are arguments.

pub mod access;
pub mod admin;
pub mod balance;
pub mod cookie;
pub mod dice;
pub mod fresh;
pub mod gate;
pub mod hash;
pub mod health;
pub mod hot;
pub mod latency;
pub mod limit;
pub mod maglev;
pub mod outlier;
pub mod reads;
pub mod retry;
pub mod ring;
pub mod shard;
pub mod slot;
pub mod sticky;
pub mod suspicion;
pub mod window;
pub mod wrr;
