//! Assembles everything from a configuration and runs it: binds, starts control and the workers,
//! waits for a signal, drains. It contains no decision.

mod access_log;
mod http;
mod limits;
mod mailbox;
mod signal;
mod worker;

use crate::{
    config::{Config, LogFormat, Multi, Protocol},
    control::{self, build, process::ProcessState},
    net::{addr::Bind, listener::Listener, memory::Memory, tls},
    proto::{
        http::{session::PROTOCOLS, settings::ClusterSettings},
        redis::{
            self,
            audience::Audience,
            client,
            hub::Shared,
            insight::{self, Insight},
            multi::Rules,
            table::{Commands, Custom},
            users::{Password, User},
        },
        tcp,
    },
    telemetry::{
        log,
        metrics::{ClusterMetrics, Counter, ListenerMetrics, WorkerMetrics},
    },
    topology::{self, Reporter, door::Door},
};
use access_log::Logging;
use signal::Stop;
use std::{
    io,
    num::NonZeroUsize,
    sync::{Arc, atomic::AtomicU64},
};
use tokio_util::sync::CancellationToken;
pub(crate) use worker::block_on;
use worker::{Crew, Settings, Start};

/// Why the process could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("listener {name}: bind {bind}")]
    Bind { name: String, bind: Bind, source: io::Error },
    #[error("access log {path}")]
    AccessLog { path: String, source: io::Error },
    #[error("a thread ended, see the log; this is a bug in sluice")]
    ThreadEnded,
    #[error("TLS of {what}")]
    Tls { what: String, source: tls::FileError },
    #[error("{what}")]
    Start { what: &'static str, source: io::Error },
}

/// Runs until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// What kept it from starting: an address in use, mostly.
pub fn run(config: Config) -> Result<(), RunError> {
    let _log = log::start(config.log.format == LogFormat::Json, &config.log.level);
    log::panics();
    tracing::info!("sluice {} starts", env!("CARGO_PKG_VERSION"));
    let descriptors = limits::raise_descriptors();
    let workers = config.workers.map_or_else(cores, NonZeroUsize::get);
    let clients = limits::clients(&config, descriptors, workers);
    let logging = Logging::start(config.access_log.as_ref())?;
    let (served, asked) = (served_tls(&config)?, asked_tls(&config)?);
    let sentinel_tls = sentinel_tls(&config)?;
    let listeners = bind_all(&config)?;
    let admin = control::admin::bind(&config.admin)
        .map_err(|source| RunError::Start { what: "admin address", source })?;

    if let Some(address) = admin.tcp.as_ref().and_then(|admin| admin.local_addr().ok()) {
        tracing::info!("status and metrics on http://{address}");
    }
    for socket in &admin.sockets {
        tracing::info!("changes on unix:{}", socket.path().display());
    }

    let metrics = worker_metrics(&config, workers);
    let (publisher, reader) = topology::channel(build::build(&config, workers, &asked));
    let (reporter, reports) = Reporter::channel();
    let state = Arc::new(ProcessState::new());
    let stop = CancellationToken::new();
    for (listener, configured) in listeners.iter().zip(&config.listeners) {
        tracing::info!(
            listener = %configured.name,
            cluster = %cluster_name(&config, configured.cluster),
            "listening on {}",
            listener.local()
        );
    }
    let doors: Vec<_> = config.listeners.iter().map(door).collect();
    let http_clusters = http::clusters(&config);
    let memory = Memory { limit: limits::memory(&config), workers: metrics.clone().into() };
    let each = config.listeners.iter().zip(&doors).enumerate();
    let watched = config.clusters.iter().map(insight_options);
    let insight = Arc::new(Insight::new(watched, workers));
    let crew = Crew::start(Start {
        settings: each
            .zip(&served)
            .map(|((index, (listener, door)), tls)| {
                let tls = tls.clone();
                settings(&config, index, listener, tls, &http_clusters, door, &memory)
            })
            .collect(),
        doors: doors.clone(),
        listeners,
        redis: Shared {
            commands: config.clusters.iter().map(commands).collect(),
            ids: Arc::new(AtomicU64::new(0)),
            insight: Arc::clone(&insight),
            audience: Arc::new(Audience::new(config.clusters.len())),
            library: Arc::default(),
        },
        metrics: metrics.clone(),
        memory,
        access_log: logging.log.clone(),
        reporter,
        reader,
        clients,
        state: Arc::clone(&state),
        stop: stop.clone(),
    })
    .map_err(|source| RunError::Start { what: "worker threads", source })?;
    let bell = crew.bell();
    let inputs = control::Inputs {
        commands: Commands::builtin().iter().map(|c| c.name.to_ascii_lowercase()).collect(),
        config: config.clone(),
        insight,
        publisher,
        tls: served,
        sentinel_tls,
        reports,
        workers: metrics,
        access_log: logging.dropped(),
        admin,
        on_change: Arc::new(move || bell.gates_changed()),
        state: Arc::clone(&state),
        shutdown: stop.clone(),
    };
    let control = control::start(inputs)
        .map_err(|source| RunError::Start { what: "control thread", source })?;
    state.set_listeners_bound();

    let ended = signal::wait_and_drain(&config.shutdown, &state, &crew, &control);
    stop.cancel();
    crew.join();
    let _ = control.join();
    logging.finish();
    match ended.map_err(|source| RunError::Start { what: "signals", source })? {
        Stop::Signal => Ok(()),
        Stop::ThreadEnded => Err(RunError::ThreadEnded),
    }
}

