//! A few keys, written and read through Sluice, with the shard that owns each. Not the load.

use super::{
    DemoError,
    client::{Client, Reply},
    proxy::Proxy,
    screen::Screen,
    status::Status,
};
use crate::policy::slot::slot;
use std::{io, time::Duration};

/// Prints each request with its reply and its place.
///
/// # Errors
/// When Sluice does not answer.
pub(super) async fn run(proxy: &Proxy, screen: &mut Screen) -> Result<(), DemoError> {
    let told = |error| DemoError::io("sample keys", error);
    let ports = proxy.ports();
    let status = Status::fetch(ports.admin).await.map_err(told)?;
    let mut client = Client::connect(ports.front).await.map_err(told)?;
    screen
        .say(&"Some keys through Sluice; a part in {braces} decides which keys stay together:")?;
    for (key, value) in SAMPLES {
        let reply = client.request(&["SET", key, value]).await.map_err(told)?;
        screen.say(&line(&format!("SET {key} {value}"), &reply, &place(&status, key)))?;
    }
    for (key, _) in SAMPLES {
        let reply = read(&mut client, &["GET", key]).await.map_err(told)?;
        screen.say(&line(&format!("GET {key}"), &reply, &place(&status, key)))?;
    }
    let mut request = vec!["MGET"];
    request.extend(SAMPLES.map(|(key, _)| key));
    let reply = read(&mut client, &request).await.map_err(told)?;
    screen.say(&line("MGET of all of them", &reply, "asked of both shards, in order"))?;
    screen.say(&"")
}

/// Asks again while something is missing: a replica may be a moment behind its primary.
async fn read(client: &mut Client, request: &[&str]) -> io::Result<Reply> {
    let mut reply = client.request(request).await?;
    for _ in 0..READS {
        let missing = match &reply {
            Reply::Array(items) => items.contains(&Reply::Nil),
            reply => *reply == Reply::Nil,
        };
        if !missing {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        reply = client.request(request).await?;
    }
    Ok(reply)
}

fn line(request: &str, reply: &Reply, place: &str) -> String {
    format!("  {request:<27} {reply:<24}  {place}")
}

fn place(status: &Status, key: &str) -> String {
    let slot = slot(key.as_bytes());
    let shard = status.owner(slot).map_or("?", |shard| &shard.name);
    format!("slot {slot:>5}, shard {shard}")
}

const SAMPLES: [(&str, &str); 4] =
    [("user:1", "ann"), ("user:2", "bob"), ("cart:{7}:items", "3"), ("cart:{7}:total", "42")];
const READS: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);
