//! One request on its way: a backend, a connection to it, the question and the head of the answer;
//! and another backend when that is safe. Never a write again whose bytes left.

use super::{
    choice::Choice,
    download::Source,
    hub::Hub,
    line::{Line, Reuse},
    parcel::Parcel,
    reply::Refusal,
    settings::Settings,
    site::Site,
    trip::Trip,
    upstream::Lost,
    watch::Phase,
};
use crate::{
    net::listener::is_exhaustion,
    policy::{
        access::Access,
        dice::Dice,
        retry::{Effect, Verdict, decide},
    },
    proto::admission::admit,
    telemetry::metrics::RetryReason,
    topology::{Backend, Cluster, Lease, Outcome, admission::NotAdmitted},
};
use http::response::Parts;
use std::{io, rc::Rc, sync::Arc, time::Duration};

/// A request, and who may take it.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) hub: Rc<Hub>,
    pub(super) settings: Rc<Settings>,
    pub(super) choice: Choice,
    pub(super) parcel: Parcel,
    /// An idle connection has proved closed.
    pub(super) stale: bool,
}

/// The head of a reply, and the claims that last until its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Parts,
    /// What brings the body.
    pub(super) source: Source,
    /// Where its backend is among its likes.
    pub(super) place: usize,
    pub(super) lease: Lease,
    pub(super) site: Rc<Site>,
    /// When it was asked.
    pub(super) asked_us: u64,
}

/// Why one try brought no reply.
#[derive(Debug)]
enum Miss {
    Connect(io::Error),
    Lost { lost: Lost, used: bool },
}

impl Miss {
    /// Why there is another try, when there is one.
    fn reason(&self) -> RetryReason {
        match self {
            Self::Connect(_) => RetryReason::Connect,
            Self::Lost { lost: Lost::Unsent | Lost::Refused(_), .. } => RetryReason::Closed,
            Self::Lost { lost: Lost::Broken(error), used: true } if error.is_close() => {
                RetryReason::Closed
            }
            Self::Lost { lost: Lost::Broken(_) | Lost::Due, .. } => RetryReason::Lost,
            Self::Lost { lost: Lost::Moved, .. } => RetryReason::Moved,
        }
    }
}

impl Errand {
    /// Sends the request, to another backend when one fails.
    ///
    /// # Errors
    /// What the client is told when no backend has answered.
    pub(super) async fn run(&mut self, trip: &Trip) -> Result<Answer, Refusal> {
        let mut tries = 0;
        let (mut newest, mut reason) = (None, None);
        loop {
            let (place, lease) = match self.claim().await {
                Ok(claimed) => claimed,
                Err(NotAdmitted::Overloaded) => {
                    return Err(newest.unwrap_or_else(|| Refusal::overloaded(&self.cluster().name)));
                }
                Err(NotAdmitted::Nobody) => {
                    let none = || Refusal::no_backend(self.choice.why_not());
                    return Err(newest.unwrap_or_else(none));
                }
            };
            let backend = &Arc::clone(lease.backend());
            if let Some(reason) = reason {
                trip.retried(reason);
            }
            tries += 1;
            let miss = match self.ask((place, lease), trip).await {
                Ok(answer) => return Ok(answer),
                Err(miss) => miss,
            };
            self.blame(backend, &miss, trip);
            let refusal = self.refusal(backend, &miss, trip, tries);
            reason = Some(miss.reason());
            if !self.again(place, miss, trip, tries) {
                return Err(refusal);
            }
            newest = Some(refusal);
            let most = BACKOFF_US << tries.min(6);
            let wait = Dice::new(self.hub.chooser.draw()).below(most);
            Box::pin(tokio::time::sleep(Duration::from_micros(wait))).await;
        }
    }

    /// A claim on a backend that was not tried, as soon as one has room.
    async fn claim(&mut self) -> Result<(usize, Lease), NotAdmitted> {
        let (hub, turn) = (&*self.hub, self.choice.turn());
        let cluster = Arc::clone(self.choice.cluster());
        let counted = hub.counted(cluster.id);
        admit(&cluster, counted, turn, || self.choice.next(hub)).await
    }

