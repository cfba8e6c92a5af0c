//! Every parser holds what it must on the saved corpus of its fuzz target, and on thousands of
//! inputs made of it. Not a search for new ones: that is `cargo fuzz run TARGET` in fuzz/.

use sluice::proto::{http::fuzzing as http, redis::fuzzing};
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

type Check = fn(&[u8]);

/// By the name of the fuzz target, which calls the same function.
const PARSERS: [(&str, Check); 21] = [
    ("address", |data| with_text(data, sluice::net::addr::fuzz)),
    ("cluster_slots", fuzzing::cluster_slots),
    ("config", |data| with_text(data, sluice::config::fuzz)),
    ("cookie", sluice::policy::cookie::fuzz),
    ("cursor", fuzzing::cursor),
    ("gather", fuzzing::gather),
    ("handshake", fuzzing::handshake),
    ("http_client", http::client),
    ("http_head", http::head),
    ("http_keep_alive", http::keep_alive),
    ("http_routes", http::routes),
    ("inline", fuzzing::inline),
    ("keys", fuzzing::keys),
    ("learn", fuzzing::learn),
    ("messages", fuzzing::messages),
    ("probe", fuzzing::probe),
    ("proxy_protocol", sluice::net::proxy_protocol::fuzz),
    ("replies", fuzzing::replies),
    ("requests", fuzzing::requests),
    ("sentinel", fuzzing::sentinel),
    ("sticky", sluice::policy::sticky::fuzz),
];

/// Mutations of each parser's corpus, and the time after which a slow machine has had enough.
const MUTATIONS: usize = 4_000;
const TIME: Duration = Duration::from_secs(5);

fn check(name: &str) {
    let (_, check) = PARSERS.iter().find(|(parser, _)| *parser == name).unwrap();
    let corpus = corpus(name);
    for (file, data) in &corpus {
        told(&file.display().to_string(), data, *check);
    }
    let seeds: Vec<&[u8]> = corpus.iter().map(|(_, data)| data.as_slice()).collect();
    let mut mutator = Mutator(0x5EED);
    let until = Instant::now() + TIME;
    for round in 0..MUTATIONS {
        if Instant::now() > until {
            break;
        }
        told(&format!("mutation {round}"), &mutator.mutate(&seeds), *check);
    }
}

/// Runs one input; a failure names it and shows its bytes.
fn told(what: &str, data: &[u8], check: Check) {
    if let Err(panic) = std::panic::catch_unwind(|| check(data)) {
        let _ = writeln!(io::stderr().lock(), "{what}: b\"{}\"", data.escape_ascii());
        std::panic::resume_unwind(panic);
    }
}

macro_rules! parsers {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            check(stringify!($name));
        }
    )*};
}

parsers!(
    address cluster_slots config cookie cursor gather handshake http_client http_head http_keep_alive
    http_routes inline keys learn messages probe proxy_protocol replies
    requests sentinel sticky
);

#[test]
fn every_fuzz_target_has_a_corpus_and_a_test() {
    let names: Vec<String> = PARSERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    for folder in ["fuzz_targets", "corpus"] {
        let mut found: Vec<String> = files(&fuzz().join(folder)).iter().map(stem).collect();
        found.sort();
        assert_eq!(found, names, "{folder}");
    }
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in names {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}

fn with_text(data: &[u8], check: fn(&str)) {
    if let Ok(text) = std::str::from_utf8(data) {
        check(text);
    }
}

/// The saved inputs of a target, by name.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut inputs: Vec<(PathBuf, Vec<u8>)> = files(&fuzz().join("corpus").join(name))
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{name} has no corpus");
    inputs
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Changes inputs, always in the same way (xorshift64*, Vigna 2016).
struct Mutator(u64);

impl Mutator {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        drawn as usize % bound.max(1)
    }

    /// One seed with one to four changes: a byte, a digit, a word of the protocols, a piece cut out,
    /// a piece of another seed put in.
    fn mutate(&mut self, seeds: &[&[u8]]) -> Vec<u8> {
        const WORDS: [&[u8]; 14] = [
            b"\r\n",
            b"*1\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"$0\r\n\r\n",
            b"-ERR x\r\n",
            b":1\r\n",
            b"+OK\r\n",
            b"18446744073709551615",
            b"-9223372036854775808",
            b"0",
            b"\xff",
            b"\"",
            b" ",
        ];
        let mut data = seeds[self.below(seeds.len())].to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(data.len() + 1);
            let end = at + self.below(data.len() + 1 - at);
            match self.below(5) {
                0 if at < data.len() => data[at] = self.below(256) as u8,
                1 if at < data.len() => data[at] = b'0' + self.below(10) as u8,
                2 => drop(data.splice(at..at, WORDS[self.below(WORDS.len())].iter().copied())),
                3 => drop(data.drain(at..end)),
                _ => {
                    let other = seeds[self.below(seeds.len())];
                    let from = self.below(other.len() + 1);
                    let to = from + self.below(other.len() + 1 - from);
                    data.splice(at..end, other[from..to].iter().copied());
                }
            }
        }
        data
    }
}
