//! HTTP: probes of web servers.

pub mod exchange;
pub mod probe;
