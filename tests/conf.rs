//! Every configuration that we ship or show is accepted, every bad one is refused with all its
//! mistakes at once, and no text makes the reader panic. Not the rules one by one: those are
//! tested beside the code.

use proptest::prelude::*;
use sluice::config::{Config, Env, Findings, Level, schema};
use std::{fs, path::Path};

/// The issue files that need a later version; everything else in tests/acceptance is accepted.
const NOT_YET: [&str; 0] = [];

/// Any variable is set, any file holds a password.
fn parse(text: &str, file: &str) -> (Option<Config>, Findings) {
    let variable = |_: &str| Some("set".to_owned());
    let file_of = |_: &Path| Ok("secret\n".to_owned());
    Config::parse(text, file, Env { variable: &variable, file: &file_of, certificates: false })
}

fn refused(text: &str) -> Findings {
    let (config, findings) = Config::parse(text, "f.yaml", Env::empty());
    assert!(config.is_none(), "accepted:\n{text}");
    findings
}

/// `line:column path: message` of every finding.
fn lines(findings: &Findings) -> Vec<String> {
    let place = |finding: &sluice::config::Finding| {
        finding.position.map_or_else(|| "-".to_owned(), |at| format!("{}:{}", at.line, at.column))
    };
    findings.iter().map(|finding| format!("{} {finding}", place(finding))).collect()
}

