//! Follows the files of certificates and keys: what was renewed is used for new connections, and
//! what cannot be used is told once and leaves what was in use. Not the reading: `net::tls` does it.

use super::plane::Plane;
use crate::net::tls::{Client, Follower, Renewal, Server};
use std::{cell::Cell, rc::Rc, time::Duration};

/// Whose TLS it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Listener,
    Cluster,
}

/// TLS of one listener or cluster.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) side: Side,
    pub(super) name: String,
    pub(super) tls: Tls,
    /// Renewals that were taken.
    pub(super) taken: Cell<u64>,
    /// Renewals that could not be used.
    pub(super) refused: Cell<u64>,
}

#[derive(Debug)]
pub(super) enum Tls {
    Server(Server),
    Client(Client),
}

impl Side {
    /// The name of its label.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Cluster => "cluster",
        }
    }
}

impl Owner {
    pub(super) fn new(side: Side, name: &str, tls: Tls) -> Self {
        Self { side, name: name.to_owned(), tls, taken: Cell::new(0), refused: Cell::new(0) }
    }

    /// Whether it is of the listener of that name.
    pub(super) fn is_listener(&self, name: &str) -> bool {
        self.side == Side::Listener && self.name == name
    }

    fn follow(&self) -> Follower {
        match &self.tls {
            Tls::Server(server) => server.follow(),
            Tls::Client(client) => client.follow(),
        }
    }

    fn look(&self, follower: &mut Follower) {
        let renewal = match &self.tls {
            Tls::Server(server) => server.renew(follower),
            Tls::Client(client) => client.renew(follower),
        };
        let (side, name) = (self.side.as_str(), &self.name);
        match renewal {
            Renewal::None => {}
            Renewal::Taken => {
                self.taken.set(self.taken.get() + 1);
                tracing::info!("{side} {name}: changed TLS files are in use");
            }
            Renewal::Refused(error) => {
                self.refused.set(self.refused.get() + 1);
                tracing::warn!("{side} {name}: TLS files changed, going on with the old: {error}");
            }
        }
    }
}

/// Looks at all files again and again.
pub(super) async fn follow(plane: Rc<Plane>) {
    let mut followers: Vec<_> = plane.certificates.iter().map(Owner::follow).collect();
    loop {
        tokio::time::sleep(INTERVAL).await;
        for (owner, follower) in plane.certificates.iter().zip(&mut followers) {
            owner.look(follower);
        }
    }
}

/// Files are read at the second look that finds them changed, so within twice this.
const INTERVAL: Duration = Duration::from_secs(2);
