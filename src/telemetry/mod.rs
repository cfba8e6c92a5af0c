//! Counters, metric names, the log and the access log. It depends on nothing of ours, so anyone but policy may use it.

pub mod access_log;
pub mod log;
pub mod metrics;
pub mod names;
