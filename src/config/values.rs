//! One scalar's text to a value of its kind, or what is wrong with it. Not the tree around it,
//! and no rule over two values.

use super::{
    file::short,
    keys::{Kind, is_name},
    nearest::nearest,
    units::{Period, Size},
    words::Words,
};
use std::time::Duration;

/// Why a text is no value of its kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// What is wrong, and what was probably meant.
    Value(String, Option<String>),
    /// Right, and for a later version.
    Later,
}

impl From<String> for Wrong {
    fn from(message: String) -> Self {
        Self::Value(message, None)
    }
}

impl Kind {
    /// What it takes, for "expected ..., found a list".
    pub(super) const fn expected(&self) -> &'static str {
        match self {
            Self::Later | Self::Text => "a text",
            Self::Network => "a network such as 10.0.0.0/8",
            Self::Name => "a name",
            Self::Secret => "a password",
            Self::Path => "the path of a file",
            Self::Bind => "an address to bind such as 127.0.0.1:6380 or unix:/run/sluice.sock",
            Self::Address => "an address such as 10.0.0.1:6379",
            Self::Cluster => "the name of a cluster",
            Self::LogLevel => "a level such as info",
            Self::Command => "a command such as DEBUG",
            Self::Duration { .. } => "a duration such as 250ms, 2s or 1h",
            Self::Rate => "a rate such as 100/s",
            Self::Size { .. } => "a size such as 64KiB or 1MiB",
            Self::Integer { .. } => "a whole number",
            Self::Switch => "true or false",
            Self::Choice { .. } => "a word",
            Self::Texts => "a map of names and texts",
            Self::Map(_) | Self::Named(_) => "a map of keys and values",
            Self::List(..) => "a list",
            Self::AddressOr(_) => "an address such as 10.0.0.1:6379, or { address, weight }",
        }
    }
}

pub(super) fn duration(text: &str, kind: &Kind) -> Result<Duration, Wrong> {
    let Period(value) = text.parse().map_err(|error| Wrong::from(format!("{error}")))?;
    let Kind::Duration { min, max, or_none } = kind else { return Ok(value) };
    if (*min..=*max).contains(&value) || *or_none && value.is_zero() {
        return Ok(value);
    }
    let none = if *or_none { ", or 0 for none" } else { "" };
    let range = format!("from {} to {}{none}", Period(*min), Period(*max));
    Err(format!("'{text}' is out of range; it is {range}").into())
}

/// `None` is `auto`.
pub(super) fn size(text: &str, kind: &Kind) -> Result<Option<u64>, Wrong> {
    let Kind::Size { min, max, auto } = kind else { return Ok(None) };
    if *auto && text == "auto" {
        return Ok(None);
    }
    let Size(value) = text.parse().map_err(|error| Wrong::from(format!("{error}")))?;
    if (*min..=*max).contains(&value) {
        return Ok(Some(value));
    }
    let range = format!("from {} to {}", Size(*min), Size(*max));
    Err(format!("'{text}' is out of range; it is {range}").into())
}

/// `None` is `auto`.
pub(super) fn integer(text: &str, kind: &Kind) -> Result<Option<i64>, Wrong> {
    let Kind::Integer { min, max, auto } = kind else { return Ok(None) };
    if *auto && text == "auto" {
        return Ok(None);
    }
    let or = if *auto { ", or auto" } else { "" };
    match text.parse() {
        Ok(value) if (*min..=*max).contains(&value) => Ok(Some(value)),
        Ok(_) => Err(format!("{} is out of range; it is {min} to {max}{or}", short(text)).into()),
        Err(_) => {
            Err(format!("'{}' is not a whole number from {min} to {max}{or}", short(text)).into())
        }
    }
}

pub(super) fn switch(text: &str, _: &Kind) -> Result<bool, Wrong> {
    text.parse().map_err(|_| format!("'{}' is not true or false", short(text)).into())
}

/// One of the kind's words.
pub(super) fn choice(text: &str, kind: &Kind) -> Result<&'static str, Wrong> {
    let Kind::Choice { now, later } = kind else { return Ok("") };
    if let Some(word) = now.iter().find(|word| **word == text) {
        return Ok(word);
    }
    if later.contains(&text) {
        return Err(Wrong::Later);
    }
    let message = match now {
        [only] => format!("'{}' is not {only}", short(text)),
        _ => format!("'{}' is not one of {}", short(text), now.join(", ")),
    };
    let meant = nearest(text, now.iter().chain(*later).copied());
    Err(Wrong::Value(message, meant.map(str::to_owned)))
}

