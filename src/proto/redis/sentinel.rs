//! What is said to one Sentinel and what it answers: who the primary and the replicas of a master are,
//! and that something has happened. Not whom to believe when several answer, nor what follows.
//!
//! A Sentinel that lies can name whom it likes. What it says is bounded here, and nobody gets writes
//! who does not say himself that he is a primary.

use super::{
    class::{Class, Resp},
    fuzzing::steps,
    handshake,
    scan::Scanner,
    tree::Value,
    wire,
};
use crate::{
    net::{
        addr::Address,
        dial::{Opening, dial},
        stream::Stream,
        tls,
    },
    topology::{Credentials, Shard},
};
use std::{io, time::Duration};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

/// What a Sentinel knows of one master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub primary: Address,
    /// Of two Sentinels the one that says more has the newer configuration.
    pub epoch: u64,
    /// In the order of their names, whether it thinks them down or not.
    pub replicas: Vec<Address>,
    /// Those of them that it thinks down.
    pub down: Vec<Address>,
}

/// A Sentinel to ask.
#[derive(Clone, Debug)]
pub struct Sentinel {
    pub address: Address,
    pub credentials: Credentials,
    /// `None`: in clear.
    pub tls: Option<tls::Client>,
}

/// A connection on which it is asked.
#[derive(Debug)]
pub struct Asking(Line<Stream>);

/// A connection on which it tells that something has happened.
#[derive(Debug)]
pub struct Hearing(Line<Stream>);

impl Sentinel {
    /// Connects, to ask it; `limit` covers that.
    ///
    /// # Errors
    /// Why it cannot be asked.
    pub async fn ask(&self, limit: Duration) -> io::Result<Asking> {
        Ok(Asking(Line::new(self.open(limit).await?)))
    }

    /// Connects, to hear of all that may change what it says; `limit` covers that.
    ///
    /// # Errors
    /// Why it cannot be heard.
    pub async fn hear(&self, limit: Duration) -> io::Result<Hearing> {
        let mut line = Line::new(self.open(limit).await?);
        let mut request = Vec::new();
        wire::array(&mut request, 1 + EVENTS.len());
        wire::bulk(&mut request, b"SUBSCRIBE");
        EVENTS.iter().for_each(|event| wire::bulk(&mut request, event.as_bytes()));
        let subscribe = async {
            line.stream.write_all(&request).await?;
            line.stream.flush().await?;
            for _ in EVENTS {
                let reply = line.reply().await?;
                if reply.starts_with(b"-") {
                    return Err(refused(&reply, &self.credentials));
                }
            }
            Ok(())
        };
        within(limit, subscribe).await?;
        Ok(Hearing(line))
    }

    async fn open(&self, limit: Duration) -> io::Result<Stream> {
        let mut stream = dial(&self.address, Opening::tls(self.tls.as_ref()), limit).await?;
        handshake::greet(&mut stream, &self.credentials, Class::default(), limit).await?;
        Ok(stream)
    }
}

impl Asking {
    /// What it knows of each of `masters`, or why it does not say; `limit` covers all of it.
    ///
    /// # Errors
    /// Why this connection is of no use any more.
    pub async fn masters<'m>(
        &mut self,
        masters: impl Iterator<Item = &'m str> + Clone,
        limit: Duration,
    ) -> io::Result<Vec<Result<Known, String>>> {
        let mut request = Vec::new();
        for master in masters.clone() {
            for word in QUESTIONS {
                wire::array(&mut request, 3);
                wire::bulk(&mut request, b"SENTINEL");
                wire::bulk(&mut request, word.as_bytes());
                wire::bulk(&mut request, master.as_bytes());
            }
        }
        let line = &mut self.0;
        let ask = async {
            line.stream.write_all(&request).await?;
            line.stream.flush().await?;
            let mut all = Vec::new();
            for _ in masters {
                let mut replies = [const { Vec::new() }; QUESTIONS.len()];
                for reply in &mut replies {
                    *reply = line.reply().await?;
                }
                let [address, master, replicas] = &replies;
                all.push(known(address, master, replicas));
            }
            Ok(all)
        };
        within(limit, ask).await
    }
}

impl Hearing {
    /// Something has happened. It may be given up and called again.
    ///
    /// # Errors
    /// Nothing is heard on it any more.
    pub async fn news(&mut self) -> io::Result<()> {
        self.0.reply().await.map(drop)
    }
}

/// A connection and what has come and is not understood yet.
#[derive(Debug)]
struct Line<S> {
    stream: S,
    buffer: Vec<u8>,
    scanner: Scanner,
}

impl<S: AsyncRead + Unpin> Line<S> {
    fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new(), scanner: Scanner::new(Resp::Two) }
    }

    /// One whole reply. What has come of it is kept when it is given up.
    async fn reply(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(len) = self.scanner.measure(&self.buffer).map_err(io::Error::other)? {
                return Ok(self.buffer.drain(..len).collect());
            }
            if self.buffer.len() > MAX_REPLY {
                return Err(io::Error::other(format!("a reply of more than {MAX_REPLY} bytes")));
            }
            self.buffer.reserve(4096);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::other("it closed the connection"));
            }
        }
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let text = format!("no answer within {}ms", limit.as_millis());
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}

