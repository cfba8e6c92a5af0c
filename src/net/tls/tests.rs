//! Both sides over a pair of sockets, each test one story.

use super::{
    files::testing::{pair, pem},
    *,
};
use crate::{net::addr::Address, telemetry::metrics::ListenerMetrics};
use std::{fs, path::PathBuf, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

/// A listener and a cluster that believe each other, and the folder with their files.
struct Stage {
    folder: TempDir,
    server: ServerFiles,
    client: ClientFiles,
    metrics: ListenerMetrics,
}

impl Stage {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let certificates = vec![pair(&folder, "site", &["site.test"])];
        let ca = Some(certificates[0].cert.clone());
        let server = ServerFiles { certificates, client_ca: None, min_version: Version::V1_2 };
        let client = ClientFiles { ca, ..ClientFiles::default() };
        Self { folder, server, client, metrics: ListenerMetrics::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn load(&self) -> (Server, Client) {
        let server = Server::load("l", self.server.clone(), &[b"h2", b"http/1.1"]).unwrap();
        (server, Client::load(self.client.clone()).unwrap())
    }

    /// A connection between the two, the server's end first.
    async fn connect(
        &self,
        server: &Server,
        client: &Client,
    ) -> (io::Result<Stream>, io::Result<Stream>) {
        self.connect_as(server, client, &[]).await
    }

    async fn connect_as(
        &self,
        server: &Server,
        client: &Client,
        alpn: &[&[u8]],
    ) -> (io::Result<Stream>, io::Result<Stream>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let address: Address = "site.test:1".parse().unwrap();
        tokio::join!(
            server.accept(Stream::Unix(ours), &[], None, &self.metrics),
            client.connect(Stream::Unix(theirs), &address, alpn)
        )
    }

    async fn connected(&self) -> (Stream, Stream) {
        let (server, client) = self.load();
        let (ours, theirs) = self.connect(&server, &client).await;
        (ours.unwrap(), theirs.unwrap())
    }
}

fn kind(stream: &Stream) -> rustls::HandshakeKind {
    let Stream::Tls(tls) = stream else { panic!("encrypted") };
    tls.handshake_kind().unwrap()
}

/// What is left to be said by a reader that waits.
async fn idle(stream: &mut Stream) {
    let wait = timeout(Duration::from_millis(20), stream.read_u8()).await;
    assert!(wait.is_err(), "{wait:?}");
}

#[tokio::test]
async fn names_and_protocols_are_agreed_on() {
    let stage = Stage::new();
    let (server, client) = stage.load();
    let (ours, theirs) = stage.connect_as(&server, &client, &[b"http/1.1", b"h2"]).await;
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    assert!(ours.is_tls() && ours.tcp().is_none());
    assert_eq!((ours.sni(), ours.alpn()), (Some("site.test"), Some(&b"h2"[..])));
    assert_eq!((theirs.sni(), theirs.alpn()), (None, Some(&b"h2"[..])));
    let (ours, theirs) = stage.connect(&server, &client).await;
    assert_eq!((ours.unwrap().alpn(), theirs.unwrap().alpn()), (None, None));
    let (ours, theirs) = stage.connect_as(&server, &client, &[b"spdy"]).await;
    assert!(ours.is_err() && theirs.is_err());
    assert_eq!((stage.metrics.tls_ok.get(), stage.metrics.tls_failed.get()), (2, 1));
}

/// What a writer that does not wait may leave with us is bounded, and none of it is lost.
#[tokio::test]
async fn a_reader_that_pauses_is_sent_no_more_than_the_limit_and_then_gets_all() {
    let stage = Stage::new();
    let (mut ours, mut theirs) = stage.connected().await;
    let sent: Vec<u8> = (0..3_000_000u32).map(|i| i.to_le_bytes()[i as usize % 3]).collect();
    let mut at = 0;
    let full = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    loop {
        match ours.try_write(&sent[at..]) {
            Ok(n) => at += n,
            Err(error) => break assert!(full(&error), "{error}"),
        }
    }
    assert!(at < 1_000_000 && ours.unsent() == UNSENT, "{at}");
    assert!(full(&ours.try_write(b"x").unwrap_err()));
    let mut back = vec![0; sent.len()];
    let reader = async { theirs.read_exact(&mut back).await.unwrap() };
    let writer = async {
        ours.write_all(&sent[at..]).await.unwrap();
        ours.flush().await.unwrap();
    };
    tokio::join!(reader, writer);
    assert!(back == sent && ours.unsent() == 0);
}

/// The task that only reads writes what is left of a reply: nobody else does.
#[tokio::test]
async fn who_waits_for_bytes_sends_what_was_left() {
    let stage = Stage::new();
    let (mut ours, mut theirs) = stage.connected().await;
    let mut sent = 0;
    while let Ok(n) = ours.try_write(&[7; 100_000]) {
        sent += n;
    }
    let mut back = vec![0; sent];
    let reading = async { theirs.read_exact(&mut back).await.unwrap() };
    tokio::select! {
        _ = reading => {}
        byte = ours.read_u8() => panic!("{byte:?}"),
    }
    assert!(back.iter().all(|&byte| byte == 7) && ours.unsent() == 0);
}

#[tokio::test]
async fn each_end_finishes_on_its_own_and_a_cut_is_no_end() {
    let stage = Stage::new();
    let (mut ours, mut theirs) = stage.connected().await;
    theirs.write_all(b"question").await.unwrap();
    theirs.shutdown().await.unwrap();
    let mut heard = Vec::new();
    ours.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"question");
    ours.write_all(b"answer").await.unwrap();
    ours.say_goodbye();
    heard.clear();
    theirs.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"answer");

    let (mut ours, mut theirs) = stage.connected().await;
    ours.write_all(b"half of it").await.unwrap();
    drop(ours);
    let mut heard = Vec::new();
    let error = theirs.read_to_end(&mut heard).await.unwrap_err();
    assert_eq!((error.kind(), &*heard), (io::ErrorKind::UnexpectedEof, &b"half of it"[..]));
}

