//! The `Set-Cookie` header around a value (RFC 6265, 4.1). Not the value.

use std::{fmt::Write, time::Duration};

/// Where a browser may send the cookie from (RFC 6265bis, 4.1.2.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    Strict,
    /// From other sites by a link that is followed alone.
    #[default]
    Lax,
    /// From everywhere; browsers want [`Secure::Always`] beside it.
    None,
}

/// Whether the cookie is for encrypted connections alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Secure {
    /// Where the client's connection is.
    #[default]
    Auto,
    Always,
    Never,
}

/// What a browser is told beside the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// A token of RFC 9110 (5.6.2).
    pub name: String,
    /// Default `/`.
    pub path: String,
    /// `None`: the host that was asked alone.
    pub domain: Option<String>,
    /// Scripts of a page do not see it; default true.
    pub http_only: bool,
    pub same_site: SameSite,
    pub secure: Secure,
    /// How long a browser keeps it; `None`: until it is closed.
    pub max_age: Option<Duration>,
}

/// The header with its attributes put together once.
#[derive(Clone, Debug)]
pub struct SetCookie {
    name: Box<str>,
    attributes: Box<str>,
    secure: Secure,
}

impl SetCookie {
    pub fn new(attributes: &Attributes) -> Self {
        let mut text = format!("; Path={}", attributes.path);
        if let Some(domain) = &attributes.domain {
            let _ = write!(text, "; Domain={domain}");
        }
        if let Some(age) = attributes.max_age {
            let _ = write!(text, "; Max-Age={}", age.as_secs().max(1));
        }
        if attributes.http_only {
            text.push_str("; HttpOnly");
        }
        text.push_str(match attributes.same_site {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            SameSite::None => "; SameSite=None",
        });
        Self {
            name: attributes.name.as_str().into(),
            attributes: text.into(),
            secure: attributes.secure,
        }
    }

    /// The cookie's name, as [`crate::policy::cookie::find`] takes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What stands after `Set-Cookie: `. `encrypted`: the client's connection is. `value` appends
    /// the value.
    pub fn header(&self, encrypted: bool, value: impl FnOnce(&mut String)) -> String {
        const SECURE: &str = "; Secure";
        let mut header = String::with_capacity(self.name.len() + self.attributes.len() + 96);
        header.push_str(&self.name);
        header.push('=');
        value(&mut header);
        header.push_str(&self.attributes);
        if self.secure == Secure::Always || self.secure == Secure::Auto && encrypted {
            header.push_str(SECURE);
        }
        header
    }
}

impl Attributes {
    /// Those of a cookie of that name, all others as by default.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            path: "/".to_owned(),
            domain: None,
            http_only: true,
            same_site: SameSite::Lax,
            secure: Secure::Auto,
            max_age: None,
        }
    }
}
