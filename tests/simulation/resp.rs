//! A RESP2 reader of the simulation's own, so that the proxy's is not judged by itself. It writes
//! nothing but requests.

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Self>),
}

/// The first reply in `bytes` and its length; `None` when it is not complete.
///
/// # Errors
/// The bytes are no reply.
pub(crate) fn reply(bytes: &[u8]) -> Result<Option<(Reply, usize)>, String> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    if end == 0 {
        return Err("an empty line".to_owned());
    }
    let line = String::from_utf8_lossy(&bytes[1..end]).into_owned();
    let after = end + 2;
    let number = || line.parse::<i64>().map_err(|_| format!("not a number: {line:?}"));
    match bytes[0] {
        b'+' => Ok(Some((Reply::Simple(line), after))),
        b'-' => Ok(Some((Reply::Error(line), after))),
        b':' => Ok(Some((Reply::Integer(number()?), after))),
        b'$' => match usize::try_from(number()?) {
            Err(_) => Ok(Some((Reply::Bulk(None), after))),
            Ok(len) if bytes.len() < after + len + 2 => Ok(None),
            Ok(len) if &bytes[after + len..after + len + 2] != b"\r\n" => {
                Err("a bulk without its end".to_owned())
            }
            Ok(len) => {
                let bulk = bytes[after..after + len].to_vec();
                Ok(Some((Reply::Bulk(Some(bulk)), after + len + 2)))
            }
        },
        b'*' => {
            let mut at = after;
            let mut elements = Vec::new();
            for _ in 0..number()? {
                let Some((element, len)) = reply(&bytes[at..])? else { return Ok(None) };
                elements.push(element);
                at += len;
            }
            Ok(Some((Reply::Array(elements), at)))
        }
        other => Err(format!("not a reply: {:?}", char::from(other))),
    }
}

/// A request of these words.
pub(crate) fn request<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    words.iter().for_each(|word| bulk(&mut out, word.as_ref()));
    out
}

/// `$len` and the bytes.
pub(crate) fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// A request as a server sees it: its name and arguments.
pub(crate) type Words = Vec<Vec<u8>>;

/// The words of the first request in `bytes` and its length, as a server reads it.
///
/// # Errors
/// The proxy sent something that is no request.
pub(crate) fn words(bytes: &[u8]) -> Result<Option<(Words, usize)>, String> {
    match reply(bytes)? {
        None => Ok(None),
        Some((Reply::Array(elements), len)) => {
            let word = |element| match element {
                Reply::Bulk(Some(word)) => Ok(word),
                other => Err(format!("not a word: {other:?}")),
            };
            let words = elements.into_iter().map(word).collect::<Result<Vec<_>, String>>()?;
            Ok(Some((words, len)))
        }
        Some((other, _)) => Err(format!("not a request: {other:?}")),
    }
}
