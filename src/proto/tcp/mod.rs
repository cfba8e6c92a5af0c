//! TCP: any protocol, passed on as it is. Nothing here looks at a byte.

pub mod hub;
pub mod probe;
pub mod session;