    /// One try.
    async fn ask(&mut self, (place, lease): (usize, Lease), trip: &Trip) -> Result<Answer, Miss> {
        let site = self.hub.site(lease.backend());
        trip.asks(lease.backend());
        let began_us = self.hub.now_us();
        let reuse = match (self.stale, self.parcel.stays_replayable()) {
            (true, _) => Reuse::None,
            (false, true) => Reuse::Any,
            (false, false) => Reuse::Fresh,
        };
        // What few requests wait for is kept in boxes, so that the future of each one is small.
        let line = match Line::idle(&self.hub, &site, reuse) {
            Some(line) => line,
            None => Box::pin(Line::open(&self.hub, self.cluster(), self.http2(), &site))
                .await
                .map_err(Miss::Connect)?,
        };
        trip.connected(began_us);
        let asked_us = self.hub.now_us();
        let left = self.left(trip, asked_us);
        let upload = self.parcel.upload(&self.hub, trip.watch(), left);
        let waiting = (site.wait(trip.watch(), self.parcel.is_movable()), self.hub.order.ask());
        let used = line.is_used();
        let asked = match line {
            Line::Own { mut upstream, used } => {
                if used || upstream.is_quiet() {
                    let head = self.parcel.head();
                    let asked = upstream.ask(head, upload, &self.hub, trip.watch()).await;
                    asked.map(|head| (head, Source::Own(upstream)))
                } else {
                    Err(Lost::Unsent)
                }
            }
            Line::Shared(mut shared) => {
                let request = self.parcel.copy(upload);
                Box::pin(shared.ask(request, trip.watch())).await
            }
        };
        drop(waiting);
        let silent = matches!(asked, Err(Lost::Due)) && trip.watch().phase() == Phase::Waiting;
        if silent || matches!(asked, Err(Lost::Refused(_))) {
            // Nothing new is begun on it.
            site.joint.close();
        }
        match asked {
            Ok((head, source)) => Ok(Answer { head, source, place, lease, site, asked_us }),
            Err(lost) => Err(Miss::Lost { lost, used }),
        }
    }

    fn cluster(&self) -> &Cluster {
        self.choice.cluster()
    }

    /// Where backends are spoken to in HTTP/2, how long such a connection may be idle.
    fn http2(&self) -> Option<Duration> {
        let cluster = self.settings.clusters.get(self.cluster().id)?;
        cluster.http2.then_some(cluster.idle)
    }

    /// What is left of the time that covers all tries.
    fn left(&self, trip: &Trip, now_us: u64) -> Duration {
        let whole = self.cluster().timeouts.request;
        let spent = Duration::from_micros(now_us.saturating_sub(trip.started_us()));
        if whole.is_zero() { whole } else { whole.saturating_sub(spent).max(SHORTEST) }
    }

    /// Counts a failed try, and tells control when it was the backend's doing.
    fn blame(&self, backend: &Arc<Backend>, miss: &Miss, trip: &Trip) {
        let Some(cell) = backend.cells.get(self.hub.chooser.worker()) else { return };
        let faulty = match miss {
            Miss::Connect(error) => {
                cell.connects_failed.add(1);
                tracing::debug!(backend = %backend.name, "connect: {error}");
                // What we lack ourselves is no fault of the backend.
                !is_exhaustion(error)
            }
            // The client's body broke off or was no HTTP: it must not be able to eject a backend.
            Miss::Lost { lost: Lost::Broken(_), .. } if trip.watch().body_broke() => false,
            // It closed an idle connection just as we took it.
            Miss::Lost { lost: Lost::Broken(error), used: true } => !error.is_close(),
            Miss::Lost { lost: Lost::Broken(_), used: false } => true,
            Miss::Lost { lost: Lost::Due, .. } => trip.watch().phase() == Phase::Waiting,
            // It accepted, and closed or spoke before it was asked anything.
            Miss::Lost { lost: Lost::Unsent, used } => !used,
            Miss::Lost { lost: Lost::Refused(_) | Lost::Moved, .. } => false,
        };
        if !faulty {
            return;
        }
        match self.choice.access() {
            Access::Read => cell.reads.add(1),
            Access::Write => cell.writes.add(1),
        }
        cell.failures.add(1);
        backend.observe(self.hub.chooser.worker(), self.hub.chooser_us(), 0, true);
        self.hub.reporter.report(backend, Outcome::LocalFailure);
    }

