//! The four axes of a backend's state and the one gate word derived from them (the only thing a
//! pick reads). Not how the axes move: that is [`super::health`] and [`super::outlier`].

/// What the operator wants of a backend, the strictest last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Admin {
    #[default]
    Ready,
    Drain,
    Disabled,
}

/// What the probes say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    #[default]
    Unknown,
    Healthy,
    Unhealthy,
}

/// What the outcomes of real requests say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Passive {
    #[default]
    Closed,
    Ejected,
    HalfOpen,
}

/// Which part a server plays, as it says itself (`ROLE`, `INFO replication`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    #[default]
    Unknown,
    Primary,
    /// A replica whose link to its primary is up.
    Replica,
    /// A replica whose link to its primary is down.
    ReplicaLinkDown,
    Loading,
    Syncing,
    /// A replica that is further behind its primary than reads allow.
    ReplicaLagging,
    /// It plays none: all members of its cluster are alike.
    None,
}

/// What a backend that nobody has probed is taken for (core.md, `init_state`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Init {
    /// Where roles are checked: at its start every server says that it is a primary.
    #[default]
    Down,
    /// Where they are not.
    Up,
}

/// Whether a backend has just come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Life {
    #[default]
    Steady,
    /// It was out or is new, and gets its share little by little: `slow_start`.
    Warming,
    /// It is no member of its cluster any more: what is under way there is answered.
    Removed,
}

/// The axes together; plain values, owned by the health machine of the backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Axes {
    pub admin: Admin,
    pub health: Health,
    pub passive: Passive,
    pub role: Role,
    pub init: Init,
    pub life: Life,
}

#[cfg(test)]
impl Axes {
    /// Of a server that is well and plays that role.
    pub const fn healthy(role: Role) -> Self {
        Self {
            admin: Admin::Ready,
            health: Health::Healthy,
            passive: Passive::Closed,
            role,
            init: Init::Down,
            life: Life::Steady,
        }
    }
}

/// The state an operator sees: the first axis that keeps the backend out, else `Ready`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    #[default]
    Unknown,
    Ready,
    Unhealthy,
    Ejected,
    HalfOpen,
    Drain,
    Disabled,
    /// Ready, with a scaled weight.
    Warming,
    /// No member of its cluster any more.
    Removed,
}

/// What a pick may do with a backend. One byte, published in one atomic store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gate(u8);

const OPEN: u8 = 1;
const HALF_OPEN: u8 = 2;
const PRIMARY: u8 = 4;
const REPLICA: u8 = 8;
const EVICT: u8 = 16;
const ALIKE: u8 = 32;
const STICKY: u8 = 64;

impl Gate {
    /// Takes new requests.
    pub const fn open(self) -> bool {
        self.0 & OPEN != 0
    }

    /// Takes a request only with one of its permits.
    pub const fn half_open(self) -> bool {
        self.0 & HALF_OPEN != 0
    }

    /// May be sent writes (and reads that ask for the primary).
    pub const fn primary(self) -> bool {
        self.0 & PRIMARY != 0
    }

    /// May be sent reads as a replica.
    pub const fn replica(self) -> bool {
        self.0 & REPLICA != 0
    }

    /// May be sent anything: its cluster knows no roles.
    pub const fn alike(self) -> bool {
        self.0 & ALIKE != 0
    }

    /// Takes the new requests of sticky sessions that it has.
    pub const fn sticky(self) -> bool {
        self.0 & STICKY != 0
    }

    /// What is under way on its connections is to be moved (reads) or answered (writes).
    pub const fn evict(self) -> bool {
        self.0 & EVICT != 0
    }

    /// The word as stored in an atomic.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The inverse of [`Self::bits`].
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

/// Derives what an operator sees and what a pick may do (the table of core.md, top row first).
pub const fn derive(axes: Axes) -> (State, Gate) {
    let role = match axes.role {
        Role::Primary => PRIMARY,
        Role::Replica => REPLICA,
        Role::None => ALIKE,
        Role::Unknown
        | Role::ReplicaLinkDown
        | Role::ReplicaLagging
        | Role::Loading
        | Role::Syncing => 0,
    };
    if matches!(axes.life, Life::Removed) {
        return (State::Removed, Gate(0));
    }
    match (axes.admin, axes.health, axes.passive) {
        (Admin::Disabled, _, _) => (State::Disabled, Gate(0)),
        (_, Health::Unhealthy, _) => (State::Unhealthy, Gate(EVICT)),
        (_, _, Passive::Ejected) => (State::Ejected, Gate(EVICT)),
        (_, _, Passive::HalfOpen) => (State::HalfOpen, Gate(HALF_OPEN | role)),
        (Admin::Drain, _, _) => (State::Drain, Gate(STICKY | role)),
        (Admin::Ready, Health::Unknown, Passive::Closed) => match axes.init {
            Init::Down => (State::Unknown, Gate(0)),
            Init::Up => (State::Unknown, Gate(OPEN | STICKY | role)),
        },
        (Admin::Ready, Health::Healthy, Passive::Closed) => {
            let state = match axes.life {
                Life::Warming => State::Warming,
                Life::Steady | Life::Removed => State::Ready,
            };
            (state, Gate(OPEN | STICKY | role))
        }
    }
}

impl Admin {
    /// Every wish, in the order of metrics.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Drain, Self::Disabled];

    /// The word of the configuration, metrics, logs and the status API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Disabled => "disabled",
        }
    }

    /// The inverse of `self as u8`; anything else is `Ready`.
    pub const fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Drain,
            2 => Self::Disabled,
            _ => Self::Ready,
        }
    }
}

impl State {
    /// Every state that a member of a cluster can be in, in the order of metrics and tables.
    pub const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Ready,
        Self::Unhealthy,
        Self::Ejected,
        Self::HalfOpen,
        Self::Drain,
        Self::Disabled,
        Self::Warming,
    ];

    /// The word of metrics, logs and the status API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ready => "ready",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
            Self::HalfOpen => "half_open",
            Self::Drain => "drain",
            Self::Disabled => "disabled",
            Self::Warming => "warming",
            Self::Removed => "removed",
        }
    }

    /// The inverse of `self as u8`; anything else is `Unknown`.
    pub const fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Ready,
            2 => Self::Unhealthy,
            3 => Self::Ejected,
            4 => Self::HalfOpen,
            5 => Self::Drain,
            6 => Self::Disabled,
            7 => Self::Warming,
            8 => Self::Removed,
            _ => Self::Unknown,
        }
    }
}

impl Role {
    /// Every role, in the order of metrics.
    pub const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Primary,
        Self::Replica,
        Self::ReplicaLinkDown,
        Self::Loading,
        Self::Syncing,
        Self::ReplicaLagging,
        Self::None,
    ];

    /// The word of metrics, logs and the status API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::ReplicaLinkDown => "replica_link_down",
            Self::Loading => "loading",
            Self::Syncing => "syncing",
            Self::ReplicaLagging => "replica_lagging",
            Self::None => "none",
        }
    }

    /// The inverse of `self as u8`; anything else is `Unknown`.
    pub const fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Primary,
            2 => Self::Replica,
            3 => Self::ReplicaLinkDown,
            4 => Self::Loading,
            5 => Self::Syncing,
            6 => Self::ReplicaLagging,
            7 => Self::None,
            _ => Self::Unknown,
        }
    }
}
