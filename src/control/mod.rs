//! The control plane.
pub mod build;
pub mod events;
pub mod process;
