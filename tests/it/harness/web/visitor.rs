//! A client with a cookie jar for one cookie, as a browser has. Not a browser: those are real ones.

use super::{HttpConn, Response};

/// Keeps the newest cookie that it was told, and counts how often it was told one.
#[derive(Debug)]
pub(crate) struct Visitor {
    conn: HttpConn,
    pub(crate) cookie: Option<String>,
    pub(crate) told: usize,
}

impl Visitor {
    #[track_caller]
    pub(crate) fn new(address: &str) -> Self {
        Self { conn: HttpConn::open(address), cookie: None, told: 0 }
    }

    /// One that comes with that value in the cookie `SLUICE`.
    #[track_caller]
    pub(crate) fn with(address: &str, value: &str) -> Self {
        Self { cookie: Some(format!("SLUICE={value}")), ..Self::new(address) }
    }

    /// The body of `/`: the name of the server.
    #[track_caller]
    pub(crate) fn visit(&mut self) -> String {
        self.visit_with("")
    }

    /// With more header lines.
    #[track_caller]
    pub(crate) fn visit_with(&mut self, fields: &str) -> String {
        let response = self.ask(fields);
        assert_eq!(response.status, 200, "{response:?}");
        response.text()
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, fields: &str) -> Response {
        let cookie = self.cookie.as_ref().map(|pair| format!("Cookie: {pair}\r\n"));
        let response = self.conn.ask("GET", "/", &(cookie.unwrap_or_default() + fields));
        let all = response.head.all("set-cookie");
        if let Some(set) = all.into_iter().find(|set| set.starts_with("SLUICE=")) {
            self.told += 1;
            self.cookie = Some(set.split(';').next().unwrap().to_owned());
        }
        response
    }

    /// The value in its cookie.
    #[track_caller]
    pub(crate) fn value(&self) -> &str {
        self.cookie.as_deref().unwrap().split_once('=').unwrap().1
    }
}
