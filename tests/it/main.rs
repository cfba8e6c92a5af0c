//! Sluice as its users see it: the built binary in front of real servers, spoken to over sockets.
//! It does not look inside, but for `control`, `probe` and `table`, which hold a part of it against
//! real servers; what is pure is tested beside the code.

#![expect(clippy::disallowed_methods, reason = "the bans are for src: fakes and load have threads")]

mod access_log;
mod balance;
mod control;
mod harness;
mod http_again;
mod http_blame;
mod http_browser;
mod http_drain;
mod http_errors;
mod http_expect;
mod http_faults;
mod http_grpc;
mod http_headers;
mod http_hostile;
mod http_hostile_h2;
mod http_rogue;
mod http_routes;
mod http_shards;
mod http_smuggling;
mod http_sticky;
mod http_stream;
mod http_trailers;
mod http_two;
mod http_upgrade;
mod limits;
mod operator;
mod probe;
mod redis_auth;
mod redis_big;
mod redis_blocking;
mod redis_client_cmds;
mod redis_clients;
mod redis_coalesce;
mod redis_dedicated;
mod redis_faults;
mod redis_forms;
mod redis_hostile;
mod redis_insight;
mod redis_local;
mod redis_multi;
mod redis_order;
mod redis_pubsub;
mod redis_reads;
mod redis_resp3;
mod redis_rogue;
mod redis_route;
mod redis_scripts;
mod redis_sessions;
mod redis_soak;
mod redis_spread;
mod redis_users;
mod redis_wait;
mod redis_workers;
mod server;
mod slots;
mod table;
mod tcp;
mod tcp_clients;
mod tcp_edges;
mod tls;
mod tls_files;
