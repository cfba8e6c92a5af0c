//! CLIENT LIST, INFO and KILL: which clients are meant, and the line that tells of one, as Redis 7
//! writes it. Not how the clients of other workers are reached: that is [`super::peers`].

use super::{
    args::Args,
    card::{Card, Hears},
    class::Resp,
    client::{Client, End, aside::Look},
    dispatch::{Flow, Scene},
    hub::Hub,
    peers::{Answer, Question},
    reply, wire,
};
use std::fmt::Write;

/// Which clients; every condition must hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    asks: Asker,
    ids: Option<Vec<u64>>,
    kind: Option<Type>,
    peer: Option<Vec<u8>>,
    local: Option<Vec<u8>>,
    /// Seconds since it came, at least.
    age: Option<u64>,
    spares_asker: bool,
}

/// Who asks. It is busy now, whatever it did before.
#[derive(Clone, Copy, Debug, Default)]
struct Asker {
    id: u64,
    /// Bytes of its request.
    bytes: usize,
}

/// What Redis calls a client's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Normal,
    PubSub,
    Replica,
    /// Of masters, which are no clients of ours.
    Nobody,
}

impl Scene<'_> {
    /// `CLIENT INFO`
    pub(super) fn client_info(&self, args: Args<'_>) -> Flow {
        let asks = self.asker(args);
        let Some(line) = line(self.hub, self.client, asks) else { return Flow::Continue };
        self.say(|out| wire::verbatim(out, self.state.class.resp, line.as_bytes()))
    }

    /// `CLIENT LIST [TYPE type | ID id ...]`
    pub(super) fn client_list(&mut self, args: Args<'_>) -> Flow {
        let mut filter = Filter { asks: self.asker(args), ..Filter::default() };
        if args.len() == 4 && args.is(2, "TYPE") {
            match kind(args.get(3).unwrap_or_default()) {
                Some(kind) => filter.kind = Some(kind),
                None => return self.unknown_type(args, 3),
            }
        } else if args.len() > 3 && args.is(2, "ID") {
            let ids: Option<Vec<i64>> = (3..args.len()).map(|at| args.number(at)).collect();
            let Some(ids) = ids else {
                self.reply(reply::INVALID_CLIENT_ID);
                return Flow::Continue;
            };
            filter.ids = Some(ids.into_iter().filter_map(|id| u64::try_from(id).ok()).collect());
        } else if args.len() != 2 {
            self.reply(reply::SYNTAX);
            return Flow::Continue;
        }
        let (resp, order) = (self.state.class.resp, filter.ids.clone());
        self.ask_workers(&Question::List(filter), move |answers| {
            let mut lines: Vec<_> = answers.into_iter().flat_map(|answer| answer.lines).collect();
            lines.sort_unstable_by_key(|(id, _)| *id);
            written(&lines, order.as_deref(), resp)
        })
    }

    /// `CLIENT KILL address`, or `CLIENT KILL option value ...`
    pub(super) fn client_kill(&mut self, args: Args<'_>) -> Flow {
        let mut filter = Filter { asks: self.asker(args), ..Filter::default() };
        let old = args.len() == 3;
        if old {
            filter.peer = args.get(2).map(<[u8]>::to_vec);
        } else {
            filter.spares_asker = true;
            if let Err(text) = options(&mut filter, args) {
                self.reply(&text);
                return Flow::Continue;
            }
        }
        let suicide = self.client.fits(&filter, self.hub.now_us());
        let flow = self.ask_workers(&Question::Kill(filter), move |answers| {
            let killed: u64 = answers.iter().map(|answer| answer.killed).sum();
            let mut out = Vec::new();
            match (old, killed) {
                (true, 0) => out.extend_from_slice(reply::NO_SUCH_CLIENT),
                (true, _) => out.extend_from_slice(reply::OK),
                (false, _) => wire::integer(&mut out, killed),
            }
            out
        });
        if suicide { Flow::Close(End::Killed) } else { flow }
    }

    fn asker(&self, args: Args<'_>) -> Asker {
        Asker { id: self.client.id, bytes: args.frame.len() }
    }

    fn unknown_type(&self, args: Args<'_>, at: usize) -> Flow {
        self.say(|out| reply::unknown_client_type(out, args.get(at).unwrap_or_default()))
    }
}

