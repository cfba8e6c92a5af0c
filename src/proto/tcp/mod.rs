//! TCP: any protocol, passed on as it is.

pub mod hub;
mod pick;
pub mod probe;
pub mod session;
