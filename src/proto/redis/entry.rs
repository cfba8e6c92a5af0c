//! What an upstream connection remembers of each request it has sent: whose it is, where its
//! bytes lie and when it began. Not the bytes themselves: [`super::outbox`] keeps those.

use super::{block::Block, client::Client, flight::Flight, mark::Mark};
use crate::policy::{access::Access, reads::ReadFrom};
use std::rc::Rc;

/// One request under way on an upstream connection, in the order of its replies.
#[derive(Debug)]
pub struct Entry {
    pub owner: Owner,
    /// The place in the client's line.
    pub seq: u32,
    /// Which part of a gather this is.
    pub part: u16,
    pub access: Access,
    /// Only the primary may answer it, although it may be a read.
    pub at_primary: bool,
    pub reach: Reach,
    /// The command's place in the table; beyond it for one that nobody knows.
    pub command: u16,
    pub patience: Patience,
    /// Its bytes stay until it is answered, although it is a write: it has a script's body or name,
    /// and the server may not know it.
    pub keeps: bool,
    /// Microseconds on the worker's clock when its batch was read.
    pub start_us: u64,
    /// Where its bytes begin in the connection's stream, and how many they are.
    pub offset: u64,
    pub len: u32,
    /// Set when a piece of its reply was passed on.
    pub streamed: bool,
    /// Where a read may go that is tried again; `None`: where its cluster's reads go.
    pub from: Option<ReadFrom>,
    /// What a replica must have to be read by it.
    pub newer_than: u64,
    /// What it changes or sees while it is under way.
    pub(super) mark: Option<Box<Mark>>,
    /// Where it has been before.
    pub tried: Option<Box<Tried>>,
    /// It is several requests, of which the last one's reply is the client's.
    pub(super) block: Option<Box<Block>>,
}

/// Who waits for a reply.
#[derive(Debug)]
pub enum Owner {
    Client(Rc<Client>),
    /// Several clients that asked the same.
    Flight(Rc<Flight>),
    /// Nobody any more: the reply is swallowed.
    Tombstone,
    /// The worker itself asked `COMMAND`.
    Commands,
    /// The connection asked for its `CLIENT ID`.
    Number,
    /// The worker asked which functions there are.
    Functions,
}

/// How a request counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One backend answers it.
    One,
    /// A part of one that several shards answer.
    Part,
    /// A part of one that all shards answer.
    All,
}

/// How long a reply may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// What the cluster's timeouts say of its reach.
    Usual,
    /// A script runs as long as it runs: `timeouts.script`. Its errors say nothing of the server,
    /// for a script can answer with any text after it has written.
    Script,
    /// The command waits in the server as long as its arguments say: it has a connection of its
    /// own, and silence there says nothing.
    Own,
}

/// The tries a request has behind it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    /// Bit i: member i of the shard.
    pub members: u64,
    pub attempts: u8,
    /// How often a server has said that another one has its keys.
    pub hops: u8,
    /// How often it waited because servers could not serve it yet.
    pub waits: u8,
}

impl Owner {
    /// Whether that client waits for the reply.
    pub(super) fn is_of(&self, client: &Rc<Client>) -> bool {
        match self {
            Self::Client(owner) => Rc::ptr_eq(owner, client),
            Self::Flight(flight) => flight.has(client),
            Self::Tombstone | Self::Commands | Self::Number | Self::Functions => false,
        }
    }

    /// The clients that wait for the reply.
    pub(super) fn clients(&self) -> Vec<Rc<Client>> {
        match self {
            Self::Client(client) => vec![Rc::clone(client)],
            Self::Flight(flight) => flight.clients(),
            Self::Tombstone | Self::Commands | Self::Number | Self::Functions => Vec::new(),
        }
    }
}

impl Entry {
    /// A request that begins now; the connection fills in where its bytes lie.
    pub fn new(owner: Owner, seq: u32, access: Access, start_us: u64) -> Self {
        Self {
            owner,
            seq,
            part: 0,
            access,
            at_primary: access == Access::Write,
            reach: Reach::One,
            command: u16::MAX,
            patience: Patience::Usual,
            keeps: false,
            start_us,
            offset: 0,
            len: 0,
            streamed: false,
            from: None,
            newer_than: 0,
            mark: None,
            tried: None,
            block: None,
        }
    }

    /// Keeps it at the primary.
    pub fn at_primary(mut self, at_primary: bool) -> Self {
        self.at_primary |= at_primary;
        self
    }

    /// Whom of its shard it may be asked of; `usual` where nothing else was said of it.
    pub fn source(&self, usual: ReadFrom) -> ReadFrom {
        if self.at_primary { ReadFrom::Primary } else { self.from.unwrap_or(usual) }
    }

    /// Which command it is.
    pub fn command(mut self, index: u16) -> Self {
        self.command = index;
        self
    }

    /// How another try reads.
    pub fn read_from(mut self, from: Option<ReadFrom>, newer_than: u64) -> Self {
        (self.from, self.newer_than) = (from, newer_than);
        self
    }

    /// One part of a gather.
    pub fn part(mut self, part: u16, reach: Reach) -> Self {
        self.part = part;
        self.reach = reach;
        self
    }

    /// Lets it take as long as it says itself.
    pub fn patient(mut self) -> Self {
        self.patience = Patience::Own;
        self
    }

    /// Since when its latency counts; [`UNTIMED`] where that says nothing of the server.
    pub fn counted_us(&self) -> u64 {
        if self.is_work() { self.start_us } else { UNTIMED }
    }

    /// Whether it is work for the server; who waits there costs it nothing.
    pub fn is_work(&self) -> bool {
        self.patience != Patience::Own
    }

    /// A call of a script or function.
    pub fn script(mut self) -> Self {
        self.patience = Patience::Script;
        self
    }

    /// Keeps its bytes.
    pub fn keeping(mut self) -> Self {
        self.keeps = true;
        self
    }

    /// Whether it may be sent to another backend after its bytes left.
    pub fn is_movable(&self) -> bool {
        self.access == Access::Read
            && !self.streamed
            && matches!(self.owner, Owner::Client(_) | Owner::Flight(_))
    }
}

/// A beginning that is never reached: of requests whose latency is not counted.
pub(super) const UNTIMED: u64 = u64::MAX;