    /// Whether there is another try; prepares it.
    fn again(&mut self, place: usize, miss: Miss, trip: &Trip, tries: u8) -> bool {
        // Costs no backend anything, so it needs no budget.
        let unbegun = matches!(
            miss,
            Miss::Lost { lost: Lost::Unsent, used: true }
                | Miss::Lost { lost: Lost::Refused(_), .. }
        );
        let sent = match miss {
            Miss::Connect(_) => false,
            Miss::Lost { lost: Lost::Due, .. } => return false,
            Miss::Lost { lost: Lost::Broken(_), .. } if trip.watch().body_broke() => return false,
            Miss::Lost { lost: Lost::Unsent | Lost::Refused(_), .. } if !self.parcel.is_kept() => {
                return false;
            }
            Miss::Lost { lost: Lost::Unsent, used } => {
                if used {
                    self.choice.forgive(place);
                }
                false
            }
            Miss::Lost { lost: Lost::Refused(_), .. } => {
                self.choice.forgive(place);
                false
            }
            Miss::Lost { lost: Lost::Broken(error), used } => {
                if used && error.is_close() {
                    self.choice.forgive(place);
                    self.stale = true;
                }
                true
            }
            Miss::Lost { lost: Lost::Moved, .. } => true,
        };
        let access = if self.parcel.is_replayable() { Access::Read } else { Access::Write };
        let in_time = {
            let request = self.cluster().timeouts.request;
            let spent = self.hub.now_us().saturating_sub(trip.started_us());
            request.is_zero() || u128::from(spent) < request.as_micros()
        };
        in_time
            && (!sent || self.parcel.is_replayable())
            && decide(sent, access, tries) == Verdict::Retry
            && (unbegun || self.hub.try_retry(self.cluster().id))
    }

    /// What the client is told when this try was the last.
    fn refusal(&self, backend: &Backend, miss: &Miss, trip: &Trip, tries: u8) -> Refusal {
        let name = &backend.name;
        match miss {
            Miss::Connect(error) => {
                Refusal::connect_failed(format!("backend {name}: connect: {error}; tried {tries}"))
            }
            Miss::Lost { lost: Lost::Due, .. } if trip.watch().phase() == Phase::Upload => {
                Refusal::client_timeout()
            }
            Miss::Lost { lost: Lost::Due, .. } => {
                let limit = self.cluster().timeouts.request.as_millis();
                Refusal::backend_timeout(format!("backend {name}: no reply within {limit}ms"))
            }
            Miss::Lost { lost: Lost::Broken(error), .. } if trip.watch().body_broke() => {
                if error.is_malformed_body() {
                    Refusal::malformed("the body of the request is not HTTP")
                } else {
                    Refusal::unfinished()
                }
            }
            Miss::Lost { lost, .. } => {
                let why = match lost {
                    Lost::Broken(error) | Lost::Refused(error) => error.to_string(),
                    Lost::Moved => "it was taken out of rotation".to_owned(),
                    Lost::Unsent | Lost::Due => "the connection was closed".to_owned(),
                };
                let unsent = matches!(lost, Lost::Unsent | Lost::Refused(_));
                match decide(!unsent, self.choice.access(), u8::MAX) {
                    Verdict::Fail(Effect::Unknown) => Refusal::result_unknown(format!(
                        "backend {name}: {why}; the request may have been executed or not"
                    )),
                    Verdict::Fail(Effect::None) | Verdict::Retry => {
                        Refusal::reply_lost(format!("backend {name}: {why}; tried {tries}"))
                    }
                }
            }
        }
    }
}

/// Doubled before each further try, and drawn from the whole range.
const BACKOFF_US: u64 = 2_500;
/// A try is not begun without any time.
const SHORTEST: Duration = Duration::from_millis(1);