/// What `CLIENT KILL` is told, in any order; of two of a kind the last one holds.
fn options(filter: &mut Filter, args: Args<'_>) -> Result<(), Vec<u8>> {
    for at in (2..args.len()).step_by(2) {
        let value = args.get(at + 1).ok_or(reply::SYNTAX)?;
        if args.is(at, "ID") {
            let id = args.number(at + 1).and_then(|id| u64::try_from(id).ok());
            let id = id.filter(|id| *id > 0).ok_or(reply::CLIENT_ID_RANGE)?;
            filter.ids = Some(vec![id]);
        } else if args.is(at, "TYPE") {
            filter.kind = Some(kind(value).ok_or_else(|| {
                let mut text = Vec::new();
                reply::unknown_client_type(&mut text, value);
                text
            })?);
        } else if args.is(at, "ADDR") {
            filter.peer = Some(value.to_vec());
        } else if args.is(at, "LADDR") {
            filter.local = Some(value.to_vec());
        } else if args.is(at, "USER") {
            if value != b"default" {
                let mut text = Vec::new();
                reply::no_such_user(&mut text, value);
                return Err(text);
            }
        } else if args.is(at, "MAXAGE") {
            let age = args.number(at + 1).and_then(|age| u64::try_from(age).ok());
            filter.age = Some(age.ok_or(reply::NOT_AN_INTEGER)?);
        } else if args.is(at, "SKIPME") {
            filter.spares_asker = match value.to_ascii_lowercase().as_slice() {
                b"yes" => true,
                b"no" => false,
                _ => return Err(reply::SYNTAX.to_vec()),
            };
        } else {
            return Err(reply::SYNTAX.to_vec());
        }
    }
    Ok(())
}

/// `None`: no type.
fn kind(word: &[u8]) -> Option<Type> {
    match word.to_ascii_lowercase().as_slice() {
        b"normal" => Some(Type::Normal),
        b"pubsub" => Some(Type::PubSub),
        b"slave" | b"replica" => Some(Type::Replica),
        b"master" => Some(Type::Nobody),
        _ => None,
    }
}

/// This worker's clients that are meant.
pub(super) fn list(hub: &Hub, filter: &Filter) -> Answer {
    let now_us = hub.now_us();
    let meant = hub.clients().into_iter().filter(|client| client.fits(filter, now_us));
    let lines = meant.filter_map(|client| Some((client.id, line(hub, &client, filter.asks)?)));
    Answer { lines: lines.collect(), ..Answer::default() }
}

/// Closes this worker's clients that are meant. Who asks goes when it has been answered.
pub(super) fn kill(hub: &Hub, filter: &Filter) -> Answer {
    let now_us = hub.now_us();
    let mut killed = 0;
    for client in hub.clients() {
        if client.fits(filter, now_us) {
            killed += 1;
            if client.id != filter.asks.id {
                client.kill(End::Killed);
            }
        }
    }
    Answer { killed, ..Answer::default() }
}

impl Client {
    fn fits(&self, filter: &Filter, now_us: u64) -> bool {
        let kind = match self.card().hears {
            Some(Hears::Replica) => Type::Replica,
            _ if self.is_subscribed() => Type::PubSub,
            _ => Type::Normal,
        };
        if filter.kind.is_some_and(|wanted| wanted != kind)
            || (filter.spares_asker && self.id == filter.asks.id)
        {
            return false;
        }
        let age_s = now_us.saturating_sub(self.card().born_us) / 1_000_000;
        filter.ids.as_ref().is_none_or(|ids| ids.contains(&self.id))
            && filter.age.is_none_or(|least| age_s >= least)
            && self.look().is_some_and(|Look { ends, .. }| {
                let is = |wanted: &Option<Vec<u8>>, end: &str| {
                    wanted.as_ref().is_none_or(|wanted| wanted == end.as_bytes())
                };
                is(&filter.peer, &ends.peer) && is(&filter.local, &ends.local)
            })
    }
}

