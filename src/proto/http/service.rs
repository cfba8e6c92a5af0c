//! One request of a client, from its head to the head of the reply: the straight path of HTTP. Not
//! the choice of a backend nor the tries: those are [`super::choice`]'s and [`super::forward`]'s.

use super::{
    choice::Choice,
    client::Client,
    download::{Download, Source},
    entry::Entry,
    forward::{Answer, Errand},
    head::{self, Additions, Hop},
    hub::{Hub, Watched},
    marks::Marks,
    parcel::{Again, Parcel},
    reply::Refusal,
    routes,
    settings::{ClusterSettings, Cookie, Settings},
    stickiness::Stickiness,
    trip::Trip,
    tunnel::Tunnel,
    watch::Watch,
};
use crate::{
    net::early::Wire,
    telemetry::metrics::{Counter, ListenerMetrics},
    topology::door,
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, EXPECT, HOST, UPGRADE},
    request::Parts,
};
use hyper::body::{Body, Incoming};
use std::{
    cell::RefCell,
    net::IpAddr,
    rc::Rc,
    time::{Duration, Instant},
};

/// One client's connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) hub: Rc<Hub>,
    pub(super) settings: Rc<Settings>,
    pub(super) client: Client,
    pub(super) wire: Rc<Wire>,
    /// What it waits for; over HTTP/2 between requests, for each stream has its own.
    pub(super) watch: Rc<Watch>,
    /// The other side, once the client has been told that it is connected to it.
    pub(super) tunnel: RefCell<Option<Box<Tunnel>>>,
}

impl Session {
    /// All of a request but the wait for its reply. `stream`: the watch of a stream of HTTP/2.
    ///
    /// # Errors
    /// The reply, where it is ours.
    pub(super) fn prepare(
        &self,
        request: Request<Incoming>,
        stream: Option<Rc<Watch>>,
    ) -> Result<Prepared, Box<Response<Download>>> {
        let (watch, watched) = self.watch(stream);
        let mut trip = Trip::new(Rc::clone(&self.hub), Rc::clone(&self.settings), watch, watched);
        let (head, incoming) = request.into_parts();
        let address = self.client.origin(&self.settings, &head.headers);
        if let Some(log) = self.settings.access_log {
            trip.log(Entry::new(log, &head, address));
        }
        match self.plan(head, incoming, address, &mut trip) {
            Ok((errand, promise)) => Ok(Prepared { errand, promise, trip }),
            Err(refusal) => Err(Box::new(self.refuse(refusal, trip))),
        }
    }

    /// What is counted of the listener that it came in at.
    pub(super) fn listener(&self) -> Option<&ListenerMetrics> {
        self.hub.metrics.listeners.get(self.settings.listener)
    }

    /// Counts what has passed on its connection since this was last called.
    /// Says how much was read and written.
    pub(super) fn count(&self) -> (u64, u64) {
        match self.listener() {
            Some(listener) => self.wire.settle(&listener.bytes_in, &listener.bytes_out),
            None => self.wire.settle(&Counter::default(), &Counter::default()),
        }
    }

    /// Whether the limits of the client's address and of the process let the request in.
    fn is_allowed(&self, address: Option<IpAddr>) -> Result<(), Refusal> {
        let settings = &*self.settings;
        let refusal = if settings.memory.is_used_up() {
            Some(door::Refusal::MEMORY)
        } else if settings.door.counts_requests() {
            let key = address.map(|address| settings.door.prefix().client(address));
            key.and_then(|key| settings.door.request(key, Instant::now()).err())
        } else {
            None
        };
        let Some(refusal) = refusal else { return Ok(()) };
        if let Some(listener) = self.listener() {
            settings.door.refused(refusal.reason, listener, Instant::now());
        }
        Err(Refusal::limited(refusal))
    }

    fn watch(&self, stream: Option<Rc<Watch>>) -> (Rc<Watch>, Option<Watched>) {
        match stream {
            Some(watch) => (Rc::clone(&watch), Some(self.hub.watch(watch))),
            None => {
                self.watch.begin();
                (Rc::clone(&self.watch), None)
            }
        }
    }

    /// Finds who is to answer, and what is asked.
    fn plan(
        &self,
        mut head: Parts,
        incoming: Incoming,
        address: Option<IpAddr>,
        trip: &mut Trip,
    ) -> Result<(Errand, Promise), Refusal> {
        let settings = &*self.settings;
        self.is_allowed(address)?;
        let marks = Marks::of(&head.headers);
        head::normalise(&mut head, marks, &settings.limits)?;
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
        let route = routes::find(&settings.routes, &head, host);
        let index = route.ok_or_else(|| Refusal::no_route(host))?;
        let cluster = self.hub.chooser.cluster(index);
        let (Some(cluster), Some(of_cluster)) = (&cluster, settings.clusters.get(index)) else {
            return Err(Refusal::no_route(host));
        };
        let mut choice = Choice::new(cluster, of_cluster, &head, address, &self.hub)?;
        trip.goes_to(index, choice.access());
        let mut stickiness = None;
        if let Some(cookie) = cookie(of_cluster) {
            let found = Stickiness::take(cookie, marks, &mut head.headers);
            if let Some(place) = found.place {
                choice.stick(place, cookie.strict, found.issued, &head.headers);
            }
            stickiness = Some(found);
        }

        let expects =
            marks.any(Marks::EXPECT) && asks_to_continue(&head.headers) && !of_cluster.http2;
        let length_known = incoming.size_hint().exact().is_some();
        let make_id =
            || u128::from(self.hub.chooser.draw()) << 64 | u128::from(self.hub.chooser.draw());
        let additions = Additions { length_known, apart: !of_cluster.http2 };
        let client = &self.client;
        let (mut hop, lines) =
            head::to_backend(&mut head, marks, client, settings, additions, make_id);
        ask_to_upgrade(&mut head, &mut hop, &incoming);
        trip.names(|| head.headers.get(head::X_REQUEST_ID));
        let again = Again {
            after_sent: of_cluster.idempotent_writes || repeatable(&head.method),
            when_refused: of_cluster.http2,
            room: !settings.memory.is_scarce(),
        };
        let (hub, settings) = (Rc::clone(&self.hub), Rc::clone(&self.settings));
        let body_idle = settings.limits.body_idle;
        let parcel = Parcel::new((head, lines), incoming, &hub, again, body_idle, expects);
        let errand = Errand { hub, settings, choice, parcel, stale: false };
        Ok((errand, Promise { upgrade: hop.upgrade, closes: hop.closes, stickiness }))
    }

