//! A connection that one request can be sent on: from the pool, dialled now, or shared by many over
//! HTTP/2. Not which backend it leads to.

use super::{hub::Hub, shared::Shared, site::Site, upstream::Upstream};
use crate::{
    net::dial::{Opening, dial},
    topology::{Cluster, Connected},
};
use std::{io, sync::Arc, time::Duration};

/// A connection for one request.
#[derive(Debug)]
pub(super) enum Line {
    /// For this request alone; `used`: it has carried others.
    Own { upstream: Box<Upstream>, used: bool },
    /// HTTP/2: others are on it too.
    Shared(Shared),
}

/// Which idle connection will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    /// The request may be sent again should it prove closed.
    Any,
    /// One that was just used: the request may not be sent again.
    Fresh,
    /// One has proved closed for this request, and others of its age may be too.
    None,
}

impl Line {
    /// A connection that is idle, where there is one.
    pub(super) fn idle(hub: &Hub, site: &Site, reuse: Reuse) -> Option<Self> {
        let freshness = match reuse {
            Reuse::Any => Some(u64::MAX),
            Reuse::Fresh => Some(FRESH_US),
            Reuse::None => None,
        };
        let idle = || freshness.and_then(|most_us| site.pool.take(hub.now_us(), most_us));
        while let Some(mut upstream) = idle() {
            if upstream.is_quiet() {
                return Some(Self::Own { upstream, used: true });
            }
        }
        None
    }

    /// A connection that is made now, or shared; `http2`: how long such a one may be idle.
    ///
    /// # Errors
    /// Why the backend could not be connected to.
    pub(super) async fn open(
        hub: &Hub,
        cluster: &Cluster,
        http2: Option<Duration>,
        site: &Site,
    ) -> io::Result<Self> {
        if let Some(idle) = http2 {
            return site.joint.get(hub, cluster, site, idle).await.map(Self::Shared);
        }
        let opening = Opening { alpn: &[b"http/1.1"], ..Opening::tls(cluster.tls.as_ref()) };
        let stream = dial(&site.backend.address, opening, cluster.timeouts.connect).await?;
        let connected = Connected::new(hub.chooser.worker(), Arc::clone(&site.backend));
        Ok(Self::Own { upstream: Box::new(Upstream::new(stream, connected)), used: false })
    }

    pub(super) fn is_used(&self) -> bool {
        match self {
            Self::Own { used, .. } => *used,
            Self::Shared(_) => true,
        }
    }
}

/// http-tcp.md: a request that may not be retried prefers a connection used within the last second.
const FRESH_US: u64 = 1_000_000;