/// The lines in the order of `ids`, each as often as it is named there, or as they are.
fn written(lines: &[(u64, String)], ids: Option<&[u64]>, resp: Resp) -> Vec<u8> {
    let mut text = String::new();
    match ids {
        None => lines.iter().for_each(|(_, line)| text.push_str(line)),
        Some(ids) => {
            for id in ids {
                if let Ok(at) = lines.binary_search_by_key(id, |(id, _)| *id)
                    && let Some((_, line)) = lines.get(at)
                {
                    text.push_str(line);
                }
            }
        }
    }
    let mut out = Vec::new();
    wire::verbatim(&mut out, resp, text.as_bytes());
    out
}

/// networking.c, `catClientInfoString`: what a server knows of its memory for a client is told as far
/// as we have the like of it. `None`: the client is gone.
fn line(hub: &Hub, client: &Client, asks: Asker) -> Option<String> {
    let Look { ends, output, held, active_us, is_paused, last, .. } = client.look()?;
    let card = client.card();
    let now_us = hub.now_us();
    let seconds = |since_us: u64| now_us.saturating_sub(since_us) / 1_000_000;
    let (idle, unread) = match client.id == asks.id {
        true => (0, asks.bytes),
        false => (seconds(active_us), card.unread.get()),
    };
    let [channels, patterns, shard_channels] = client.subscriptions();
    let mut line = String::new();
    let _ = writeln!(
        line,
        "id={} addr={} laddr={} fd={} name={} age={} idle={idle} flags={} db={} sub={channels} \
         psub={patterns} ssub={shard_channels} \
         multi={} qbuf={unread} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl={output} oll=0 \
         omem={output} tot-mem={held} events={} cmd={} user=default redir={} resp={} lib-name={} \
         lib-ver={}",
        client.id,
        ends.peer,
        ends.local,
        ends.descriptor,
        String::from_utf8_lossy(&card.name),
        seconds(card.born_us),
        flags(&card, ends.is_unix, client.is_subscribed(), is_paused),
        card.class.db,
        card.queued.map_or(-1, i64::from),
        if output > 0 { "rw" } else { "r" },
        if last.is_empty() { "NULL".to_owned() } else { last.to_ascii_lowercase() },
        card.tracking.as_ref().map_or(-1, |tracking| {
            tracking.redirect.map_or(0, |client| i64::try_from(client).unwrap_or(i64::MAX))
        }),
        if card.class.resp == Resp::Three { 3 } else { 2 },
        String::from_utf8_lossy(&card.library),
        String::from_utf8_lossy(&card.library_version),
    );
    Some(line)
}

/// Redis's letters for what a client is.
fn flags(card: &Card, is_unix: bool, is_subscribed: bool, is_paused: bool) -> String {
    let letters = [
        (card.hears == Some(Hears::Replica), 'S'),
        (card.hears == Some(Hears::Monitor), 'O'),
        (is_subscribed, 'P'),
        (card.queued.is_some(), 'x'),
        (card.is_blocked || is_paused, 'b'),
        (card.tracking.is_some(), 't'),
        (card.tracking.as_ref().is_some_and(|tracking| tracking.broadcast), 'B'),
        (is_unix, 'U'),
        (card.no_evict, 'e'),
        (card.no_touch, 'T'),
    ];
    let letters: String = letters.iter().filter(|(is, _)| *is).map(|(_, letter)| letter).collect();
    if letters.is_empty() { "N".to_owned() } else { letters }
}
