//! Who we are to the servers where that is not one for all: a user's own name there, or what each
//! client says of itself (`auth: passthrough`). Requests of different identities never share a
//! connection (redis.md T45). Not what a user may do here: that is [`super::users`].

use super::{class::Class, dispatch::Scene, handshake, hub::Hub, reply};
use crate::{
    net::{
        dial::{Opening, dial},
        tls,
    },
    policy::access::Access,
    topology::{Backend, Credentials, Timeouts},
};
use foldhash::{HashMap, HashMapExt};
use sha2::{Digest, Sha256};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

/// A name and password with which connections are opened, as long as a session or one of these
/// connections has it.
#[derive(Debug)]
pub(super) struct Identity {
    /// From 1, never given twice.
    pub number: u32,
    credentials: Credentials,
}

/// The identities of one worker.
#[derive(Debug)]
pub(super) struct Identities {
    known: RefCell<HashMap<Key, Rc<Identity>>>,
    next: Cell<u32>,
}

/// SHA-256 of name and password.
type Key = [u8; 32];

/// A password that a server is asked about.
#[derive(Debug)]
pub(super) struct Question {
    key: Key,
    /// Nothing yet; then that it is right, or the words for the client.
    answer: RefCell<Option<Result<(), Vec<u8>>>>,
}

/// What a server says of a name and a password.
pub(super) enum Verdict {
    Right(Rc<Identity>),
    Wrong(Vec<u8>),
    Later,
}

impl Default for Identities {
    fn default() -> Self {
        Self { known: RefCell::new(HashMap::new()), next: Cell::new(1) }
    }
}

impl Identities {
    /// The identity of those credentials; `None`: there are too many at once.
    pub(super) fn of(&self, credentials: Credentials) -> Option<Rc<Identity>> {
        let key = key_of(&credentials);
        let mut known = self.known.borrow_mut();
        if let Some(identity) = known.get(&key) {
            return Some(Rc::clone(identity));
        }
        if known.len() >= MOST {
            return None;
        }
        let number = self.next.get();
        self.next.set(number.checked_add(1)?);
        let identity = Rc::new(Identity { number, credentials });
        known.insert(key, Rc::clone(&identity));
        Some(identity)
    }

    /// With what connections of that class are opened; `None`: its users have left.
    pub(super) fn credentials(&self, class: Class, own: &Credentials) -> Option<Credentials> {
        if class.identity == 0 {
            return Some(own.clone());
        }
        let known = self.known.borrow();
        let identity = known.values().find(|identity| identity.number == class.identity)?;
        Some(identity.credentials.clone())
    }

    /// Forgets those that no session and no connection has.
    pub(super) fn sweep(&self, hub: &Hub) {
        if self.known.borrow().is_empty() {
            return;
        }
        let open = hub.upstreams();
        let in_use = |number| open.iter().any(|upstream| upstream.class.identity == number);
        self.known
            .borrow_mut()
            .retain(|_, identity| Rc::strong_count(identity) > 1 || in_use(identity.number));
    }
}

/// Asks a primary whether the password is right: on a connection that is opened for it alone, for a
/// password that was right before may be so no longer. The request is held meanwhile.
pub(super) fn ask(scene: &mut Scene<'_>, name: &[u8], password: &[u8]) -> Verdict {
    let (Ok(user), Ok(secret)) = (std::str::from_utf8(name), std::str::from_utf8(password)) else {
        return Verdict::Wrong(reply::WRONG_PASS.to_vec());
    };
    let credentials =
        Credentials { user: Some(user.to_owned()), password: Some(secret.to_owned()) };
    let key = key_of(&credentials);
    if let Some(asked) = scene.state.who.asked.take().filter(|asked| asked.key == key) {
        return match asked.answer.take() {
            Some(Ok(())) => match scene.hub.identities.of(credentials) {
                Some(identity) => Verdict::Right(identity),
                None => Verdict::Wrong(reply::TOO_MANY_USERS.to_vec()),
            },
            Some(Err(words)) => Verdict::Wrong(words),
            None => {
                scene.state.who.asked = Some(asked);
                scene.client.wait_for_all();
                Verdict::Later
            }
        };
    }
    let shard = scene.cluster.keyless;
    let Some(backend) = scene.pick(shard, Access::Write, true).map(Arc::clone) else {
        let mut words = Vec::new();
        scene.unserved(shard, Access::Write, true, &mut words);
        return Verdict::Wrong(words);
    };
    let question = Rc::new(Question { key, answer: RefCell::default() });
    scene.state.who.asked = Some(Rc::clone(&question));
    // The answer empties the client's line, which is what its session waits for.
    let seq = scene.client.open(0);
    scene.client.wait_for_all();
    let (hub, client) = (Rc::clone(scene.hub), Rc::clone(scene.client));
    let (tls, timeouts) = (scene.cluster.tls.clone(), scene.cluster.timeouts);
    scene.hub.start(async move {
        let answer = try_out(&backend, &credentials, tls.as_ref(), timeouts).await;
        *question.answer.borrow_mut() = Some(answer);
        client.answer_now(&hub, seq, 0, "", b"");
        client.flush(&hub);
        client.wake();
    });
    Verdict::Later
}

/// Logs in at a server and leaves.
async fn try_out(
    backend: &Backend,
    credentials: &Credentials,
    tls: Option<&tls::Client>,
    timeouts: Timeouts,
) -> Result<(), Vec<u8>> {
    let down = |error: std::io::Error| {
        let mut words = Vec::new();
        let error = credentials.conceal(&error.to_string());
        reply::cluster_down(&mut words, &format!("backend {}: {error}", backend.name));
        words
    };
    let mut stream =
        dial(&backend.address, Opening::tls(tls), timeouts.connect).await.map_err(down)?;
    let greeted =
        handshake::greet(&mut stream, credentials, Class::default(), timeouts.connect).await;
    greeted.map_err(|error| match error.to_string().strip_prefix("AUTH: -") {
        Some(words) => {
            let mut line = Vec::new();
            reply::raw_error(&mut line, words.as_bytes());
            line
        }
        None => down(error),
    })
}

fn key_of(credentials: &Credentials) -> Key {
    let (user, password) = (credentials.user.as_deref(), credentials.password.as_deref());
    let user = user.unwrap_or("default");
    let mut hash = Sha256::new();
    hash.update((user.len() as u64).to_le_bytes());
    hash.update(user);
    hash.update(password.unwrap_or_default());
    hash.finalize().into()
}

/// Names and passwords of one worker at once: each may cost a connection to every server.
const MOST: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_and_password_are_one_identity_and_their_number_is_bounded() {
        let identities = Identities::default();
        let of = |user: &str, password: &str| {
            let (user, password) = (Some(user.to_owned()), Some(password.to_owned()));
            identities.of(Credentials { user, password })
        };
        let numbers: Vec<u32> = [("ab", "c"), ("a", "bc"), ("ab", "c")]
            .iter()
            .map(|(user, password)| of(user, password).unwrap().number)
            .collect();
        assert_eq!(numbers, [1, 2, 1]);
        for n in 0..2 * MOST {
            of("x", &n.to_string());
        }
        assert!(of("y", "z").is_none());
        let class = Class { identity: 2, ..Class::default() };
        let own = Credentials::default();
        assert_eq!(identities.credentials(class, &own).unwrap().user.as_deref(), Some("a"));
        let gone = Class { identity: 9_999, ..class };
        assert_eq!(identities.credentials(gone, &own), None, "never as somebody else");
    }
}
