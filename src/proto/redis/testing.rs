//! Requests, a worker's hub and a cluster, for unit tests. Not compiled into the program.

use super::{
    args::{Args, Span},
    hub::{Hub, Parts},
    peers::Peers,
};
use crate::{
    net::{memory::Memory, spawn::Spawn},
    policy::{balance::Balancer, reads::ReadFrom, shard::Sharding},
    telemetry::metrics::WorkerMetrics,
    topology::{self, Backend, Cluster, Credentials, Reporter, Shard, Timeouts, Topology},
};
use std::{rc::Rc, sync::Arc};

/// A request's bytes and the places of its arguments.
#[derive(Debug)]
pub(super) struct Request {
    frame: Vec<u8>,
    spans: Vec<Span>,
}

impl Request {
    pub(super) fn new<W: AsRef<[u8]>>(words: impl IntoIterator<Item = W>) -> Self {
        let (mut frame, mut spans) = (Vec::new(), Vec::new());
        for word in words {
            let word = word.as_ref();
            frame.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            let number = |n: usize| u32::try_from(n).unwrap();
            spans.push(Span { start: number(frame.len()), len: number(word.len()) });
            frame.extend_from_slice(word);
            frame.extend_from_slice(b"\r\n");
        }
        Self { frame, spans }
    }

    pub(super) fn args(&self) -> Args<'_> {
        Args { frame: &self.frame, spans: &self.spans }
    }
}

/// A worker without clusters, whose tasks never run.
pub(super) fn hub() -> Rc<Hub> {
    Hub::new(Parts {
        worker: 0,
        metrics: Arc::new(WorkerMetrics::default()),
        reporter: Reporter::channel().0,
        memory: Memory::default(),
        spawn: Spawn::new(drop),
        topology: topology::channel(Topology::default()).1,
        commands: Vec::new(),
        library: Arc::default(),
        seed: 1,
        ids: Arc::default(),
        insight: Arc::default(),
        peers: Peers::none(),
        audience: Arc::default(),
    })
}

/// One shard of one server.
pub(super) fn cluster() -> Cluster {
    let address = "127.0.0.1:1".parse().unwrap();
    let backend = Backend::new(0, "c".into(), "s0".into(), address, 1, 1);
    Cluster {
        id: 0,
        name: "c".into(),
        order: ["s0".into()].into(),
        shards: vec![Shard {
            name: "s0".into(),
            members: vec![Arc::new(backend)],
            replicas: Balancer::new(Default::default(), &[]),
            any: Balancer::new(Default::default(), &[1]),
            pinned: None,
            fail_open: Default::default(),
            present: Default::default(),
        }],
        layout: Default::default(),
        sharding: Sharding::One,
        reads: ReadFrom::Primary,
        read_rules: None,
        keyless: 0,
        shebang_reads: false,
        timeouts: Timeouts::default(),
        credentials: Credentials::default(),
        tls: None,
        queue: None,
        asks_role: false,
        dedicated: Default::default(),
        follows: None,
        outage: Default::default(),
        turns: None,
        heirs: Arc::new(tokio::sync::Semaphore::new(2)),
    }
}
