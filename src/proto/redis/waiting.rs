//! A session that waits for its turn to have an upstream connection for itself, without holding up
//! its worker. Not the order of those who wait: that is the backend's semaphore.

use super::{
    dispatch::{Flow, Scene},
    lease::Lease,
    reply,
};
use crate::{policy::access::Access, topology::Backend};
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::OwnedSemaphorePermit as Permit, time::timeout};

/// Where a session is in the line of a backend.
#[derive(Default)]
pub(super) enum Waiting {
    #[default]
    Not,
    /// For a permit of the backend with that id.
    For(u32, Pin<Box<dyn Future<Output = Option<Permit>>>>),
    /// It is its turn, or the patience is over.
    Over(u32, Option<Permit>),
}

impl Waiting {
    /// For nobody's permit: until something that is on its way has come.
    pub(super) fn a_moment() -> Self {
        Self::until(tokio::time::sleep(A_MOMENT))
    }

    /// For nobody's permit: until that has come to its end.
    pub(super) fn until(end: impl Future<Output = ()> + 'static) -> Self {
        let end = async {
            end.await;
            None
        };
        Self::For(u32::MAX, Box::pin(end))
    }

    /// Whether its turn is still to come.
    pub(super) fn is_pending(&self) -> bool {
        matches!(self, Self::For(..))
    }

    /// Ready when its turn has come, or it has waited long enough.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self::For(backend, turn) = self else { return Poll::Pending };
        match turn.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(permit) => {
                *self = Self::Over(*backend, permit);
                Poll::Ready(())
            }
        }
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Not => "not",
            Self::For(..) => "waiting",
            Self::Over(..) => "over",
        })
    }
}

impl Scene<'_> {
    /// A connection to `backend` for this session alone.
    ///
    /// # Errors
    /// How the request ends that wanted it: held until there is one, or refused.
    pub(super) fn lease(&mut self, backend: &Arc<Backend>) -> Result<Lease, Flow> {
        let permit = match std::mem::take(&mut self.state.waiting) {
            Waiting::Over(id, Some(permit)) if id == backend.id => Some(permit),
            Waiting::Over(id, None) if id == backend.id => {
                self.hub.cell(backend).iter().for_each(|cell| cell.lease_refusals.add(1));
                self.give_back(backend);
                return Err(self.refuse(Access::Write, |out| {
                    out.extend_from_slice(reply::NO_DEDICATED);
                }));
            }
            pending @ Waiting::For(..) => {
                self.state.waiting = pending;
                self.give_back(backend);
                return Err(Flow::Hold);
            }
            Waiting::Not | Waiting::Over(..) => backend.leases.try_permit(),
        };
        match permit {
            Some(permit) => {
                Ok(Lease::take(self.hub, self.cluster, backend, self.state.class, permit))
            }
            None => {
                self.hub.cell(backend).iter().for_each(|cell| cell.lease_waits.add(1));
                let turn = timeout(self.cluster.dedicated.wait, backend.leases.permit());
                let turn = async move { turn.await.ok().flatten() };
                self.state.waiting = Waiting::For(backend.id, Box::pin(turn));
                self.client.look_ahead();
                self.give_back(backend);
                Err(Flow::Hold)
            }
        }
    }

    /// The pick comes to nothing: what it took of a half-open gate is somebody else's.
    pub(super) fn give_back(&self, backend: &Backend) {
        if backend.gate().half_open() {
            backend.give_permit();
        }
    }
}

/// A server on the same network has answered by then.
const A_MOMENT: Duration = Duration::from_millis(100);
