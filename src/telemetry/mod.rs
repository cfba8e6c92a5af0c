//! Counters, metric names and the log. It depends on nothing of ours, so anyone but policy may use it.

pub mod log;
pub mod metrics;
pub mod names;
