//! Which cluster a request goes to: the first route whose every condition it meets. Not which
//! backend.

use http::{HeaderName, HeaderValue, Method, request::Parts};

/// One entry of `routes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    pub host: Option<Host>,
    /// Whole parts of the path: `/a` is the beginning of `/a` and `/a/b`, not of `/ab`.
    pub path_prefix: Option<String>,
    /// Any of them; empty: any method.
    pub methods: Vec<Method>,
    /// All of them: a field of that name with that value, or with any.
    pub headers: Vec<(HeaderName, Option<HeaderValue>)>,
    /// Index of the cluster.
    pub cluster: usize,
}

/// Whom a request is for; the port and capitals make no difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// In small letters.
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: every name below it.
    Below(String),
}

/// The cluster of a request for `host`, or `None` when no route is for it.
pub(super) fn find(routes: &[Route], head: &Parts, host: &str) -> Option<usize> {
    routes.iter().find(|route| route.matches(head, host)).map(|route| route.cluster)
}

impl Route {
    fn matches(&self, head: &Parts, host: &str) -> bool {
        self.host.as_ref().is_none_or(|wanted| wanted.matches(host))
            && self.path_prefix.as_deref().is_none_or(|prefix| begins(head.uri.path(), prefix))
            && (self.methods.is_empty() || self.methods.contains(&head.method))
            && self.headers.iter().all(|(name, value)| has(head, name, value.as_ref()))
    }
}

impl Host {
    /// Reads `example.com` or `*.example.com`.
    pub fn parse(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix('*') {
            Some(below) => Self::Below(below.to_owned()),
            None => Self::Exact(text),
        }
    }

    pub(super) fn matches(&self, host: &str) -> bool {
        let name = without_port(host);
        match self {
            Self::Exact(wanted) => name.eq_ignore_ascii_case(wanted),
            Self::Below(end) => {
                let at = name.len().checked_sub(end.len()).filter(|at| *at > 0);
                at.and_then(|at| name.get(at..)).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
            }
        }
    }
}

/// The name of `name:port` or `[::1]:port`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    }
}

pub(super) fn begins(path: &str, prefix: &str) -> bool {
    let whole = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn has(head: &Parts, name: &HeaderName, value: Option<&HeaderValue>) -> bool {
    let mut found = head.headers.get_all(name).iter();
    match value {
        Some(value) => found.any(|one| one == value),
        None => found.next().is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn head(method: &str, uri: &str) -> Parts {
        Request::builder()
            .method(method)
            .uri(uri)
            .header("x-api", "2")
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    #[test]
    fn a_prefix_ends_where_a_part_of_the_path_does() {
        for (path, prefix, expected) in [
            ("/search", "/search", true),
            ("/search/", "/search", true),
            ("/search/a", "/search/", true),
            ("/search", "/search/", true),
            ("/searching", "/search", false),
            ("/", "/", true),
            ("/any", "/", true),
            ("*", "/", false),
        ] {
            assert_eq!(begins(path, prefix), expected, "{path} {prefix}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_all_names_below_one() {
        for (wanted, host, expected) in [
            ("example.com", "EXAMPLE.com:8080", true),
            ("example.com", "www.example.com", false),
            ("*.example.com", "www.example.com", true),
            ("*.example.com", "a.b.Example.com:80", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("[::1]", "[::1]:80", true),
            ("[::1]", "[::1]", true),
        ] {
            assert_eq!(Host::parse(wanted).matches(host), expected, "{wanted} {host}");
        }
    }

    #[test]
    fn the_first_route_that_matches_wins() {
        let api = ("x-api".parse().unwrap(), Some("2".parse().unwrap()));
        let other = ("x-api".parse().unwrap(), Some("3".parse().unwrap()));
        let routes = [
            Route { headers: vec![other], cluster: 0, ..Route::default() },
            Route { host: Some(Host::parse("b.com")), cluster: 1, ..Route::default() },
            Route {
                path_prefix: Some("/search".to_owned()),
                methods: vec![Method::GET, Method::HEAD],
                cluster: 2,
                ..Route::default()
            },
            Route { headers: vec![api], cluster: 3, ..Route::default() },
        ];
        let at = |method, uri, host| find(&routes, &head(method, uri), host);
        assert_eq!(at("GET", "/search?q=1", "a.com"), Some(2));
        assert_eq!(at("POST", "/search?q=1", "a.com"), Some(3));
        assert_eq!(at("POST", "/", "b.com"), Some(1));
        assert_eq!(find(&routes[..3], &head("POST", "/"), "a.com"), None);
    }
}
