//! What is said on an upstream connection before it serves: who we are and which database.
//! Not how it is dialled, nor what a probe asks: that is [`super::probe`].

use super::{
    class::{Class, Resp},
    failure, reply,
    scan::Scanner,
    tree::Value,
    wire,
};
use crate::topology::Credentials;
use std::{
    future::Future,
    io,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The words of a server that runs a script and hears nothing else.
#[derive(Debug, thiserror::Error)]
#[error("the server is busy with a script")]
pub(super) struct Busy(pub Vec<u8>);

/// Its words, if that is what the error says.
pub(super) fn busy(error: &io::Error) -> Option<Vec<u8>> {
    error.get_ref()?.downcast_ref::<Busy>().map(|busy| busy.0.clone())
}

/// AUTH, SELECT and HELLO, as far as they are needed; nothing is sent when none is.
///
/// # Errors
/// The server refused (its own words, without the password), or did not answer in `timeout`.
pub(super) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    credentials: &Credentials,
    class: Class,
    timeout: Duration,
) -> io::Result<()> {
    let mut request = Vec::new();
    let mut asked = Vec::new();
    if let Some(password) = &credentials.password {
        asked.push("AUTH");
        let user = credentials.user.as_deref();
        wire::array(&mut request, 2 + usize::from(user.is_some()));
        wire::bulk(&mut request, b"AUTH");
        user.iter().for_each(|user| wire::bulk(&mut request, user.as_bytes()));
        wire::bulk(&mut request, password.as_bytes());
    }
    if class.db > 0 {
        asked.push("SELECT");
        wire::array(&mut request, 2);
        wire::bulk(&mut request, b"SELECT");
        wire::bulk(&mut request, class.db.to_string().as_bytes());
    }
    if class.resp == Resp::Three {
        asked.push("HELLO");
        wire::array(&mut request, 2);
        wire::bulk(&mut request, b"HELLO");
        wire::bulk(&mut request, b"3");
    }
    if asked.is_empty() {
        return Ok(());
    }
    let talk = async {
        stream.write_all(&request).await?;
        stream.flush().await?;
        for word in asked {
            let answer = read_reply(stream).await?;
            if answer != reply::OK && !answer.starts_with(b"%") {
                if failure::code(&answer) == b"-BUSY" {
                    return Err(io::Error::other(Busy(answer)));
                }
                let answer = credentials.conceal(&String::from_utf8_lossy(&answer));
                return Err(io::Error::other(format!("{word}: {}", answer.trim_end())));
            }
        }
        Ok(())
    };
    tokio::time::timeout(timeout, talk).await.unwrap_or_else(|_| {
        let text = format!("no answer after {}ms", timeout.as_millis());
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}

/// Has a replica of a Redis Cluster answer reads on this connection itself (redis.md, T21).
///
/// # Errors
/// It refused, or did not answer in `timeout`.
pub(super) async fn read_only<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    timeout: Duration,
) -> io::Result<()> {
    let talk = async {
        stream.write_all(b"*1\r\n$8\r\nREADONLY\r\n").await?;
        stream.flush().await?;
        read_reply(stream).await
    };
    match tokio::time::timeout(timeout, talk).await {
        Ok(answer) if answer.as_ref().is_ok_and(|answer| answer == reply::OK) => Ok(()),
        Ok(Ok(answer)) => {
            let answer = String::from_utf8_lossy(&answer);
            Err(io::Error::other(format!("READONLY: {}", answer.trim_end())))
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Asks the server which part it plays, before anything is written there.
///
/// # Errors
/// It says that it is no primary, or does not answer in `timeout`. One that may not say passes: its
/// probes have asked.
pub(super) async fn is_primary<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    timeout: Duration,
) -> io::Result<()> {
    let talk = async {
        stream.write_all(b"*1\r\n$4\r\nROLE\r\n").await?;
        stream.flush().await?;
        let answer = read_reply(stream).await?;
        let role = Value::parse(&answer);
        match role.as_ref().and_then(Value::array).and_then(<[_]>::first).and_then(Value::text) {
            Some("master" | "primary") => Ok(()),
            None if answer.starts_with(b"-") => Ok(()),
            Some(other) => {
                let role: String = other.chars().filter(char::is_ascii_alphanumeric).collect();
                Err(io::Error::other(format!("it says that it is a {role}")))
            }
            None => Err(io::Error::other("no answer to ROLE")),
        }
    };
    tokio::time::timeout(timeout, talk).await.unwrap_or_else(|_| {
        let text = format!("no answer to ROLE after {}ms", timeout.as_millis());
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}

/// One short reply, byte by byte, so that nothing behind it is taken.
async fn read_reply<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < LONGEST_REPLY {
        bytes.push(stream.read_u8().await?);
        if bytes.last() == Some(&b'\n') {
            let whole = Scanner::default().measure(&bytes).map_err(io::Error::other)?;
            if whole.is_some() {
                return Ok(bytes);
            }
        }
    }
    Err(io::Error::other("the answer is too long"))
}

/// What a fuzzer feeds: one reply is taken and nothing behind it, or it is an error.
pub fn fuzz(data: &[u8]) {
    let mut stream = data;
    let mut context = Context::from_waker(Waker::noop());
    let polled = std::pin::pin!(read_reply(&mut stream)).as_mut().poll(&mut context);
    let Poll::Ready(result) = polled else { unreachable!("a slice never waits") };
    if let Ok(reply) = result {
        assert_eq!(Scanner::default().measure(&reply), Ok(Some(reply.len())));
        assert_eq!(data.len() - stream.len(), reply.len());
    }
}

/// `+OK`, an error line, or what HELLO tells of the server and its modules.
const LONGEST_REPLY: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    async fn greeted(answers: &'static [u8]) -> (io::Result<()>, Vec<u8>) {
        let (mut ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(answers).await.unwrap();
        let credentials =
            Credentials { user: Some("app".to_owned()), password: Some("secret".to_owned()) };
        let result = greet(
            &mut ours,
            &credentials,
            Class { db: 3, ..Class::default() },
            Duration::from_millis(50),
        )
        .await;
        drop(ours);
        let mut said = Vec::new();
        theirs.read_to_end(&mut said).await.unwrap();
        (result, said)
    }

    #[tokio::test(start_paused = true)]
    async fn says_who_and_where_and_tells_a_refusal() {
        let (result, said) = greeted(b"+OK\r\n+OK\r\n").await;
        result.unwrap();
        let expected =
            "*3\r\n$4\r\nAUTH\r\n$3\r\napp\r\n$6\r\nsecret\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n";
        assert_eq!(String::from_utf8(said).unwrap(), expected);
        let refused = greeted(b"-WRONGPASS invalid\r\n").await.0.unwrap_err().to_string();
        assert_eq!(refused, "AUTH: -WRONGPASS invalid");
        let silent = greeted(b"").await.0.unwrap_err().to_string();
        assert_eq!(silent, "no answer after 50ms");
        greeted(b"garbage\r\n").await.0.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_says_which_part_it_plays() {
        for (answer, passes) in [
            ("*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n", true),
            ("*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$9\r\nconnected\r\n:7\r\n", false),
            ("*2\r\n$8\r\nsentinel\r\n*0\r\n", false),
            ("-NOPERM this user has no permissions to run the 'role' command\r\n", true),
            ("*0\r\n", false),
            ("+OK\r\n", false),
            ("", false),
        ] {
            let (mut ours, mut theirs) = tokio::io::duplex(1024);
            theirs.write_all(answer.as_bytes()).await.unwrap();
            let done = is_primary(&mut ours, Duration::from_millis(50)).await;
            assert_eq!(done.is_ok(), passes, "{answer}: {done:?}");
        }
    }

    /// Clients and the log heard it when the server has renamed AUTH.
    #[tokio::test(start_paused = true)]
    async fn a_refusal_does_not_tell_the_password() {
        let answer = b"-ERR unknown command 'AUTH', with args beginning with: 'app' 'secret' \r\n";
        let refused = greeted(answer).await.0.unwrap_err().to_string();
        assert!(refused.ends_with("beginning with: 'app' '***'"), "{refused}");
    }
}
