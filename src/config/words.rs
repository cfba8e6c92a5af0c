//! The words of the closed sets, in the order in which they are listed to users. Not their
//! meaning: that is with the types.

use super::{LogFormat, Multi, Protocol, RequestId, ShardingBy};
use crate::{
    net::{proxy_protocol::Version, tls},
    policy::{
        access::Access,
        balance::{Failback, Strategy},
        gate::Admin,
        hash::Hash,
        reads::ReadFrom,
        sticky::{Mode, SameSite, Secure},
    },
    topology::{Consistency, FailOpen, Spoof},
};

/// Words and what they stand for.
pub(super) type Words<T> = &'static [(&'static str, T)];

pub(super) const LOG_FORMAT: Words<LogFormat> =
    &[("text", LogFormat::Text), ("json", LogFormat::Json)];
pub(super) const LOG_FORMAT_WORDS: &[&str] = &names::<2, _>(LOG_FORMAT);

pub(super) const PROTOCOL: Words<Protocol> =
    &[("redis", Protocol::Redis), ("tcp", Protocol::Tcp), ("http", Protocol::Http)];
pub(super) const PROTOCOL_WORDS: &[&str] = &names::<3, _>(PROTOCOL);

pub(super) const REQUEST_ID: Words<RequestId> =
    &[("pass", RequestId::Pass), ("make", RequestId::Make)];
pub(super) const REQUEST_ID_WORDS: &[&str] = &names::<2, _>(REQUEST_ID);

pub(super) const AUTH: Words<bool> = &[("listener", false), ("passthrough", true)];
pub(super) const AUTH_WORDS: &[&str] = &names::<2, _>(AUTH);

pub(super) const READ_FROM: Words<ReadFrom> = &[
    ("primary", ReadFrom::Primary),
    ("prefer_replica", ReadFrom::PreferReplica),
    ("replica", ReadFrom::Replica),
    ("any", ReadFrom::Any),
];
pub(super) const READ_FROM_WORDS: &[&str] = &names::<4, _>(READ_FROM);

pub(super) const CONSISTENCY: Words<Consistency> = &[
    ("eventual", Consistency::Eventual),
    ("session", Consistency::Session),
    ("key", Consistency::Key),
    ("window", Consistency::Window),
];
pub(super) const CONSISTENCY_WORDS: &[&str] = &names::<4, _>(CONSISTENCY);

pub(super) const STRATEGY: Words<Strategy> = &[
    ("p2c", Strategy::P2c),
    ("round_robin", Strategy::RoundRobin),
    ("least_connections", Strategy::LeastConnections),
    ("peak_ewma", Strategy::PeakEwma),
    ("random", Strategy::Random),
    ("client_ip", Strategy::ClientIp),
    ("maglev", Strategy::Maglev),
    ("failover", Strategy::Failover),
];
pub(super) const STRATEGY_WORDS: &[&str] = &names::<8, _>(STRATEGY);

pub(super) const SHARDING: Words<ShardingBy> = &[
    ("slots", ShardingBy::Slots),
    ("ketama", ShardingBy::Ketama),
    ("maglev", ShardingBy::Maglev),
    ("jump", ShardingBy::Jump),
    ("modulo", ShardingBy::Modulo),
    ("range", ShardingBy::Range),
    ("directory", ShardingBy::Directory),
];
pub(super) const SHARDING_WORDS: &[&str] = &names::<7, _>(SHARDING);

pub(super) const HASH: Words<Hash> = &[
    ("fnv1a_64", Hash::Fnv1a64),
    ("fnv1_64", Hash::Fnv1_64),
    ("fnv1a_32", Hash::Fnv1a32),
    ("fnv1_32", Hash::Fnv1_32),
    ("crc16", Hash::Crc16),
    ("crc32", Hash::Crc32),
    ("crc32a", Hash::Crc32a),
    ("md5", Hash::Md5),
    ("murmur", Hash::Murmur),
    ("jenkins", Hash::Jenkins),
    ("hsieh", Hash::Hsieh),
    ("one_at_a_time", Hash::OneAtATime),
    ("xxh3", Hash::Xxh3),
];
pub(super) const HASH_WORDS: &[&str] = &names::<13, _>(HASH);