fn refused(reply: &[u8], credentials: &Credentials) -> io::Error {
    io::Error::other(shorten(&credentials.conceal(&String::from_utf8_lossy(reply))))
}

/// Three whole replies: the address, the state and the replicas of one master. The address is asked
/// for by itself, for while it is handed over the state still names the old one.
fn known(address: &[u8], state: &[u8], replicas: &[u8]) -> Result<Known, String> {
    for reply in [address, state, replicas] {
        if let Some(error) = reply.strip_prefix(b"-") {
            return Err(shorten(&String::from_utf8_lossy(error)));
        }
    }
    let value = Value::parse(address).ok_or("an address that is no reply")?;
    let primary = match value.array() {
        Some([host, port]) => place(host, port),
        Some([]) => return Err("No such master with that name".to_owned()),
        _ => None,
    };
    let primary = primary.ok_or("an address that is none")?;
    let state = Value::parse(state).ok_or("a state that is no reply")?;
    let epoch =
        state.field("config-epoch").and_then(Value::text).and_then(|text| text.parse().ok());
    let epoch = epoch.ok_or("a state without config-epoch")?;
    let value = Value::parse(replicas).ok_or("replicas that are no reply")?;
    let all = value.array().ok_or("replicas that are no list")?.iter();
    // While it is handed over who was the primary until now is in no list, and is one of them next.
    let former = std::iter::once((&state, false));
    let listed = all.filter(|one| text(one, "replica-announced") != "0").map(|one| {
        let mut flags = text(one, "flags").split(',');
        (one, flags.any(|flag| matches!(flag, "s_down" | "o_down")))
    });
    let found = former.chain(listed).filter_map(|(one, is_down)| {
        let (host, port) = one.field("ip").zip(one.field("port"))?;
        Some((place(host, port).filter(|address| *address != primary)?, is_down))
    });
    let mut found: Vec<(Address, bool)> = found.take(Shard::MOST_MEMBERS - 1).collect();
    found.sort_by_cached_key(|(address, _)| address.to_string());
    found.dedup_by(|one, other| one.0 == other.0);
    let down = found.iter().filter(|one| one.1).map(|one| one.0.clone()).collect();
    let replicas = found.into_iter().map(|one| one.0).collect();
    Ok(Known { primary, epoch, replicas, down })
}

fn text<'v>(map: &'v Value<'_>, name: &str) -> &'v str {
    map.field(name).and_then(Value::text).unwrap_or_default()
}

fn place(host: &Value<'_>, port: &Value<'_>) -> Option<Address> {
    let (host, port) = (host.text()?, port.text()?);
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if host.is_empty() || host.len() > MAX_HOST || !host.chars().all(is_name) {
        return None;
    }
    let text =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let address = text.parse().ok()?;
    (!matches!(address, Address::Tcp { port: 0, .. })).then_some(address)
}

/// What a Sentinel says is shown, but not all of it, and never as control characters.
fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}

/// What a fuzzer feeds: three replies are the same wherever the bytes are split, and of them there is
/// something bounded that can be shown, or why there is not.
pub fn fuzz(data: &[u8]) {
    let whole = replies(data, [data.len()].into_iter());
    assert_eq!(replies(data, steps(data.len())), whole, "byte by byte");
    let Some([address, state, replicas]) = whole.first_chunk::<3>() else { return };
    match known(address, state, replicas) {
        Ok(known) => {
            assert!(known.replicas.len() < Shard::MOST_MEMBERS, "{known:?}");
            assert!(!known.replicas.contains(&known.primary), "{known:?}");
            let all = known.replicas.iter().chain([&known.primary]).map(Address::to_string);
            all.for_each(|text| assert!(!text.contains(char::is_control) && text.len() < 300));
        }
        Err(text) => assert!(!text.contains(char::is_control) && text.chars().count() < 256),
    }
}