fn bind_all(config: &Config) -> Result<Vec<Listener>, RunError> {
    let bind = |l: &crate::config::Listener| {
        Listener::bind(&l.bind).map_err(|source| RunError::Bind {
            name: l.name.clone(),
            bind: l.bind.clone(),
            source,
        })
    };
    config.listeners.iter().map(bind).collect()
}

/// What each listener shows to and asks of its clients.
fn served_tls(config: &Config) -> Result<Vec<Option<tls::Server>>, RunError> {
    let load = |listener: &crate::config::Listener| {
        let Some(files) = listener.tls.clone() else { return Ok(None) };
        let alpn = match listener.protocol {
            Protocol::Http => PROTOCOLS,
            Protocol::Redis | Protocol::Tcp => &[],
        };
        tls::Server::load(&listener.name, files, alpn).map(Some).map_err(|source| {
            let what = format!("listener {}", listener.name);
            RunError::Tls { what, source }
        })
    };
    config.listeners.iter().map(load).collect()
}

/// What each cluster asks of and shows to its backends.
fn asked_tls(config: &Config) -> Result<Vec<Option<tls::Client>>, RunError> {
    let load = |cluster: &crate::config::Cluster| {
        let Some(files) = cluster.tls.clone() else { return Ok(None) };
        tls::Client::load(files).map(Some).map_err(|source| {
            let what = format!("cluster {}", cluster.name);
            RunError::Tls { what, source }
        })
    };
    config.clusters.iter().map(load).collect()
}

/// What each cluster asks of and shows to its Sentinels.
fn sentinel_tls(config: &Config) -> Result<Vec<Option<tls::Client>>, RunError> {
    let load = |cluster: &crate::config::Cluster| {
        let files = cluster.sentinel.as_ref().and_then(|sentinel| sentinel.tls.clone());
        let Some(files) = files else { return Ok(None) };
        tls::Client::load(files).map(Some).map_err(|source| {
            let what = format!("the Sentinels of cluster {}", cluster.name);
            RunError::Tls { what, source }
        })
    };
    config.clusters.iter().map(load).collect()
}

fn door(listener: &crate::config::Listener) -> Arc<Door> {
    Arc::new(Door::new(listener.name.as_str().into(), listener.limits))
}

fn settings(
    config: &Config,
    index: usize,
    listener: &crate::config::Listener,
    tls: Option<tls::Server>,
    http_clusters: &Arc<[ClusterSettings]>,
    door: &Arc<Door>,
    memory: &Memory,
) -> Settings {
    match listener.protocol {
        Protocol::Redis => Settings::Redis(redis::session::Settings {
            tls,
            ..redis_settings(config, index, listener)
        }),
        Protocol::Http => Settings::Http(http::settings(
            config,
            index,
            listener,
            tls,
            Arc::clone(http_clusters),
            Arc::clone(door),
            memory.clone(),
        )),
        Protocol::Tcp => Settings::Tcp(tcp::session::Settings {
            listener: index,
            name: listener.name.as_str().into(),
            cluster: listener.cluster,
            trusted: listener.proxy_protocol.clone(),
            tls,
            door: Arc::clone(door),
        }),
    }
}

