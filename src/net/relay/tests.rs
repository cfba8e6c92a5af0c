//! Two socket pairs with a relay between them, each test one story.

use super::{super::splice::PIPE_SIZE, *};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    time::timeout,
};

/// The far ends of a relay.
struct Stage {
    client: TcpStream,
    backend: TcpStream,
}

/// What a relay counts, and from where it borrows.
#[derive(Default)]
struct Counts {
    up: [Counter; 2],
    down: [Counter; 2],
    held: Counter,
    stock: Stock,
}

async fn pair() -> (TcpStream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (theirs, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (theirs.unwrap(), Stream::from_tcp(accepted.unwrap().0).unwrap())
}

impl Counts {
    async fn run(&self, mut client: Stream, mut backend: Stream, idle: Duration) -> End {
        let tally = Tally {
            up: &[&self.up[0], &self.up[1]],
            down: &[&self.down[0], &self.down[1]],
            held: &self.held,
        };
        relay(&mut client, &mut backend, Vec::new(), idle, &self.stock, tally).await
    }

    fn free_pipes(&self) -> usize {
        (0..MOST_PIPES).map_while(|_| self.stock.pipes.take()).collect::<Vec<_>>().len()
    }
}

/// Plays `story` at the far ends until both it and the relay have ended.
async fn play<T>(idle: Duration, story: impl AsyncFnOnce(&mut Stage) -> T) -> (End, T, Counts) {
    let (client, ours) = pair().await;
    let (backend, theirs) = pair().await;
    let counts = Counts::default();
    let (end, told) = {
        let mut stage = Stage { client, backend };
        let story = async {
            let told = story(&mut stage).await;
            drop(stage);
            told
        };
        let both = async { tokio::join!(counts.run(ours, theirs, idle), story) };
        timeout(Duration::from_secs(30), both).await.expect("the relay ends")
    };
    (end, told, counts)
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let byte = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(byte).collect()
}

async fn to_end(from: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    from.read_to_end(&mut all).await.unwrap();
    all
}

#[tokio::test]
async fn either_side_may_finish_first_and_still_hear_the_other() {
    for client_first in [true, false] {
        let (end, (), counts) = play(Duration::ZERO, async |stage| {
            let (first, second) = match client_first {
                true => (&mut stage.client, &mut stage.backend),
                false => (&mut stage.backend, &mut stage.client),
            };
            first.write_all(b"question").await.unwrap();
            first.shutdown().await.unwrap();
            assert_eq!(to_end(second).await, b"question");
            second.write_all(b"a long answer").await.unwrap();
            second.shutdown().await.unwrap();
            assert_eq!(to_end(first).await, b"a long answer");
        })
        .await;
        assert!(matches!(end, End::Finished), "{end:?}");
        let (up, down) = if client_first { (8, 13) } else { (13, 8) };
        assert_eq!(counts.up.each_ref().map(Counter::get), [up, up]);
        assert_eq!(counts.down.each_ref().map(Counter::get), [down, down]);
        assert_eq!(counts.held.get(), 0);
    }
}

/// Much more than a pipe holds, both ways at once, in pieces that go in and out of bulk.
#[tokio::test]
async fn every_byte_arrives_in_order_in_bulk_and_between() {
    let (up, down) = (bytes(1, 9_000_000), bytes(2, 7_000_000));
    let (end, (at_backend, at_client), counts) = play(Duration::ZERO, async |stage| {
        let (mut client_reads, mut client_writes) = stage.client.split();
        let (mut backend_reads, mut backend_writes) = stage.backend.split();
        let send_up = async {
            for (n, piece) in up.chunks(1_500_000).enumerate() {
                client_writes.write_all(piece).await.unwrap();
                // A pause, so that what follows begins with a small piece.
                sleep(Duration::from_millis(5 * (n as u64 % 2))).await;
            }
            client_writes.shutdown().await.unwrap();
        };
        let send_down = async {
            backend_writes.write_all(&down).await.unwrap();
            backend_writes.shutdown().await.unwrap();
        };
        let (at_backend, at_client, (), ()) =
            tokio::join!(to_end(&mut backend_reads), to_end(&mut client_reads), send_up, send_down);
        (at_backend, at_client)
    })
    .await;
    assert!(matches!(end, End::Finished), "{end:?}");
    assert!(at_backend == up && at_client == down);
    assert_eq!((counts.up[0].get(), counts.down[1].get()), (9_000_000, 7_000_000));
    assert_eq!((counts.held.get(), counts.free_pipes()), (0, MOST_PIPES));
}

#[tokio::test]
async fn unix_sockets_are_relayed_in_bulk_too() {
    let (mut client, ours) = UnixStream::pair().unwrap();
    let (mut backend, theirs) = pair().await;
    let (counts, sent) = (Counts::default(), bytes(3, 3_000_000));
    let ours = Stream::Unix(ours);
    let story = async {
        let send = async {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let (heard, ()) = tokio::join!(to_end(&mut backend), send);
        drop(backend);
        heard
    };
    let (end, heard) = tokio::join!(counts.run(ours, theirs, Duration::ZERO), story);
    assert!(heard == sent && matches!(end, End::Finished), "{end:?}");
}

#[tokio::test]
async fn silence_ends_it_and_a_byte_puts_that_off() {
    let idle = Duration::from_millis(300);
    let started = Instant::now();
    let (end, busy, _) = play(idle, async |stage| {
        while started.elapsed() < 3 * idle {
            stage.backend.write_all(b"x").await.unwrap();
            stage.client.read_u8().await.unwrap();
            sleep(idle / 10).await;
        }
        let busy = started.elapsed();
        assert_eq!(to_end(&mut stage.client).await, b"");
        busy
    })
    .await;
    assert!(matches!(end, End::Idle), "{end:?}");
    assert!(started.elapsed() >= busy + idle / 2);
}

#[tokio::test]
async fn a_side_that_breaks_ends_it_and_is_named() {
    for client_breaks in [true, false] {
        let (end, (), counts) = play(Duration::ZERO, async |stage| {
            stage.client.write_all(b"x").await.unwrap();
            stage.backend.read_u8().await.unwrap();
            let (one, other) = match client_breaks {
                true => (&mut stage.client, &mut stage.backend),
                false => (&mut stage.backend, &mut stage.client),
            };
            // A close with linger 0 is a reset.
            socket2::SockRef::from(&*one).set_linger(Some(Duration::ZERO)).unwrap();
            let (mut gone, _) = pair().await;
            std::mem::swap(one, &mut gone);
            drop(gone);
            assert_eq!(to_end(other).await, b"");
        })
        .await;
        match client_breaks {
            true => assert!(matches!(end, End::Client(_)), "{end:?}"),
            false => assert!(matches!(end, End::Backend(_)), "{end:?}"),
        }
        assert_eq!(counts.held.get(), 0);
    }
}

/// A reader that does not read holds the writer up; what is under way is a buffer and a pipe.
#[tokio::test]
async fn who_does_not_read_is_not_buffered_for() {
    let (mut client, ours) = pair().await;
    let (backend, theirs) = pair().await;
    let counts = Counts::default();
    // Fixed, so that the kernel does not take megabytes more on the way.
    socket2::SockRef::from(&client).set_send_buffer_size(64 * 1024).unwrap();
    socket2::SockRef::from(ours.tcp().unwrap()).set_recv_buffer_size(64 * 1024).unwrap();
    let story = async {
        let piece = vec![7; 64 * 1024];
        let mut taken = 0_u64;
        // Until neither the kernel nor the relay takes any more.
        while let Ok(n) = timeout(Duration::from_millis(500), client.write(&piece)).await {
            taken += n.unwrap() as u64;
        }
        assert!(counts.held.get() <= SIZE, "{}", counts.held.get());
        let passed = counts.up[0].get();
        drop((client, backend));
        (taken, passed)
    };
    let (_, (taken, passed)) = tokio::join!(counts.run(ours, theirs, Duration::ZERO), story);
    // Two kernel buffers (twice what was asked for), a pipe and a buffer.
    let room = 4 * 64 * 1024 + PIPE_SIZE as u64 + SIZE;
    assert!(taken - passed <= room && taken > room, "{taken} {passed} {room}");
    assert_eq!(counts.held.get(), 0);
}

/// The kernel would break a connection whose reader pauses for longer than its limit.
#[tokio::test]
async fn a_reader_may_pause_for_longer_than_the_kernel_waits_for_an_acknowledgement() {
    let limit = Duration::from_secs(1);
    let (mut client, ours) = pair().await;
    let (mut backend, theirs) = pair().await;
    for stream in [&ours, &theirs] {
        let millis = u32::try_from(limit.as_millis()).unwrap();
        rustix::net::sockopt::set_tcp_user_timeout(stream.tcp().unwrap(), millis).unwrap();
    }
    let counts = Counts::default();
    let all = bytes(7, 16_000_000);
    let story = async {
        let hear = async {
            sleep(3 * limit).await;
            to_end(&mut client).await
        };
        let send = async {
            backend.write_all(&all).await.unwrap();
            backend.shutdown().await.unwrap();
        };
        let (heard, ()) = tokio::join!(hear, send);
        drop(client);
        heard
    };
    let (end, heard) = tokio::join!(counts.run(ours, theirs, Duration::ZERO), story);
    assert!(heard == all && matches!(end, End::Finished), "{end:?}");
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_holds_no_buffer() {
    let (mut client, ours) = pair().await;
    let (mut backend, theirs) = pair().await;
    let counts = Counts::default();
    let story = async {
        let all = bytes(5, 2_000_000);
        let (heard, sent) = tokio::join!(
            async {
                let mut heard = vec![0; all.len()];
                backend.read_exact(&mut heard).await.map(|_| heard)
            },
            client.write_all(&all)
        );
        sent.unwrap();
        assert!(heard.unwrap() == all);
        // The relay has had its turn when this has come back.
        backend.write_all(b"x").await.unwrap();
        client.read_u8().await.unwrap();
        assert_eq!((counts.held.get(), counts.free_pipes()), (0, MOST_PIPES));
        drop((client, backend));
    };
    tokio::join!(counts.run(ours, theirs, Duration::ZERO), story);
}
