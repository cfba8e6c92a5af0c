use crate::{
    policy::reads::ReadFrom,
    proto::redis::{library, stage::Stage},
    topology::Timeouts,
};
use std::{fmt::Write as _, time::Duration};

/// A request of those words.
fn request(words: &[&str]) -> String {
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        write!(out, "${}\r\n{word}\r\n", word.len()).unwrap();
    }
    out
}

fn name(body: &str) -> String {
    library::sha(body.as_bytes()).iter().fold(String::new(), |mut name, byte| {
        write!(name, "{byte:02X}").unwrap();
        name
    })
}

const BODY: &str = "return redis.call('get', KEYS[1])";
const NO_SCRIPT: &str = "-NOSCRIPT No matching script. Please use EVAL.\r\n";

#[tokio::test(start_paused = true)]
async fn a_known_body_goes_ahead_once_for_each_connection() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say(request(&["SCRIPT", "LOAD", BODY]));
    stage.settle().await;
    let mut primary = stage.accept(0);
    let load = request(&["SCRIPT", "LOAD", BODY]);
    assert_eq!(primary.heard(), load);
    primary.say("$2\r\nok\r\n");
    let call = request(&["EVALSHA", &name(BODY), "1", "k"]);
    client.say(call.repeat(2));
    stage.settle().await;
    assert_eq!(client.heard(), "$2\r\nok\r\n");
    assert_eq!(primary.heard(), format!("{load}{call}{call}"));
    primary.say("$2\r\nok\r\n+one\r\n+two\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+one\r\n+two\r\n");
    drop(primary);
    stage.settle().await;
    client.say(&*call);
    stage.settle().await;
    assert_eq!(stage.accept(0).heard(), format!("{load}{call}"));
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_script_is_sent_again_as_its_body() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    let call = request(&["EVALSHA", &name(BODY), "1", "k", "x"]);
    let whole = request(&["EVAL", BODY, "1", "k", "x"]);
    client.say(&*call);
    stage.settle().await;
    let mut primary = stage.accept(0);
    assert_eq!(primary.heard(), call);
    primary.say(NO_SCRIPT);
    stage.settle().await;
    assert_eq!(client.heard(), NO_SCRIPT, "nobody has shown us the body");

    client.say(&*whole);
    stage.settle().await;
    assert_eq!(primary.heard(), whole);
    primary.say("+1\r\n");
    client.say(&*call);
    stage.settle().await;
    primary.heard();
    primary.say(format!("+loaded\r\n{NO_SCRIPT}"));
    stage.settle().await;
    assert_eq!(primary.heard(), whole, "flushed by somebody else meanwhile");
    primary.say(NO_SCRIPT);
    stage.settle().await;
    assert_eq!(client.heard(), format!("+1\r\n{NO_SCRIPT}"), "healed once and not for ever");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_overtaken_by_a_script_that_is_sent_again() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let (mut client, mut other) = (stage.client(), stage.client());
    client.say(request(&["EVAL", BODY, "1", "k"]));
    stage.settle().await;
    let mut primary = stage.accept(0);
    primary.say("+1\r\n");
    stage.settle().await;
    client.say(request(&["EVALSHA", &name(BODY), "1", "k"]));
    client.say("SET k 2\r\n");
    other.say(request(&["EVALSHA", &name(BODY), "1", "k"]));
    stage.settle().await;
    primary.heard();
    primary.say(format!("+loaded\r\n{NO_SCRIPT}+OK\r\n{NO_SCRIPT}"));
    stage.settle().await;
    assert_eq!(client.heard(), format!("+1\r\n{NO_SCRIPT}+OK\r\n"));
    assert_eq!(primary.heard(), request(&["EVAL", BODY, "1", "k"]), "the other one's");
    primary.say("+2\r\n");
    stage.settle().await;
    assert_eq!(other.heard(), "+2\r\n");
}

/// It said what a server says that is loading, after it had written: it was run again.
#[tokio::test(start_paused = true)]
async fn what_a_script_answers_is_no_word_of_the_server() {
    let stage = Stage::new(2, ReadFrom::Any);
    let mut client = stage.client();
    for (command, answer) in [("EVAL", "-LOADING not true\r\n"), ("FCALL", "-READONLY you\r\n")] {
        client.say(request(&[command, "x", "1", "k"]));
        stage.settle().await;
        let mut primary = stage.accept(0);
        primary.heard();
        primary.say(answer);
        stage.settle().await;
        assert_eq!(client.heard(), answer);
        assert_eq!(primary.heard(), "");
        stage.hub.upstreams()[0].end(super::super::upstream::Phase::Evicted, "the next one");
        stage.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_compile_is_forgotten() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say(request(&["EVAL", "return (", "0"]));
    stage.settle().await;
    let mut primary = stage.accept(0);
    let error = "-ERR Error compiling script (new function): user_script:1: x\r\n";
    primary.heard();
    primary.say(error);
    stage.settle().await;
    let call = request(&["EVALSHA", &name("return ("), "0"]);
    client.say(&*call);
    stage.settle().await;
    assert_eq!(primary.heard(), call);
    primary.say(NO_SCRIPT);
    stage.settle().await;
    assert_eq!(client.heard(), format!("{error}{NO_SCRIPT}"));
}

#[tokio::test(start_paused = true)]
async fn a_flush_is_one_of_our_memory_too() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say(request(&["EVAL", BODY, "0"]) + &request(&["SCRIPT", "FLUSH"]));
    client.say(request(&["EVALSHA", &name(BODY), "0"]));
    stage.settle().await;
    let mut primary = stage.accept(0);
    assert!(!primary.heard().contains("LOAD"));
    primary.say(format!("+1\r\n+OK\r\n{NO_SCRIPT}"));
    stage.settle().await;
    assert_eq!(client.heard(), format!("+1\r\n+OK\r\n{NO_SCRIPT}"));
    client.say(request(&["EVAL", BODY, "0"]) + &request(&["EVALSHA", &name(BODY), "0"]));
    stage.settle().await;
    assert!(primary.heard().contains("LOAD"), "shown again, remembered again");
}