/// What a Redis listener's sessions are told of the configuration.
pub fn redis_settings(
    config: &Config,
    index: usize,
    listener: &crate::config::Listener,
) -> redis::session::Settings {
    let redis = &listener.redis;
    let timeouts = config.clusters.get(listener.cluster).map(|cluster| cluster.timeouts);
    redis::session::Settings {
        listener: index,
        name: listener.name.as_str().into(),
        cluster: listener.cluster,
        password: redis.password.as_ref().map(|secret| secret.0.clone()),
        users: redis.users.iter().map(user).map(Arc::new).collect(),
        passthrough: redis.passthrough,
        routes: routes(listener),
        max_bulk: redis.max_bulk,
        limits: client::Limits {
            output: usize::try_from(redis.client_output_limit).unwrap_or(usize::MAX),
            pipeline: redis.max_pipeline,
            idle: timeouts.unwrap_or_default().client_idle,
            grace: redis.slow_client_grace,
        },
        split_writes: redis.split_writes,
        mget_embeds: redis.mget_embeds,
        allow: redis.allow.clone(),
        deny: redis.deny.clone(),
        keys_max: redis.keys_max,
        strict_order: redis.strict_order,
        multi: Rules {
            pinned: redis.multi == Multi::Pinned,
            max_commands: redis.multi_max_commands,
            max_bytes: redis.multi_max_bytes,
        },
        tls: None,
    }
}

fn user(user: &crate::config::RedisUser) -> User {
    User {
        name: user.name.clone(),
        passwords: user.passwords.iter().map(|one| Password(one.0.clone())).collect(),
        commands: user.commands.clone(),
        deny: user.deny.clone(),
        allow: user.allow.clone(),
        key_prefixes: user.key_prefixes.clone(),
        cluster: user.cluster,
        upstream: user.upstream.clone(),
    }
}

/// Those with a prefix, the longest first; the rest is the listener's cluster.
fn routes(listener: &crate::config::Listener) -> Vec<redis::Route> {
    let routes = listener.routes.iter().filter_map(|route| {
        let prefix = route.key_prefix.as_ref()?.as_bytes().to_vec();
        Some(redis::Route { prefix, strip: route.strip, cluster: route.cluster })
    });
    let mut routes: Vec<_> = routes.collect();
    routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
    routes
}

/// The commands that a cluster's listeners know.
pub fn commands(cluster: &crate::config::Cluster) -> Commands {
    Commands::builtin().with_custom(cluster.commands.iter().map(|custom| Custom {
        name: &custom.name,
        access: custom.access,
        keys: custom.keys,
    }))
}

fn insight_options(cluster: &crate::config::Cluster) -> insight::Options {
    let redis = cluster.redis;
    insight::Options {
        slow: redis.slow,
        slow_entries: redis.slow_entries,
        big: usize::try_from(redis.big).unwrap_or(usize::MAX),
        redact: redis.redact,
        coalesce: redis.coalesce,
    }
}

fn worker_metrics(config: &Config, workers: usize) -> Vec<Arc<WorkerMetrics>> {
    // One more for commands that are not in the table.
    let commands = Commands::builtin().len() + 1;
    let counters = || (0..commands).map(|_| Counter::default()).collect();
    let one = || WorkerMetrics {
        listeners: config.listeners.iter().map(|_| ListenerMetrics::default()).collect(),
        clusters: config.clusters.iter().map(|_| ClusterMetrics::default()).collect(),
        commands: counters(),
        big_requests: counters(),
        big_replies: counters(),
        ..WorkerMetrics::default()
    };
    (0..workers).map(|_| Arc::new(one())).collect()
}

fn cluster_name(config: &Config, index: usize) -> &str {
    config.clusters.get(index).map_or("", |cluster| &cluster.name)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}
