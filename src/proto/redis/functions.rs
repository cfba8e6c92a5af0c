//! Functions that say of themselves that they write nothing: while writes are paused clients may call
//! those. Only a server knows which ones they are, so it is asked once for each pause. Not the pause:
//! that is [`super::pause`].

use super::{
    class::{Class, Resp},
    dispatch::Scene,
    entry::{Entry, Owner},
    hub::Hub,
    scripts,
    tree::Value,
};
use crate::policy::access::Access;
use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
};

/// What one worker knows of them for as long as the pause lasts, by cluster.
#[derive(Debug, Default)]
pub(super) struct Functions(RefCell<HashMap<usize, Known>>);

#[derive(Debug)]
enum Known {
    /// The server has not told yet.
    Asked,
    /// In lower case, as servers compare them.
    Told(HashSet<Vec<u8>>),
}

impl Functions {
    /// From here on they may be others.
    pub(super) fn forget(&self) {
        self.0.borrow_mut().clear();
    }

    /// The server did not tell.
    pub(super) fn is_silent(&self, cluster: usize) {
        self.0.borrow_mut().remove(&cluster);
    }

    /// The server's `FUNCTION LIST`; after an error none is known.
    fn learn(&self, cluster: usize, reply: &[u8]) {
        self.0.borrow_mut().insert(cluster, Known::Told(read_only(reply)));
    }
}

impl Scene<'_> {
    /// Whether that function is known to write nothing. When it is not known yet the server is asked,
    /// and clients that wait are looked at again when it has told.
    pub(super) fn writes_nothing(&self, name: &[u8]) -> bool {
        let functions = &self.hub.scripts.functions;
        match functions.0.borrow().get(&self.cluster.id) {
            Some(Known::Told(names)) => return names.contains(&name.to_ascii_lowercase()),
            Some(Known::Asked) => return false,
            None => {}
        }
        let shard = self.cluster.shards.get(self.cluster.keyless);
        let Some(primary) = shard.and_then(scripts::primary) else { return false };
        functions.0.borrow_mut().insert(self.cluster.id, Known::Asked);
        let entry = Entry::new(Owner::Functions, 0, Access::Read, self.now_us);
        let class = Class { resp: Resp::Two, db: 0, ..self.state.class };
        self.hub.upstream(self.cluster, primary, class, |upstream| {
            upstream.send(self.hub, entry, |out| out.extend_from_slice(LIST));
        });
        false
    }
}

/// A server has answered [`LIST`].
pub(super) fn told(hub: &Hub, cluster: usize, reply: &[u8]) {
    hub.scripts.functions.learn(cluster, reply);
    hub.clients().iter().for_each(|client| client.go_on(hub));
}

fn read_only(list: &[u8]) -> HashSet<Vec<u8>> {
    let list = Value::parse(list);
    let libraries = list.as_ref().and_then(Value::array).unwrap_or_default();
    let functions = libraries.iter().filter_map(|library| library.field("functions")?.array());
    let is_read_only = |function: &&Value<'_>| {
        let flags = function.field("flags").and_then(Value::array).unwrap_or_default();
        flags.iter().any(|flag| flag.text() == Some("no-writes"))
    };
    let name = |function: &Value<'_>| match function.field("name")? {
        Value::Text(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    functions.flatten().filter(is_read_only).filter_map(name).collect()
}

const LIST: &[u8] = b"*2\r\n$8\r\nFUNCTION\r\n$4\r\nLIST\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_read_only_when_its_server_lists_it_so() {
        let function = |name: &str, flags: &str| {
            let name = format!("$4\r\nname\r\n${}\r\n{name}\r\n", name.len());
            format!("*6\r\n{name}$11\r\ndescription\r\n$-1\r\n$5\r\nflags\r\n{flags}")
        };
        let library = |functions: &[String]| {
            let count = functions.len();
            let functions = functions.concat();
            format!(
                "*6\r\n$12\r\nlibrary_name\r\n$1\r\nl\r\n$6\r\nengine\r\n$3\r\nLUA\r\n$9\r\nfunctions\r\n*{count}\r\n{functions}"
            )
        };
        let reads = function("Reads", "*2\r\n+no-writes\r\n+allow-stale\r\n");
        let (writes, odd) = (function("writes", "*0\r\n"), function("odd", "*1\r\n+allow-oom\r\n"));
        let list =
            format!("*3\r\n{}{}{}", library(&[reads, writes]), library(&[odd]), library(&[]));
        assert_eq!(read_only(list.as_bytes()), HashSet::from([b"reads".to_vec()]));
        for other in ["*0\r\n", "-NOPERM no\r\n", "*1\r\n:1\r\n"] {
            assert_eq!(read_only(other.as_bytes()), HashSet::new());
        }
    }
}