fn yaml_files(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<(String, String)> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn only_not_supported(findings: &Findings) -> bool {
    findings.errors() > 0 && findings.iter().all(|finding| finding.level != Level::Error)
}

#[test]
fn every_file_in_conf_is_accepted_without_a_hint() {
    for (name, text) in yaml_files("conf") {
        let (config, findings) = Config::parse(&text, &name, Env::empty());
        assert!(config.is_some() && findings.is_empty(), "{findings}");
    }
}

#[test]
fn the_examples_have_every_key_and_the_full_one_shows_the_defaults() {
    let text = include_str!("../conf/redis-full.yaml");
    let others = [
        text,
        include_str!("../conf/tcp.yaml"),
        include_str!("../conf/http.yaml"),
        include_str!("../conf/tls.yaml"),
        include_str!("../conf/redis-cluster.yaml"),
        include_str!("../conf/redis-sentinel.yaml"),
    ];
    fn keys(schema: &serde_json::Value, found: &mut Vec<String>) {
        match schema {
            serde_json::Value::Object(map) => {
                for (name, value) in map {
                    if name == "properties" {
                        found.extend(value.as_object().unwrap().keys().cloned());
                    }
                    keys(value, found);
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    keys(&schema(), &mut found);
    assert!(found.len() > 50, "{found:?}");
    for key in found {
        let shown = others.iter().any(|text| text.contains(&format!("{key}:")));
        assert!(shown, "{key} is in none of the full examples");
    }
    let full = parse(text, "full").0.unwrap();
    let small = parse(include_str!("../conf/minimal.yaml"), "minimal").0.unwrap();
    assert_eq!((full.workers, full.log, full.limits), (small.workers, small.log, small.limits));
    assert_eq!(full.shutdown, small.shutdown);
    let (full, small) = (&full.clusters[0], &small.clusters[0]);
    assert_eq!((full.check, full.timeouts), (small.check, small.timeouts));
    assert_eq!(full.reads.balance, small.reads.balance);
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = parse(include_str!("../conf/minimal.yaml"), "minimal").0.unwrap();
    assert_eq!(config.admin.bind.to_string(), "127.0.0.1:9900");
    assert!(!config.admin.explicit);
    let [cluster] = config.clusters.as_slice() else { panic!("one cluster") };
    assert_eq!(cluster.check, sluice::config::Check::default());
    assert_eq!(cluster.timeouts, sluice::topology::Timeouts::default());
    assert_eq!(cluster.reads, sluice::config::Reads::default());
    assert_eq!(cluster.upstream, sluice::topology::Credentials::default());
    assert_eq!(cluster.check.worst_case_detection().as_secs(), 6);
    let redis = &config.listeners[0].redis;
    assert_eq!((redis.max_pipeline, redis.max_bulk), (1024, 512 << 20));
    assert_eq!((redis.client_output_limit, &redis.password), (32 << 20, &None));
}

#[test]
fn the_acceptance_files_are_accepted_or_for_later() {
    for (name, text) in yaml_files("tests/acceptance") {
        let (config, findings) = Config::parse(&text, &name, Env::empty());
        if NOT_YET.contains(&&*name) {
            assert!(config.is_none() && only_not_supported(&findings), "{name}\n{findings}");
            assert!(findings.to_string().contains("is not supported yet"), "{findings}");
        } else {
            assert!(config.is_some() && findings.is_empty(), "{findings}");
        }
    }
}

#[test]
fn four_mistakes_are_told_at_once() {
    let text = include_str!("acceptance/bad/four-mistakes.yaml");
    assert_eq!(
        lines(&refused(text)),
        [
            "2:26 listeners[0].bind: port '99999' is not a number from 0 to 65535",
            "2:69 listeners[0].cluster: there is no cluster 'cahce'; did you mean 'cache'?",
            "7:20 clusters.cache.reads.from: 'prefer_replika' is not one of primary, prefer_replica, replica, any; did you mean 'prefer_replica'?",
            "8:5 clusters.cache.chekc: unknown key `chekc`; did you mean 'check'?",
        ]
    );
}

#[test]
fn every_bad_file_is_refused_as_wrong() {
    for (name, text) in yaml_files("tests/acceptance/bad") {
        let findings = refused(&text);
        assert!(findings.iter().any(|finding| finding.level == Level::Error), "{name}");
    }
    let text = include_str!("acceptance/bad/duplicate-key.yaml");
    assert_eq!(
        lines(&refused(text)),
        ["5:3 clusters.a: duplicate key `a`: it is at line 4, column 3 already"]
    );
}

#[test]
fn the_schema_in_conf_is_current() {
    let kept = include_str!("../conf/sluice.schema.json");
    let now = format!("{:#}\n", schema());
    assert!(kept == now, "run: sluice config schema > conf/sluice.schema.json");
}

/// The ```yaml blocks of a Markdown text with their line, and whether they are for later.
fn blocks(markdown: &str) -> Vec<(usize, bool, String)> {
    let mut found = Vec::new();
    let mut later = false;
    let mut lines = markdown.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.trim() == "```yaml" {
            let indent = line.len() - line.trim_start().len();
            let body = lines.by_ref().take_while(|(_, line)| line.trim() != "```");
            let body: String = body
                .map(|(_, line)| format!("{}\n", line.get(indent..).unwrap_or_default()))
                .collect();
            found.push((number + 1, later, body));
        }
        if !line.trim().is_empty() {
            later = line.trim() == "<!-- not yet -->";
        }
    }
    found
}

#[test]
fn every_yaml_block_of_the_documents_is_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).into_iter().flatten();
    let docs = docs.map(|entry| entry.unwrap().path());
    let documents = docs.chain([root.join("README.md")]);
    for path in documents.filter(|path| path.extension().is_some_and(|end| end == "md")) {
        let Ok(markdown) = fs::read_to_string(&path) else { continue };
        for (line, later, text) in blocks(&markdown) {
            let (config, findings) = parse(&text, &format!("{}:{line}", path.display()));
            let good = config.is_some() || later && only_not_supported(&findings);
            assert!(good, "{findings}");
        }
    }
}

#[test]
fn blocks_of_a_document_are_found() {
    let markdown = "a\n```yaml\nb: 1\n```\n<!-- not yet -->\n\n  ```yaml\n  c: 2\n    d: 3\n  ```\n```\nx\n```\n";
    assert_eq!(
        blocks(markdown),
        [(2, false, "b: 1\n".to_owned()), (7, true, "c: 2\n  d: 3\n".to_owned())]
    );
}

#[test]
fn files_that_are_no_text_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.yaml");
    for (bytes, part) in [
        (b"a: 1\nb: \xff\n".to_vec(), ":2:4: the byte 0xff is not UTF-8"),
        (vec![b'#'; 100 << 20], "larger than 1MiB"),
        (Vec::new(), "is empty"),
        (b"# nothing\n".to_vec(), "is empty"),
        (b"\xef\xbb\xbfworkers: none\n".to_vec(), "workers: 'none'"),
    ] {
        fs::write(&path, bytes).unwrap();
        let (config, findings) = Config::load(&path, Env::process());
        assert!(config.is_none() && findings.to_string().contains(part), "{findings}");
    }
    let (_, findings) = Config::load(&folder.path().join("none.yaml"), Env::process());
    assert!(findings.to_string().contains("none.yaml: the file cannot be read: No such file"));
    let (_, findings) = Config::load(folder.path(), Env::process());
    assert!(findings.to_string().contains("cannot be read"), "{findings}");
}

#[test]
fn a_password_file_is_relative_to_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), "two words\r\n").unwrap();
    let path = folder.path().join("f.yaml");
    let text = "listeners: [{ bind: 127.0.0.1:1, protocol: redis, cluster: a, redis: { password_file: secret } }]\nclusters: { a: { shards: [{ primary: 127.0.0.1:2 }] } }\n";
    fs::write(&path, text).unwrap();
    let (config, findings) = Config::load(&path, Env::process());
    let config = config.unwrap_or_else(|| panic!("{findings}"));
    assert_eq!(config.listeners[0].redis.password.as_ref().unwrap().0, "two words");
}

/// A full configuration to break.
fn full() -> &'static str {
    include_str!("../conf/redis-full.yaml")
}

