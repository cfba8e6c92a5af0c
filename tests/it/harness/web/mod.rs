//! What the tests of http stand on: nginx, an origin of our own that counts, clients that say any
//! bytes they like. It holds no test of Sluice; its own are at the end.

mod browser;
mod client;
mod h2;
mod h2_frames;
mod mutations;
mod nginx;
mod origin;
mod smuggle;
mod visitor;
mod wire;

#[cfg(test)]
mod own;

pub(crate) use browser::Browser;
pub(crate) use client::{HttpConn, Response};
pub(crate) use h2::exchange;
pub(crate) use h2_frames::{Frame, RawH2, frame, literal};
pub(crate) use mutations::{Expected, Mutation, mutations};
pub(crate) use nginx::Nginx;
pub(crate) use origin::Origin;
pub(crate) use smuggle::{Outcome, smuggle};
pub(crate) use visitor::Visitor;
