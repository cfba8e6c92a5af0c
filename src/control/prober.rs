//! Which kind of probe a backend gets, and the one shape in which all kinds tell how it went. Not
//! the asking itself: each protocol has its own.

use crate::{
    config,
    net::{addr::Address, tls},
    policy::gate::Role,
    proto::{
        http::{self, probe::Fault},
        redis::{
            self,
            probe::{Code, Phase, ProbeError, Report},
        },
        tcp,
    },
    topology::{Cluster, Credentials, HttpCheck, Layout},
};
use ::http::Method;
use std::{io, rc::Rc, time::Duration};

/// What the backends of one cluster are asked, and as whom.
#[derive(Clone, Debug)]
pub(super) enum Spec {
    Redis(Credentials),
    Tcp,
    /// As TCP, but on suspicion an HTTP request.
    Web,
    Http(Rc<HttpCheck>),
}

/// Probes one backend again and again.
#[derive(Debug)]
pub(super) enum Prober {
    Redis(Box<redis::probe::Prober>),
    Tcp(Address, Option<tls::Client>),
    Web(Address, Option<tls::Client>),
    Http(Address, Option<tls::Client>, Rc<HttpCheck>),
}

/// What a server that answered well said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) report: Report,
    /// In its own words, where the report does not tell it.
    pub(super) said: Option<String>,
    /// The share of the traffic that it asks for.
    pub(super) weight: Option<u32>,
}

impl Spec {
    pub(super) fn of(written: &config::Cluster, cluster: &Cluster) -> Self {
        match (cluster.layout, &written.http_check) {
            (Layout::Shards, _) => Self::Redis(cluster.credentials.clone()),
            (Layout::Fixed | Layout::Group { .. }, Some(check)) => {
                Self::Http(Rc::new(check.clone()))
            }
            (Layout::Fixed | Layout::Group { .. }, None) => match written.protocol {
                config::Protocol::Http => Self::Web,
                _ => Self::Tcp,
            },
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
            Spec::Web => Self::Web(address, tls),
            Spec::Http(check) => Self::Http(address, tls, check),
        }
    }

    /// One probe; `timeout` covers all of it.
    ///
    /// # Errors
    /// When the backend does not answer as a healthy one.
    pub(super) async fn probe(&mut self, timeout: Duration) -> Result<Answer, ProbeError> {
        let report = match self {
            Self::Redis(prober) => prober.probe(timeout).await,
            Self::Tcp(address, tls) | Self::Web(address, tls) => {
                match tcp::probe::probe(address, tls.as_ref(), timeout).await {
                    Ok(()) => Ok(CONNECTED),
                    Err(error) => Err(not_connected(address, &error)),
                }
            }
            Self::Http(address, tls, check) => {
                return match http::probe::probe(address, tls.as_ref(), check, timeout).await {
                    Ok(answer) => Ok(told(answer)),
                    Err(fault) => Err(not_well(address, &fault)),
                };
            }
        };
        Ok(Answer { report: report?, said: None, weight: None })
    }

    /// Whether a server that seems to hang still answers; `timeout` covers all of it. The kernel
    /// accepts for a process that is stopped, so a connection says nothing of a web server: any
    /// answer at all does, be it an error or another protocol's.
    ///
    /// # Errors
    /// When it does not.
    pub(super) async fn suspect(&mut self, timeout: Duration) -> Result<Answer, ProbeError> {
        let Self::Web(address, tls) = self else { return self.probe(timeout).await };
        let check =
            HttpCheck { method: Method::HEAD, status: vec![(100, 599)], ..HttpCheck::default() };
        match http::probe::probe(address, tls.as_ref(), &check, timeout).await {
            Ok(answer) => Ok(told(answer)),
            Err(Fault::Connect(error)) => Err(not_connected(address, &error)),
            Err(fault @ Fault::Timeout(_)) => Err(not_well(address, &fault)),
            Err(Fault::Broken(_) | Fault::Status(_) | Fault::Body(_)) => {
                Ok(Answer { report: CONNECTED, said: None, weight: None })
            }
        }
    }
}

fn told(answer: http::probe::Answer) -> Answer {
    let weight = answer.weight.map(|weight| format!(", weight {weight}")).unwrap_or_default();
    let said = Some(format!("{}{weight}", answer.status));
    Answer { report: CONNECTED, said, weight: answer.weight }
}

fn not_well(address: &Address, fault: &Fault) -> ProbeError {
    let (phase, code) = match fault {
        Fault::Connect(error) => return not_connected(address, error),
        Fault::Timeout(_) => (Phase::Http, Code::Timeout),
        Fault::Broken(_) => (Phase::Http, Code::Protocol),
        Fault::Status(_) | Fault::Body(_) => (Phase::Http, Code::Refused),
    };
    ProbeError { address: address.to_string(), phase, code, what: fault.to_string() }
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