fn never_panics(text: &str) {
    let (config, findings) = parse(text, "f.yaml");
    assert_eq!(config.is_some(), findings.accepted());
    let _ = findings.to_string();
    if let Some(config) = config {
        let printed = config.to_yaml(true);
        assert!(parse(&printed, "printed.yaml").0.is_some(), "{printed}");
    }
    sluice::config::fuzz(text);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        never_panics(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn yaml_like_text_never_panics(text in "([a-z]{1,3}|[-:?,\\[\\]{}&*!|>'\"%@` #$~\n\t]|\\$\\{|é){0,80}") {
        never_panics(&text);
    }

    #[test]
    fn cut_configurations_never_panic(from in 0..full().len(), to in 0..full().len()) {
        let text = full();
        never_panics(text.get(..from).unwrap_or_default());
        never_panics(text.get(to..).unwrap_or_default());
        let both = [text.get(..from), text.get(to..)].map(Option::unwrap_or_default).concat();
        never_panics(&both);
    }

    #[test]
    fn mutated_configurations_never_panic(
        changes in prop::collection::vec((0..full().len(), 0usize..12, prop::sample::select(vec![
            "", " ", "\n", "- ", ": ", "[", "]", "{", "}", "${", "0", "99999999999999999999", "-1",
            "~", "'", "\"", "&a ", "*a", "é", "\0", "redis: ", "clusters:", "null", "127.0.0.1:0",
        ])), 1..6),
    ) {
        let mut text = full().to_owned();
        for (at, length, insert) in changes {
            let (at, end) = (at.min(text.len()), (at + length).min(text.len()));
            if text.is_char_boundary(at) && text.is_char_boundary(end) {
                text.replace_range(at..end, insert);
            }
        }
        never_panics(&text);
    }
}

/// Runs the program: exit code, stdout, stderr.
fn sluice(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("SLUICE_CONFIG")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn check_says_ok_in_one_line_or_every_finding() {
    let (code, out, err) = sluice(&["check", "-c", "conf/minimal.yaml", "conf/redis-shards.yaml"]);
    assert_eq!((code, &*err), (Some(0), ""));
    assert_eq!(
        out,
        "conf/minimal.yaml: ok: 1 listener, 1 cluster, 1 shard, 1 backend; worst-case detection time of cluster 'cache' is 6s\n\
         conf/redis-shards.yaml: ok: 1 listener, 1 cluster, 2 shards, 6 backends; worst-case detection time of cluster 'cache' is 3.5s\n"
    );
    let (code, out, _) = sluice(&["check", "conf/tcp.yaml"]);
    assert_eq!(code, Some(0));
    assert!(
        out.starts_with("conf/tcp.yaml: ok: 2 listeners, 2 clusters, 5 backends; worst"),
        "{out}"
    );
    let bad = "tests/acceptance/bad/four-mistakes.yaml";
    let (code, out, err) = sluice(&["check", "-c", bad, "-c", "conf/minimal.yaml"]);
    assert_eq!((code, out.lines().count()), (Some(78), 1));
    assert_eq!(err.matches(bad).count(), 4, "{err}");
    let (code, out, err) = sluice(&["check", "--format", "json", bad, "conf/minimal.yaml"]);
    assert_eq!((code, &*err), (Some(78), ""));
    let results: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&results[0]["ok"], &results[1]["ok"]), (&false.into(), &true.into()));
    assert_eq!(results[0]["findings"][2]["suggestion"], "prefer_replica");
}

#[test]
fn exit_codes_tell_configuration_from_the_rest() {
    assert_eq!(
        sluice(&["version"]),
        (Some(0), concat!("sluice ", env!("CARGO_PKG_VERSION"), "\n").into(), String::new())
    );
    assert_eq!(sluice(&["--help"]).0, Some(0));
    assert_eq!(sluice(&["chekc"]).0, Some(1));
    assert_eq!(sluice(&["run", "-c", "/nowhere.yaml"]).0, Some(78));
    assert_eq!(sluice(&["config", "print", "-c", "/nowhere.yaml"]).0, Some(78));
}

#[test]
fn a_configuration_may_come_from_standard_input_or_be_named_by_the_environment() {
    let (code, _, err) = sluice(&["check"]);
    assert!(code == Some(1) && err.contains("sluice check -c sluice.yaml"), "{err}");
    let program = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("check");
        command
    };
    let named = program().env("SLUICE_CONFIG", "conf/minimal.yaml").output().unwrap();
    assert!(named.status.success() && named.stdout.starts_with(b"conf/minimal.yaml: ok"));
    let file = fs::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/minimal.yaml"));
    let piped = program().arg("-").stdin(file.unwrap()).output().unwrap();
    assert!(piped.status.success() && piped.stdout.starts_with(b"-: ok: "), "{piped:?}");
}

#[test]
fn config_shows_the_example_the_schema_and_what_is_in_force() {
    assert_eq!(sluice(&["config", "example"]).1, full());
    assert_eq!(sluice(&["config", "schema"]).1, include_str!("../conf/sluice.schema.json"));
    let (code, all, _) = sluice(&["config", "print", "--defaults", "-c", "conf/minimal.yaml"]);
    assert_eq!(code, Some(0));
    assert!(all.contains("drain_timeout: 25s\n") && parse(&all, "printed").0.is_some(), "{all}");
    assert_eq!(sluice(&["config", "print", "--defaults"]), (Some(0), all, String::new()));
    let (_, few, _) = sluice(&["config", "print", "-c", "conf/minimal.yaml"]);
    assert!(few.lines().count() < 12 && parse(&few, "printed").0.is_some(), "{few}");
}