#[tokio::test]
async fn a_session_is_resumed_until_other_clients_are_let_in() {
    let mut stage = Stage::new();
    let shown = pair(&stage.folder, "client", &["client.test"]);
    let ca = stage.path("clients.pem");
    fs::copy(&shown.cert, &ca).unwrap();
    stage.server.client_ca = Some(ca.clone());
    stage.client.certificate = Some(shown);
    let (server, client) = stage.load();
    let mut follower = server.follow();
    let renew = |follower: &mut Follower| [(); 2].map(|()| server.renew(follower))[1..].to_vec();
    let talk = async |server: &Server, client: &Client| {
        let (ours, theirs) = stage.connect(server, client).await;
        let (mut ours, mut theirs) = (ours?, theirs?);
        // Tickets come behind the handshake.
        tokio::join!(idle(&mut ours), idle(&mut theirs));
        Ok::<_, io::Error>(kind(&ours))
    };
    assert_eq!(talk(&server, &client).await.unwrap(), rustls::HandshakeKind::Full);
    assert_eq!(talk(&server, &client).await.unwrap(), rustls::HandshakeKind::Resumed);
    // Another certificate of ours is no reason to forget anybody.
    let fresh = pair(&stage.folder, "site", &["site.test"]);
    assert_eq!(renew(&mut follower), [Renewal::Taken]);
    assert_eq!(talk(&server, &client).await.unwrap(), rustls::HandshakeKind::Resumed);
    assert_eq!(server.ends()[0].0, fresh.cert);
    // Whoever is not let in any more does not come in by a ticket.
    fs::write(&ca, pem(&["other.test"]).0).unwrap();
    assert_eq!(renew(&mut follower), [Renewal::Taken]);
    assert!(talk(&server, &client).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_given_up_after_five_seconds() {
    let stage = Stage::new();
    let (server, _) = stage.load();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let begun = tokio::time::Instant::now();
    let error = server.accept(Stream::Unix(ours), &[], None, &stage.metrics).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(begun.elapsed().as_secs(), 5);
}