/// The replies in `data` when it comes in pieces up to each of `ends`.
fn replies(data: &[u8], ends: impl Iterator<Item = usize>) -> Vec<Vec<u8>> {
    let (mut scanner, mut start, mut found) = (Scanner::new(Resp::Two), 0, Vec::new());
    for end in ends {
        loop {
            let rest = data.get(start..end).unwrap_or_default();
            match scanner.measure(rest) {
                Ok(Some(len)) => {
                    found.push(rest.get(..len).unwrap_or_default().to_vec());
                    start += len;
                }
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    found
}

/// What is asked of each master, in this order.
const QUESTIONS: [&str; 3] = ["GET-MASTER-ADDR-BY-NAME", "MASTER", "REPLICAS"];
/// After any of these the answers may be others.
const EVENTS: [&str; 12] = [
    "+switch-master",
    "+sdown",
    "-sdown",
    "+odown",
    "-odown",
    "+slave",
    "+convert-to-slave",
    "+failover-state-reconf-slaves",
    "+slave-reconf-done",
    "+config-update-from",
    "+reset-master",
    "+monitor",
];
/// SENTINEL REPLICAS tells about 1 KiB of each.
const MAX_REPLY: usize = 1 << 20;
/// As long as a host name may be (RFC 1035, 2.3.4).
const MAX_HOST: usize = 255;
/// Characters of an error that reach the log.
const MAX_SHOWN: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> String {
        let bulks: String = words.iter().map(|w| format!("${}\r\n{w}\r\n", w.len())).collect();
        format!("*{}\r\n{bulks}", words.len())
    }

    fn told(address: &str, state: &str, replicas: &[String]) -> Result<Known, String> {
        let replicas = format!("*{}\r\n{}", replicas.len(), replicas.concat());
        known(address.as_bytes(), state.as_bytes(), replicas.as_bytes())
    }

    fn state(epoch: &str) -> String {
        list(&["name", "m", "ip", "10.0.0.9", "port", "1", "config-epoch", epoch])
    }

    fn replica(ip: &str, port: &str, flags: &str) -> String {
        list(&["name", "x", "ip", ip, "port", port, "flags", flags])
    }

    #[test]
    fn a_master_is_where_its_address_says_and_who_was_it_is_a_replica() {
        let replicas = [
            replica("10.0.0.2", "6379", "slave"),
            replica("10.0.0.3", "6379", "s_down,slave,disconnected"),
            replica("10.0.0.1", "6379", "slave"),
            replica("fe80::1", "7", "slave"),
            replica("db.example.com", "7", "slave"),
            replica("10.0.0.2", "6379", "slave"),
            list(&["ip", "10.0.0.8", "port", "1", "flags", "slave", "replica-announced", "0"]),
        ];
        let known = told(&list(&["10.0.0.1", "6379"]), &state("7"), &replicas).unwrap();
        let names: Vec<_> = known.replicas.iter().map(Address::to_string).collect();
        let wanted =
            ["10.0.0.2:6379", "10.0.0.3:6379", "10.0.0.9:1", "[fe80::1]:7", "db.example.com:7"];
        assert_eq!(names, wanted);
        assert_eq!(known.down, ["10.0.0.3:6379".parse().unwrap()]);
        assert_eq!((known.primary.to_string(), known.epoch), ("10.0.0.1:6379".to_owned(), 7));
    }

    #[test]
    fn what_makes_no_sense_is_an_error_or_left_out() {
        let good = (list(&["10.0.0.1", "6379"]), state("1"));
        for (address, state) in [
            ("*-1\r\n", good.1.as_str()),
            ("-ERR No such master\r\n", &good.1),
            (&list(&["10.0.0.1", "0"]), &good.1),
            (&list(&["10.0.0.1", "70000"]), &good.1),
            (&list(&["", "1"]), &good.1),
            (&list(&["a b", "1"]), &good.1),
            (&list(&["a\nb", "1"]), &good.1),
            (&list(&[&"a".repeat(300), "1"]), &good.1),
            (&list(&["10.0.0.1"]), &good.1),
            (&good.0, &state("-1")),
            (&good.0, "*0\r\n"),
            (&good.0, "+OK\r\n"),
        ] {
            assert!(told(address, state, &[]).is_err(), "{address} {state}");
        }
        let odd = [replica("x y", "1", ""), list(&["ip", "10.0.0.2"]), ":1\r\n".to_owned()];
        let former = told(&good.0, &good.1, &odd).unwrap().replicas;
        assert_eq!(former, ["10.0.0.9:1".parse().unwrap()]);
        let many: Vec<_> = (1..900).map(|n| replica("10.0.0.2", &n.to_string(), "")).collect();
        assert_eq!(told(&good.0, &good.1, &many).unwrap().replicas.len(), 63);
    }

    #[tokio::test]
    async fn replies_are_whole_wherever_the_bytes_are_split() {
        let replicas = format!("*1\r\n{}", replica("10.0.0.2", "6379", "slave"));
        let bytes = [list(&["10.0.0.1", "6379"]), state("7"), replicas].concat();
        let bytes = bytes.as_bytes();
        for cut in 1..bytes.len() {
            let mut mock = tokio_test_pieces(&[&bytes[..cut], &bytes[cut..]]);
            let mut line = Line::new(&mut mock);
            let mut all = Vec::new();
            for _ in 0..3 {
                all.push(line.reply().await.unwrap());
            }
            let known = known(&all[0], &all[1], &all[2]).unwrap();
            assert_eq!((known.epoch, known.replicas.len()), (7, 2), "{cut}");
            assert!(line.reply().await.unwrap_err().to_string().contains("closed"));
        }
    }

    /// A stream that gives one piece at each read.
    fn tokio_test_pieces<'a>(pieces: &[&'a [u8]]) -> impl AsyncRead + Unpin + use<'a> {
        let [one, other] = pieces else { panic!("two pieces") };
        one.chain(*other)
    }

    #[tokio::test]
    async fn a_reply_without_end_is_given_up() {
        let endless = format!("*1000000\r\n{}", ":1\r\n".repeat(MAX_REPLY));
        let mut line = Line::new(endless.as_bytes());
        assert!(line.reply().await.unwrap_err().to_string().contains("more than"));
    }
}