#[tokio::test(start_paused = true)]
async fn scripts_have_a_timeout_of_their_own() {
    let timeouts = Timeouts {
        request: Duration::from_secs(1),
        stall: Duration::from_secs(2),
        ..Timeouts::default()
    };
    let mut stage = Stage::with_timeouts(1, ReadFrom::Primary, timeouts);
    let mut client = stage.client();
    client.say(request(&["EVAL", BODY, "0"]));
    stage.settle().await;
    let mut primary = stage.accept(0);
    stage.pass(Duration::from_secs(60)).await;
    primary.say("+late\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+late\r\n", "the default is to wait");

    let timeouts = Timeouts { script: Duration::from_secs(5), ..timeouts };
    let mut stage = Stage::with_timeouts(1, ReadFrom::Primary, timeouts);
    let mut client = stage.client();
    client.say(request(&["FCALL", "f", "0"]));
    stage.settle().await;
    let mut primary = stage.accept(0);
    stage.pass(Duration::from_secs(4)).await;
    assert_eq!(client.heard(), "");
    stage.pass(Duration::from_millis(1_500)).await;
    assert_eq!(client.heard(), "-ERR sluice: shard s0: request timed out, result unknown\r\n");
    primary.heard();
    assert!(!primary.is_closed());
    stage.pass(Duration::from_secs(3)).await;
    primary.heard();
    assert!(primary.is_closed(), "silent for longer than a script and a stall may take");
}

#[tokio::test(start_paused = true)]
async fn a_running_script_is_killed_beside_its_connection() {
    let mut stage = Stage::new(1, ReadFrom::Primary);
    let (mut runs, mut kills) = (stage.client(), stage.client());
    runs.say(request(&["EVAL", "while true do end", "0"]));
    stage.settle().await;
    let mut primary = stage.accept(0);
    kills.say("SCRIPT KILL\r\n");
    stage.settle().await;
    let mut aside = stage.accept(0);
    assert_eq!(aside.heard(), request(&["SCRIPT", "KILL"]));
    aside.say("+OK\r\n");
    primary.say("-ERR Error running script\r\n");
    stage.settle().await;
    assert_eq!(kills.heard(), "+OK\r\n");
    assert_eq!(runs.heard(), "-ERR Error running script\r\n");
    stage.pass(Duration::from_secs(62)).await;
    assert!(aside.is_closed() && !primary.is_closed());
}

#[tokio::test(start_paused = true)]
async fn only_what_reads_goes_to_a_replica() {
    let stage = Stage::new(2, ReadFrom::Replica);
    let mut client = stage.client();
    client.say(request(&["EVAL_RO", BODY, "1", "k"]) + &request(&["EVAL", BODY, "1", "k"]));
    client.say(request(&["EVALSHA_RO", &name(BODY), "1", "k"]));
    stage.settle().await;
    let (mut primary, mut replica) = (stage.accept(0), stage.accept(1));
    assert_eq!(primary.heard(), request(&["EVAL", BODY, "1", "k"]));
    let load = request(&["SCRIPT", "LOAD", BODY]);
    let call = request(&["EVALSHA_RO", &name(BODY), "1", "k"]);
    let shown = request(&["EVAL_RO", BODY, "1", "k"]);
    assert_eq!(replica.heard(), format!("{shown}{load}{call}"));
    primary.say("+p\r\n");
    replica.say(format!("+r\r\n+loaded\r\n{NO_SCRIPT}"));
    stage.settle().await;
    assert_eq!(replica.heard(), shown);
    replica.say("+healed\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+r\r\n+p\r\n+healed\r\n");
}

#[test]
fn scripts_say_in_their_first_line_that_they_do_not_write() {
    for (body, reads) in [
        ("#!lua flags=no-writes\nreturn 1", true),
        ("#!lua name=x flags=allow-stale,no-writes\r\nreturn 1", true),
        ("#!lua\n-- flags=no-writes", false),
        ("#!lua flags=no-writes-at-all\n", false),
        ("-- #!lua flags=no-writes\n", false),
        ("return 1", false),
        ("", false),
    ] {
        assert_eq!(super::says_no_writes(body.as_bytes()), reads, "{body}");
    }
}