pub(super) const FAILBACK: Words<Failback> =
    &[("auto", Failback::Auto), ("manual", Failback::Manual)];
pub(super) const FAILBACK_WORDS: &[&str] = &names::<2, _>(FAILBACK);

pub(super) const FAIL_OPEN: Words<FailOpen> =
    &[("never", FailOpen::Never), ("all_down", FailOpen::AllDown)];
pub(super) const FAIL_OPEN_WORDS: &[&str] = &names::<2, _>(FAIL_OPEN);

pub(super) const SPOOF: Words<Spoof> =
    &[("off", Spoof::Off), ("self", Spoof::Myself), ("list", Spoof::List)];
pub(super) const SPOOF_WORDS: &[&str] = &names::<3, _>(SPOOF);

/// Whether every client has connections of its own.
pub(super) const UPSTREAM_MODE: Words<bool> = &[("shared", false), ("dedicated", true)];
pub(super) const UPSTREAM_MODE_WORDS: &[&str] = &names::<2, _>(UPSTREAM_MODE);

pub(super) const MULTI: Words<Multi> = &[("buffered", Multi::Buffered), ("pinned", Multi::Pinned)];
pub(super) const MULTI_WORDS: &[&str] = &names::<2, _>(MULTI);

pub(super) const SEND_PROXY: Words<Version> = &[("v1", Version::V1), ("v2", Version::V2)];
pub(super) const SEND_PROXY_WORDS: &[&str] = &names::<2, _>(SEND_PROXY);

pub(super) const ADMIN: Words<Admin> =
    &[("ready", Admin::Ready), ("drain", Admin::Drain), ("disabled", Admin::Disabled)];
pub(super) const ADMIN_WORDS: &[&str] = &names::<3, _>(ADMIN);

pub(super) const COOKIE_MODE: Words<Mode> =
    &[("plain", Mode::Plain), ("opaque", Mode::Opaque), ("signed", Mode::Signed)];
pub(super) const COOKIE_MODE_WORDS: &[&str] = &names::<3, _>(COOKIE_MODE);

pub(super) const SAME_SITE: Words<SameSite> =
    &[("strict", SameSite::Strict), ("lax", SameSite::Lax), ("none", SameSite::None)];
pub(super) const SAME_SITE_WORDS: &[&str] = &names::<3, _>(SAME_SITE);

pub(super) const SECURE: Words<Secure> =
    &[("auto", Secure::Auto), ("true", Secure::Always), ("false", Secure::Never)];
pub(super) const SECURE_WORDS: &[&str] = &names::<3, _>(SECURE);

/// Whether MGET embeds the error of a shard.
pub(super) const MGET: Words<bool> = &[("fail", false), ("embed", true)];
pub(super) const MGET_WORDS: &[&str] = &names::<2, _>(MGET);

pub(super) const ACCESS: Words<Access> = &[("read", Access::Read), ("write", Access::Write)];
pub(super) const ACCESS_WORDS: &[&str] = &names::<2, _>(ACCESS);

pub(super) const TLS_VERSION: Words<tls::Version> =
    &[("1.2", tls::Version::V1_2), ("1.3", tls::Version::V1_3)];
pub(super) const TLS_VERSION_WORDS: &[&str] = &names::<2, _>(TLS_VERSION);

/// The word for a value; empty for a value without one.
pub(super) fn word<T: PartialEq>(words: Words<T>, value: &T) -> &'static str {
    words.iter().find(|(_, other)| other == value).map_or("", |(word, _)| word)
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler; const has no get")]
const fn names<const N: usize, T>(words: &[(&'static str, T)]) -> [&'static str; N] {
    assert!(words.len() == N);
    let mut names = [""; N];
    let mut i = 0;
    while i < N {
        names[i] = words[i].0;
        i += 1;
    }
    names
}
