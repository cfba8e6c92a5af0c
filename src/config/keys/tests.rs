//! The table is whole and its defaults are what they should be.

use super::*;
use crate::config::units::{Period, Size};

/// Every scope reachable from the root.
fn scopes(kind: &'static Kind, found: &mut Vec<&'static Scope>) {
    match kind {
        Kind::Map(scope) | Kind::Named(scope) | Kind::AddressOr(scope) => {
            if found.iter().any(|known| std::ptr::eq(*known, *scope)) {
                return;
            }
            found.push(scope);
            scope.keys.iter().for_each(|key| scopes(&key.kind, found));
        }
        Kind::List(item, _) => scopes(item, found),
        _ => {}
    }
}

#[test]
fn the_tables_are_sound() {
    let mut found = Vec::new();
    static WHOLE: Kind = Kind::Map(&ROOT);
    scopes(&WHOLE, &mut found);
    assert_eq!(found.len(), 42);
    for key in found.iter().flat_map(|scope| scope.keys) {
        assert_eq!(key.doc.is_empty(), matches!(key.kind, Kind::Later), "{}", key.name);
    }
    for scope in found {
        let mut names: Vec<&str> = scope.keys.iter().map(|key| key.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{names:?}");
    }
    for source in SOURCES {
        assert!(CLUSTER.find(source).is_some());
    }
}

#[test]
fn every_default_is_of_its_kind_and_in_its_range() {
    let mut found = Vec::new();
    static WHOLE: Kind = Kind::Map(&ROOT);
    scopes(&WHOLE, &mut found);
    for key in found.iter().flat_map(|scope| scope.keys).filter(|key| !key.default.is_empty()) {
        let good = match &key.kind {
            Kind::Duration { min, max, or_none } => {
                let Period(value) = key.default.parse().unwrap();
                value.is_zero() && *or_none || (*min..=*max).contains(&value)
            }
            Kind::Size { auto: true, .. } | Kind::Integer { auto: true, .. } => {
                key.default == "auto"
            }
            Kind::Size { min, max, .. } => {
                (*min..=*max).contains(&key.default.parse::<Size>().unwrap().0)
            }
            Kind::Integer { min, max, .. } => (*min..=*max).contains(&key.default.parse().unwrap()),
            Kind::Choice { now, .. } => now.contains(&key.default),
            Kind::Bind => key.default.parse::<crate::net::addr::Bind>().is_ok(),
            Kind::LogLevel => key.default == "info",
            Kind::Switch => matches!(key.default, "true" | "false"),
            Kind::Text => true,
            _ => false,
        };
        assert!(good, "{}", key.name);
    }
}