    /// Answers in place of a backend.
    pub(super) fn refuse(&self, refusal: Refusal, mut trip: Trip) -> Response<Download> {
        if let Some((fault, text)) = refusal.fault() {
            fault.count(&self.hub, &self.settings, text);
        }
        if let Some(listener) = self.listener() {
            listener.refused(refusal.reason());
        }
        let (status, reason) = (refusal.status(), refusal.reason());
        let response = refusal.into_response();
        trip.refused(status, reason, response.body().size_hint().lower());
        response
    }

    /// Makes a backend's reply ours.
    pub(super) fn reply(
        &self,
        answer: Answer,
        promise: Promise,
        mut trip: Trip,
    ) -> Response<Download> {
        let Answer { mut head, source, place, lease, site, asked_us } = answer;
        let of_cluster = trip.cluster().and_then(|index| self.settings.clusters.get(index));
        let marks = Marks::of(&head.headers);
        let life_us =
            keep_alive_us(&head, marks, of_cluster.map_or(Duration::ZERO, |cluster| cluster.idle));
        let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
        let upgraded = if switches { head.headers.get(UPGRADE).cloned() } else { None };
        head::to_client(&mut head, marks, &self.settings);
        let cookie = of_cluster.and_then(cookie);
        if let (Some(cookie), Some(stickiness)) = (cookie, promise.stickiness) {
            let told = stickiness.tell(cookie, place, self.client.secure, &mut head.headers);
            trip.sticky(told, &lease);
        }
        trip.replied(head.status, lease, site, asked_us, life_us);
        if switches {
            let (Source::Own(upstream), Some(_)) = (source, promise.upgrade) else {
                trip.broken();
                let text = "the backend changes to a protocol that nobody asked for";
                return self.refuse(Refusal::reply_lost(text), trip);
            };
            let (backend, early, connected) = upstream.into_stream();
            trip.complete();
            let tunnel = Tunnel { backend, early, connected, trip };
            *self.tunnel.borrow_mut() = Some(Box::new(tunnel));
            head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.extend(upgraded.map(|protocol| (UPGRADE, protocol)));
            return Response::from_parts(head, Download::Text(Bytes::new()));
        }
        let body = Download::new(source, trip);
        if promise.closes && matches!(body, Download::Text(_)) {
            self.wire.end_with_next_write();
        }
        Response::from_parts(head, body)
    }
}

/// A request that is to be sent.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) errand: Errand,
    pub(super) promise: Promise,
    pub(super) trip: Trip,
}

/// What a reply will need of its request.
#[derive(Debug)]
pub(super) struct Promise {
    /// The protocol that the client was allowed to ask for.
    upgrade: Option<HeaderValue>,
    /// The connection ends after this reply.
    closes: bool,
    stickiness: Option<Stickiness>,
}

fn cookie(cluster: &ClusterSettings) -> Option<&Cookie> {
    cluster.sticky.as_ref()?.cookie.as_ref()
}

/// Whether the client waits to be told that its body is wanted; there is no other expectation
/// (RFC 9110, 10.1.1).
fn asks_to_continue(headers: &HeaderMap) -> bool {
    headers
        .get(EXPECT)
        .is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Says again that the client wants another protocol, when it may have one.
fn ask_to_upgrade(head: &mut Parts, hop: &mut Hop, incoming: &Incoming) {
    // `h2c` would take requests past us that we do not see; a body would have to come first.
    let fits = |protocol: &HeaderValue| !protocol.as_bytes().eq_ignore_ascii_case(b"h2c");
    let wanted = hop.upgrade.take().filter(|protocol| fits(protocol) && incoming.is_end_stream());
    if let Some(protocol) = &wanted {
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, protocol.clone());
    }
    hop.upgrade = wanted;
}

/// http-tcp.md: these are tried again after they were sent.
fn repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// How long the connection may be idle: less than the backend itself says that it waits.
pub(super) fn keep_alive_us(
    head: &http::response::Parts,
    marks: Marks,
    configured: Duration,
) -> u64 {
    if head.version == Version::HTTP_10 {
        return 0;
    }
    let configured = u64::try_from(configured.as_micros()).unwrap_or(u64::MAX);
    if !marks.any(Marks::KEEP_ALIVE) {
        return configured;
    }
    let Some(told) = head.headers.get(head::KEEP_ALIVE) else { return configured };
    let words = told.to_str().unwrap_or_default().split(',');
    let timeout = words.filter_map(|word| word.trim().strip_prefix("timeout=")).next();
    let seconds = timeout.and_then(|seconds| seconds.trim().parse::<u64>().ok());
    seconds.map_or(configured, |s| configured.min(s.saturating_sub(1).saturating_mul(1_000_000)))
}
