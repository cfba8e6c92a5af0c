//! What a session has written and seen, for reads of replicas that promise something (redis.md,
//! T43), and the mark that a request carries while it is under way. Not where a read goes: that is
//! [`super::reading`].
//!
//! A mark counts up when it is made and down when it is dropped, whatever became of its request:
//! answered, lost with its connection, or never sent. The clock is read when it is dropped, behind
//! the reply.

use super::{
    entry::{Entry, Owner},
    upstream::Upstream,
};
use crate::{
    policy::{
        access::Access,
        fresh::{Floor, Line, unknown_until},
    },
    topology::{Cluster, Consistency, Freshness, ReadRules, Written},
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// One session at one cluster that has rules for reads.
#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) rules: Arc<ReadRules>,
    cluster: usize,
    /// How long an answer may take.
    request: Duration,
    /// Of the request that is being sent.
    touch: RefCell<Touch>,
    /// Of all writes of the open transaction.
    queued: RefCell<Touch>,
    /// By shard, for [`Consistency::Session`].
    floors: RefCell<Vec<Seen>>,
}

/// A shard by name, and what was seen of it.
type Seen = (Arc<str>, Rc<Cell<Floor>>);

/// What of a shard a request has to do with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Touch {
    Nothing,
    One(u16),
    Many(Vec<u16>),
    /// Nobody knows.
    #[default]
    All,
}

impl Touch {
    fn join(&mut self, other: &Self) {
        let places = |touch: &Self| match touch {
            Self::Nothing => Some(Vec::new()),
            Self::One(place) => Some(vec![*place]),
            Self::Many(places) => Some(places.clone()),
            Self::All => None,
        };
        let both = places(self).zip(places(other)).map(|(mine, others)| [mine, others].concat());
        *self = both.map_or(Self::All, Self::of);
    }

    /// Of these keys; of too many of them nobody keeps count.
    pub(super) fn of(mut places: Vec<u16>) -> Self {
        places.sort_unstable();
        places.dedup();
        match places.as_slice() {
            [] => Self::Nothing,
            [one] => Self::One(*one),
            many if many.len() > MOST_PLACES => Self::All,
            _ => Self::Many(places),
        }
    }
}

impl Viewer {
    pub(super) fn new(cluster: &Cluster, rules: &Arc<ReadRules>) -> Self {
        let timeouts = &cluster.timeouts;
        Self {
            rules: Arc::clone(rules),
            cluster: cluster.id,
            request: if timeouts.request.is_zero() { timeouts.stall } else { timeouts.request },
            touch: RefCell::default(),
            queued: RefCell::default(),
            floors: RefCell::default(),
        }
    }

    pub(super) fn is_of(&self, cluster: &Cluster) -> bool {
        let rules = cluster.read_rules.as_ref();
        self.cluster == cluster.id && rules.is_some_and(|rules| Arc::ptr_eq(rules, &self.rules))
    }

    /// What is sent from here on has to do with that.
    pub(super) fn touches(&self, touch: Touch) {
        *self.touch.borrow_mut() = touch;
    }

    /// The same, of a request in the open transaction.
    pub(super) fn queues(&self, touch: &Touch) {
        self.queued.borrow_mut().join(touch);
    }

    /// A transaction begins.
    pub(super) fn begin_queue(&self) {
        *self.queued.borrow_mut() = Touch::Nothing;
    }

    /// What the open transaction has to do with.
    pub(super) fn queued(&self) -> Touch {
        self.queued.borrow().clone()
    }

    /// What a replica of that shard must have to be read now, at `now_ms`; `elsewhere` of the
    /// connection that it is read over already.
    pub(super) fn newer_than(&self, fresh: &Freshness, shard: &Arc<str>, now_ms: u64) -> u64 {
        let window = || now_ms.saturating_sub(ms(fresh.window));
        match fresh.promise {
            Consistency::Eventual => 0,
            Consistency::Session => self.floor(shard).get().elsewhere(),
            Consistency::Window => window(),
            Consistency::Key => {
                let keys = match &*self.touch.borrow() {
                    Touch::One(place) => fresh.key(*place).0,
                    Touch::Many(places) => {
                        places.iter().map(|place| fresh.key(*place).0).max().unwrap_or(u64::MAX)
                    }
                    Touch::Nothing | Touch::All => u64::MAX,
                };
                keys.max(fresh.shard(shard).0)
            }
        }
    }

    /// What the session has seen of that shard.
    pub(super) fn floor(&self, shard: &Arc<str>) -> Rc<Cell<Floor>> {
        let mut floors = self.floors.borrow_mut();
        if let Some((_, floor)) = floors.iter().find(|(name, _)| name == shard) {
            return Rc::clone(floor);
        }
        let floor = Rc::default();
        floors.push((Arc::clone(shard), Rc::clone(&floor)));
        floor
    }

