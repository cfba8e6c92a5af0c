//! Why a connection to a backend is of no more use. Not what is made of it: see
//! [`super::forward`].

use std::{error::Error, fmt, io};

/// What went wrong on a connection to a backend.
#[derive(Debug)]
pub(super) enum Broken {
    /// The backend closed it before it had said all.
    Closed,
    /// It could not be read or written.
    Io(io::Error),
    /// What the backend said is not HTTP, or more than anybody takes.
    Malformed(&'static str),
    /// The client's body broke off, or was no HTTP.
    Body(hyper::Error),
    /// Over HTTP/2, where hyper speaks.
    Shared(hyper::Error),
}

impl Broken {
    /// Whether the other side closed before it said anything.
    pub(super) fn is_close(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::Io(error) => is_reset(error),
            Self::Malformed(_) | Self::Body(_) => false,
            Self::Shared(error) => {
                let quiet =
                    error.is_incomplete_message() || error.is_closed() || error.is_canceled();
                let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
                quiet || io.is_some_and(is_reset)
            }
        }
    }

    /// Whether a body ended because its framing is wrong, not because its client went away.
    pub(super) fn is_malformed_body(&self) -> bool {
        let (Self::Body(error) | Self::Shared(error)) = self else { return false };
        let mut next: Option<&dyn Error> = Some(error);
        while let Some(error) = next {
            let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
            if matches!(kind, Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)) {
                return true;
            }
            next = error.source();
        }
        false
    }
}

/// An error with its cause, which says more.
pub(super) fn told(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// With its cause, which says more.
impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the connection was closed before the reply was complete"),
            Self::Io(error) => write!(f, "connection error: {error}"),
            Self::Malformed(why) => write!(f, "its reply is not HTTP: {why}"),
            Self::Body(error) | Self::Shared(error) => f.write_str(&told(error)),
        }
    }
}

impl Error for Broken {
    /// hyper looks for the reason of a reset stream there, to pass it on.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Body(error) | Self::Shared(error) => Some(error),
            Self::Closed | Self::Malformed(_) => None,
        }
    }
}
