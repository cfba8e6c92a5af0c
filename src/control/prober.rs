//! Which kind of probe a backend gets, and the one shape in which all kinds tell how it went. Not
//! the asking itself: each protocol has its own.

use crate::{
    net::{addr::Address, tls},
    policy::gate::Role,
    proto::{
        redis::{
            self,
            probe::{Code, Phase, ProbeError, Report},
        },
        tcp,
    },
    topology::{Cluster, Credentials, Layout},
};
use std::{io, time::Duration};

/// What the backends of one cluster are asked, and as whom.
#[derive(Clone, Debug)]
pub(super) enum Spec {
    Redis(Credentials),
    Tcp,
}

/// Probes one backend again and again.
#[derive(Debug)]
pub(super) enum Prober {
    Redis(Box<redis::probe::Prober>),
    Tcp(Address, Option<tls::Client>),
}

impl Spec {
    pub(super) fn of(cluster: &Cluster) -> Self {
        match cluster.layout {
            Layout::Shards => Self::Redis(cluster.credentials.clone()),
            Layout::Fixed | Layout::Group { .. } => Self::Tcp,
        }
    }
}

impl Prober {
    /// Under `tls`, where there is some, as requests are sent.
    pub(super) fn new(address: Address, tls: Option<tls::Client>, spec: Spec) -> Self {
        match spec {
            Spec::Redis(credentials) => {
                let prober = redis::probe::Prober::new(address, credentials);
                Self::Redis(Box::new(prober.with_tls(tls)))
            }
            Spec::Tcp => Self::Tcp(address, tls),
        }
    }

    /// One probe; `timeout` covers all of it.
    ///
    /// # Errors
    /// When the backend does not answer as a healthy one.
    pub(super) async fn probe(&mut self, timeout: Duration) -> Result<Report, ProbeError> {
        match self {
            Self::Redis(prober) => prober.probe(timeout).await,
            Self::Tcp(address, tls) => {
                match tcp::probe::probe(address, tls.as_ref(), timeout).await {
                    Ok(()) => Ok(CONNECTED),
                    Err(error) => Err(not_connected(address, &error)),
                }
            }
        }
    }
}

fn not_connected(address: &Address, error: &io::Error) -> ProbeError {
    let timed_out = error.kind() == io::ErrorKind::TimedOut;
    ProbeError {
        address: address.to_string(),
        phase: Phase::Connect,
        code: if timed_out { Code::Timeout } else { Code::Connect },
        what: error.to_string(),
    }
}

/// All that a connection tells.
const CONNECTED: Report =
    Report { role: Role::None, offset: None, replication_id: None, redis_version: None };