    /// What the entry changes or sees, while it is under way.
    fn mark(self: Rc<Self>, entry: &Entry, upstream: &Upstream) -> Option<Mark> {
        let fresh = self.rules.freshness.as_ref()?;
        let backend = &upstream.backend;
        let writes = entry.access == Access::Write;
        let touch = self.touch.borrow();
        let what = match fresh.promise {
            Consistency::Eventual | Consistency::Window => return None,
            _ if *touch == Touch::Nothing => return None,
            Consistency::Key if !writes => return None,
            Consistency::Key => match &*touch {
                Touch::Nothing => return None,
                Touch::One(place) => What::Key(*place),
                Touch::Many(places) => What::Keys(places.clone()),
                Touch::All => What::Shard(Arc::clone(&backend.shard)),
            },
            Consistency::Session => {
                let floor = self.floor(&backend.shard);
                // A primary's answer is as new as can be; a try that failed elsewhere is not traced.
                match writes || entry.tried.is_some() || backend.gate().primary() {
                    true => What::Seen(floor, writes),
                    false => What::Replica(floor, upstream.line()),
                }
            }
        };
        drop(touch);
        Some(Mark::new(self, what))
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct Mark {
    viewer: Rc<Viewer>,
    what: What,
    end: Ending,
}

#[derive(Debug)]
enum What {
    Key(u16),
    Keys(Vec<u16>),
    Shard(Arc<str>),
    /// The session has written, or reads what is newest.
    Seen(Rc<Cell<Floor>>, bool),
    /// The session reads a replica.
    Replica(Rc<Cell<Floor>>, Line),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Its bytes left and no answer came: the server may have it still.
    Unknown,
    Answered,
    Unsent,
}

impl Mark {
    fn new(viewer: Rc<Viewer>, what: What) -> Self {
        let mark = Self { viewer, what, end: Ending::Unknown };
        mark.each(|fresh, written| fresh.begin(written));
        match &mark.what {
            What::Seen(floor, _) => floor.set(floor.get().with(floor.get().word.begun())),
            What::Replica(floor, line) => floor.set(floor.get().asked(*line)),
            What::Key(_) | What::Keys(_) | What::Shard(_) => {}
        }
        mark
    }

    /// Its reply was read.
    pub(super) fn answered(&mut self) {
        self.end = Ending::Answered;
    }

    /// No byte of it has left, and none will.
    pub(super) fn unsent(&mut self) {
        self.end = Ending::Unsent;
    }

    fn each(&self, change: impl Fn(&Freshness, Written<'_>)) {
        let Some(fresh) = &self.viewer.rules.freshness else { return };
        match &self.what {
            What::Key(place) => change(fresh, Written::Key(*place)),
            What::Keys(places) => places.iter().for_each(|at| change(fresh, Written::Key(*at))),
            What::Shard(name) => change(fresh, Written::Shard(name)),
            What::Seen(..) | What::Replica(..) => {}
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let Some(fresh) = &self.viewer.rules.freshness else { return };
        let writes = !matches!(self.what, What::Seen(_, false) | What::Replica(..));
        let now_ms = fresh.ms(Instant::now().into_std());
        let at_ms = match self.end {
            Ending::Unknown if writes => unknown_until(now_ms, self.viewer.request),
            Ending::Unsent => 0,
            Ending::Unknown | Ending::Answered => now_ms,
        };
        self.each(|fresh, written| fresh.end(written, at_ms));
        match &self.what {
            What::Seen(floor, _) => floor.set(floor.get().with(floor.get().word.ended(at_ms))),
            What::Replica(floor, _) => floor.set(floor.get().answered(at_ms)),
            What::Key(_) | What::Keys(_) | What::Shard(_) => {}
        }
    }
}

/// A request is about to be sent over that connection. One that nobody has said anything of may
/// write whatever it likes.
pub(super) fn attach(upstream: &Upstream, entry: &mut Entry) {
    let before = entry.mark.take();
    if let Some(mut mark) = before {
        if !matches!(mark.what, What::Replica(..)) {
            mark.end = Ending::Unknown;
            entry.mark = Some(mark);
            return;
        }
        // Before the old one goes: the session must not seem to wait for nothing in between.
        entry.mark = Rc::clone(&mark.viewer).mark(entry, upstream).map(Box::new);
        mark.answered();
        return;
    }
    let Owner::Client(client) = &entry.owner else { return };
    let viewer = client.card().viewer(upstream.cluster);
    entry.mark = viewer.and_then(|viewer| viewer.mark(entry, upstream)).map(Box::new);
}

/// A request was passed on of which nobody will know when it is answered.
pub(super) fn unheard(viewer: Rc<Viewer>, upstream: &Upstream) -> Mark {
    let shard = Arc::clone(&upstream.backend.shard);
    let session = viewer.rules.freshness.as_ref().map(|fresh| fresh.promise);
    let what = match session == Some(Consistency::Session) {
        true => What::Seen(viewer.floor(&shard), true),
        false => What::Shard(shard),
    };
    Mark::new(viewer, what)
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A request with more keys counts for its whole shard.
const MOST_PLACES: usize = 64;
