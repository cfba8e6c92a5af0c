//! Servers that say themselves who owns which slot (Redis Cluster): their words, and what follows
//! from them for requests under way. Not when they are asked for all of it: that is control's.

pub mod ask;
mod detour;
mod order;
mod pinned;
mod role;
pub mod slots;
pub(super) mod spoof;
mod strangers;
mod turned;
mod way;

pub(super) use detour::{Detours, abandon, advance, passed, turned};
pub(super) use order::Turns;
pub(super) use strangers::Strangers;
pub(super) use way::channel_moved;
