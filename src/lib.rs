//! Sluice: a layer-4/7 proxy and load balancer that stands between applications and their storage.
//!
//! This file is the map. Follow one `GET user:1` through the types:
//!
//! 1. [`net::listener`] accepts the socket and hands it to the least busy worker of [`server`].
//! 2. [`proto::redis::session`] reads a batch; [`proto::redis::frame`] finds the requests in it.
//! 3. [`proto::redis::table`] says it is a read with its key at argument 1; [`policy::slot`] hashes
//!    the key; the [`topology::Cluster`] names the shard that owns the slot.
//! 4. [`policy::reads`] and [`policy::balance`] pick a ready [`topology::Backend`].
//! 5. The request's bytes are appended to that backend's shared connection
//!    ([`proto::redis::upstream`]); a place in the client's line ([`proto::redis::client`]) waits.
//! 6. The reply is measured where it lies and copied into the client's output, in the client's
//!    order; one write per client per batch.
//!
//! A `SET` differs in step 4 alone: it goes to the shard's primary. Beside this path,
//! [`control`] probes every backend, and is the only writer of the [`topology`].
//!
//! A connection of [`proto::tcp`] has two steps alone: a pick, and [`net::relay`].

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        clippy::unwrap_used
    )
)]

pub mod cli;
pub mod config;
pub mod control;
pub mod net;
pub mod policy;
pub mod proto;
pub mod server;
pub mod telemetry;
pub mod topology;