/// What one of the kind's words stands for.
pub(super) fn meaning<T: Copy>(text: &str, kind: &Kind, words: Words<T>) -> Result<T, Wrong> {
    let chosen = choice(text, kind)?;
    let found = words.iter().find(|(word, _)| *word == chosen);
    found.map(|(_, value)| *value).ok_or(Wrong::Later)
}

pub(super) fn name(text: &str) -> Result<String, Wrong> {
    if is_name(text) {
        return Ok(text.to_owned());
    }
    let letters = "it has 1 to 64 of A-Z a-z 0-9 _ . -";
    Err(format!("'{}' is not a name: {letters}", short(text)).into())
}

/// A command in upper case, or `COMMAND|SUBCOMMAND`.
pub(super) fn command(text: &str) -> Result<String, Wrong> {
    let word = |word: &str| {
        let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        (1..=64).contains(&word.len()) && word.chars().all(letter)
    };
    let good = match text.split_once('|') {
        Some((container, sub)) => word(container) && word(sub),
        None => word(text),
    };
    if good {
        return Ok(text.to_ascii_uppercase());
    }
    Err(format!("'{}' is not a command; write DEBUG or \"CONFIG|SET\"", short(text)).into())
}

/// `info`, or levels by target: `info,sluice=debug`.
pub(super) fn log_level(text: &str) -> Result<String, Wrong> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for part in text.split(',') {
        let (target, level) = match part.split_once('=') {
            Some((target, level)) => (Some(target), level),
            None => (None, part),
        };
        let target_ok = target.is_none_or(|target| {
            !target.is_empty()
                && target.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
        });
        if !target_ok {
            return Err(format!("'{}' is not a level by target: sluice=debug", short(part)).into());
        }
        if !LEVELS.contains(&level) {
            let message = format!("'{}' is not one of {}", short(level), LEVELS.join(", "));
            return Err(Wrong::Value(message, nearest(level, LEVELS).map(str::to_owned)));
        }
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(wrong: Wrong) -> String {
        match wrong {
            Wrong::Value(message, Some(meant)) => format!("{message}? {meant}"),
            Wrong::Value(message, None) => message,
            Wrong::Later => "later".to_owned(),
        }
    }

    #[test]
    fn ranges_are_held() {
        let kind = Kind::Duration {
            min: Duration::from_millis(10),
            max: Duration::from_secs(60),
            or_none: true,
        };
        assert_eq!(duration("0", &kind), Ok(Duration::ZERO));
        assert_eq!(duration("10ms", &kind), Ok(Duration::from_millis(10)));
        assert_eq!(
            told(duration("2m", &kind).unwrap_err()),
            "'2m' is out of range; it is from 10ms to 1m, or 0 for none"
        );
        let kind = Kind::Integer { min: 1, max: 9, auto: true };
        assert_eq!(integer("auto", &kind), Ok(None));
        assert_eq!(integer("9", &kind), Ok(Some(9)));
        for (text, part) in [("10", "out of range"), ("0", "out of range"), ("x", "not a whole")] {
            assert!(told(integer(text, &kind).unwrap_err()).contains(part));
        }
        let kind = Kind::Size { min: 1024, max: 4096, auto: false };
        assert_eq!(size("2KiB", &kind), Ok(Some(2048)));
        assert!(told(size("auto", &kind).unwrap_err()).contains("not a size"));
        assert!(told(size("1MiB", &kind).unwrap_err()).contains("1KiB to 4KiB"));
    }

    #[test]
    fn words_are_known_later_or_wrong() {
        let kind = Kind::Choice { now: &["slots"], later: &["ketama"] };
        assert_eq!(choice("slots", &kind), Ok("slots"));
        assert_eq!(choice("ketama", &kind), Err(Wrong::Later));
        assert_eq!(told(choice("ketma", &kind).unwrap_err()), "'ketma' is not slots? ketama");
    }

    #[test]
    fn names_commands_and_levels() {
        for good in ["a", "cache-1.eu_west", &"x".repeat(64)] {
            assert!(name(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "é", "a/b", &"x".repeat(65)] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert_eq!(command("config|set").unwrap(), "CONFIG|SET");
        for bad in ["", "|", "A|", "A|B|C", "A B", "GET\r\n"] {
            assert!(command(bad).is_err(), "{bad}");
        }
        for good in ["info", "warn,sluice=debug,sluice::net=trace"] {
            assert!(log_level(good).is_ok(), "{good}");
        }
        for bad in ["", "verbose", "a b=info", "sluice=", "=info"] {
            assert!(log_level(bad).is_err(), "{bad}");
        }
        assert!(told(log_level("inof").unwrap_err()).ends_with("? info"));
    }
}
