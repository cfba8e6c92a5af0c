//! TCP: any protocol, passed on as it is.

pub mod hub;
pub mod probe;
pub mod session;
