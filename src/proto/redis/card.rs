//! What a client has said of itself and asked for its connection, kept where the questions of other
//! sessions reach it. Not the list made of it: that is [`super::client_list`].

use super::{class::Class, lease::Lease, mark::Viewer};
use crate::topology::{Cluster, ReadRules};
use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::Arc,
};

/// One client's, from its connection's first moment to its last.
#[derive(Debug, Default)]
pub(super) struct Card {
    /// Microseconds on the worker's clock.
    pub born_us: u64,
    /// CLIENT SETNAME.
    pub name: Vec<u8>,
    /// CLIENT SETINFO.
    pub library: Vec<u8>,
    pub library_version: Vec<u8>,
    pub class: Class,
    /// CLIENT NO-EVICT and NO-TOUCH: told, but without a meaning on connections that are shared.
    pub no_evict: bool,
    pub no_touch: bool,
    /// Its command waits in the server.
    pub is_blocked: bool,
    /// The connections on which it does.
    pub held: Weak<RefCell<Vec<Lease>>>,
    /// Bytes of its requests that were read and wait, or are not complete.
    pub unread: Cell<usize>,
    /// It hears all that its server does.
    pub hears: Option<Hears>,
    /// Requests queued since MULTI.
    pub queued: Option<u32>,
    /// CLIENT TRACKING.
    pub tracking: Option<Tracking>,
    /// What it has written and seen, by cluster.
    viewers: Vec<(usize, Rc<Viewer>)>,
}

/// As what a client hears a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hears {
    /// MONITOR.
    Monitor,
    /// SYNC and PSYNC.
    Replica,
}

/// How a client wants to be told of keys that changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tracking {
    pub broadcast: bool,
    pub opt_in: bool,
    pub opt_out: bool,
    pub no_loop: bool,
    /// The client that is told instead.
    pub redirect: Option<u64>,
}

impl Card {
    /// What it has written and seen of a cluster that has rules for reads, if it was there.
    pub(super) fn viewer(&self, cluster: usize) -> Option<Rc<Viewer>> {
        let viewer = self.viewers.iter().find(|(id, _)| *id == cluster);
        viewer.map(|(_, viewer)| Rc::clone(viewer))
    }

    /// The same of one where it is now.
    pub(super) fn viewer_of(&mut self, cluster: &Cluster, rules: &Arc<ReadRules>) -> Rc<Viewer> {
        if let Some(viewer) = self.viewer(cluster.id).filter(|viewer| viewer.is_of(cluster)) {
            return viewer;
        }
        let viewer = Rc::new(Viewer::new(cluster, rules));
        self.viewers.retain(|(id, _)| *id != cluster.id);
        self.viewers.push((cluster.id, Rc::clone(&viewer)));
        viewer
    }

    /// Everything that RESET takes back.
    pub(super) fn reset(&mut self) {
        self.name.clear();
        self.class = Class::default();
        (self.no_evict, self.no_touch) = (false, false);
        (self.tracking, self.hears) = (None, None);
    }
}
