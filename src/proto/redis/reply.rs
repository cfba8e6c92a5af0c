//! Every error that a Redis client can hear from us, in one place. Texts that Redis has are Redis's
//! own; ours begin with `sluice:`. Not how replies are written: that is [`super::wire`].

use super::frame::DecodeError;
use crate::topology::door::{Reason, Refusal};

pub(super) const OK: &[u8] = b"+OK\r\n";
pub(super) const PONG: &[u8] = b"+PONG\r\n";
pub(super) const RESET: &[u8] = b"+RESET\r\n";
/// A primary that has written nothing and has no replicas.
pub(super) const ROLE: &[u8] = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";
pub(super) const QUEUED: &[u8] = b"+QUEUED\r\n";
pub(super) const EXEC_WITHOUT_MULTI: &[u8] = b"-ERR EXEC without MULTI\r\n";
pub(super) const DISCARD_WITHOUT_MULTI: &[u8] = b"-ERR DISCARD without MULTI\r\n";
pub(super) const NESTED_MULTI: &[u8] = b"-ERR MULTI calls can not be nested\r\n";
pub(super) const WATCH_IN_MULTI: &[u8] = b"-ERR WATCH inside MULTI is not allowed\r\n";
pub(super) const NO_MULTI: &[u8] = b"-ERR Command not allowed inside a transaction\r\n";
pub(super) const EXEC_ABORT: &[u8] =
    b"-EXECABORT Transaction discarded because of previous errors.\r\n";
pub(super) const NULL_ARRAY: &[u8] = b"*-1\r\n";
pub(super) const NULL_THREE: &[u8] = b"_\r\n";
pub(super) const NULL: &[u8] = b"$-1\r\n";
pub(super) const EMPTY_ARRAY: &[u8] = b"*0\r\n";
pub(super) const NO_AUTH: &[u8] = b"-NOAUTH Authentication required.\r\n";
pub(super) const WRONG_PASS: &[u8] =
    b"-WRONGPASS invalid username-password pair or user is disabled.\r\n";
pub(super) const AUTH_WITHOUT_PASSWORD: &[u8] =
    b"-ERR AUTH <password> called without any password \
configured for the default user. Are you sure your configuration is correct?\r\n";
pub(super) const NO_PROTO: &[u8] = b"-NOPROTO unsupported protocol version\r\n";
pub(super) const HELLO_NO_AUTH: &[u8] = b"-NOAUTH HELLO must be called with the client already \
authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate \
the client and select the RESP protocol version at the same time\r\n";
pub(super) const PROTO_NOT_INTEGER: &[u8] =
    b"-ERR Protocol version is not an integer or out of range\r\n";
pub(super) const SYNTAX: &[u8] = b"-ERR syntax error\r\n";
pub(super) const NOT_INT: &[u8] =
    b"-ERR value is out of range, value must between -2147483648 and 2147483647\r\n";
pub(super) const DB_RANGE: &[u8] = b"-ERR DB index is out of range\r\n";
pub(super) const SELECT_IN_CLUSTER: &[u8] = b"-ERR SELECT is not allowed in cluster mode\r\n";
pub(super) const INVALID_SLOT: &[u8] = b"-ERR Invalid or out of range slot\r\n";
pub(super) const WAIT_IN_CLUSTER: &[u8] = b"-ERR sluice: from Redis 7.2 on nobody can WAIT in front of a Redis Cluster: the nodes count what is not there\r\n";
pub(super) const INVALID_CURSOR: &[u8] = b"-ERR invalid cursor\r\n";
pub(super) const BAD_NAME: &[u8] =
    b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n";
pub(super) const CROSS_SLOT: &[u8] = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n";
pub(super) const INVALID_COMMAND: &[u8] = b"-ERR Invalid command specified\r\n";
pub(super) const INVALID_ARITY: &[u8] =
    b"-ERR Invalid number of arguments specified for command\r\n";
pub(super) const INVALID_ARGUMENTS: &[u8] = b"-ERR Invalid arguments specified for command\r\n";
pub(super) const NO_KEYS: &[u8] = b"-ERR The command has no key arguments\r\n";
pub(super) const TOO_MANY_NAMES: &[u8] = b"-ERR sluice: COMMAND with too many names at once\r\n";
pub(super) const NO_SCAN_REPLY: &[u8] = b"-ERR sluice: the server's reply to SCAN is not one\r\n";
pub(super) const CURSOR_TOO_LARGE: &[u8] =
    b"-ERR sluice: the server's SCAN cursor is too large to carry the shard in it\r\n";
/// Of a part of a gather, so without `-` and CRLF.
pub(super) const OTHER_KIND: &[u8] =
    b"ERR sluice: the server's reply is of another kind than asked for";
pub(super) const NOT_INTEGER: &[u8] = b"-ERR value is not an integer or out of range\r\n";
pub(super) const SLOWLOG_COUNT: &[u8] = b"-ERR count should be greater than or equal to -1\r\n";
/// Of a part of a gather, likewise.
pub(super) const TOO_MANY_KEYS: &[u8] =
    b"ERR sluice: more than redis.keys_max keys over all shards, use SCAN";
pub(super) const OUT_OF_MEMORY: &[u8] = b"-OOM sluice: memory limit\r\n";
pub(super) const UNBALANCED_QUOTES: &[u8] =
    b"-ERR Protocol error: unbalanced quotes in request\r\n";
pub(super) const MAY_NOT_TOUCH: &[u8] =
    b"-NOPERM this user has no permissions to access one of the keys used as arguments\r\n";
pub(super) const TOO_MANY_USERS: &[u8] =
    b"-ERR sluice: too many users at once, try again later\r\n";
pub(super) const SEVERAL_CLUSTERS: &[u8] =
    b"-CROSSSLOT sluice: the keys in the request belong to several clusters\r\n";
pub(super) const TRANSACTION_ROUTE: &[u8] =
    b"-CROSSSLOT sluice: transactions are for keys of the route without match\r\n";
pub(super) const ZERO: &[u8] = b":0\r\n";
pub(super) const NOT_AN_INTEGER: &[u8] = b"-ERR value is not an integer or out of range\r\n";
pub(super) const UNBLOCK_REASON: &[u8] =
    b"-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n";
pub(super) const STREAM_CHANGED: &[u8] =
    b"-ERR sluice: the primary is another one than at the write, \
or has begun anew: what was written may be lost\r\n";
pub(super) const NOT_PUBLISHED: &[u8] =
    b"-ERR sluice: the server's reply to PUBLISH is not a number, so its count means nothing\r\n";
pub(super) const NO_DEDICATED: &[u8] = b"-ERR sluice: no dedicated connection free\r\n";
pub(super) const SCRIPT_DEBUG: &[u8] = b"-ERR Use SCRIPT DEBUG YES/SYNC/NO\r\n";
pub(super) const SUBSCRIBE_TIMED_OUT: &[u8] =
    b"-ERR sluice: the server did not confirm in time, nothing was subscribed to\r\n";
pub(super) const TOO_MANY_SUBSCRIPTIONS: &[u8] =
    b"-ERR sluice: too many subscriptions of one client\r\n";
pub(super) const TIMED_OUT: &str = "request timed out, result unknown";

pub(super) const NO_SUCH_CLIENT: &[u8] = b"-ERR No such client\r\n";
pub(super) const INVALID_CLIENT_ID: &[u8] = b"-ERR Invalid client ID\r\n";
pub(super) const CLIENT_ID_RANGE: &[u8] = b"-ERR client-id should be greater than 0\r\n";
pub(super) const TIMEOUT_NOT_INTEGER: &[u8] = b"-ERR timeout is not an integer or out of range\r\n";
pub(super) const TIMEOUT_NEGATIVE: &[u8] = b"-ERR timeout is negative\r\n";
pub(super) const PAUSE_MODE: &[u8] = b"-ERR CLIENT PAUSE mode must be WRITE or ALL\r\n";
pub(super) const WORKER_SILENT: &[u8] =
    b"-ERR sluice: a worker did not answer within 1s; what it was asked is not known to be done\r\n";
pub(super) const CACHING_WITHOUT_TRACKING: &[u8] = b"-ERR CLIENT CACHING can be called only when \
the client is in tracking mode with OPTIN or OPTOUT mode enabled\r\n";
pub(super) const TRACKING_ROUTES: &[u8] =
    b"-ERR sluice: CLIENT TRACKING where routes lead to other clusters, or strip a prefix\r\n";
pub(super) const CACHING_YES_WITHOUT_OPTIN: &[u8] =
    b"-ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.\r\n";
pub(super) const CACHING_NO_WITHOUT_OPTOUT: &[u8] =
    b"-ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.\r\n";
pub(super) const NO_REDIRECT: &[u8] = b"-ERR The client ID you want redirect to does not exist\r\n";
pub(super) const REDIRECT_DEAF: &[u8] =
    b"-ERR sluice: no connection for the client to redirect to; nothing is tracked, try again\r\n";
pub(super) const TRACKING_TWO_REDIRECTS: &[u8] =
    b"-ERR A client can only redirect to a single other client\r\n";
pub(super) const TRACKING_PREFIX: &[u8] =
    b"-ERR PREFIX option requires BCAST mode to be enabled\r\n";
pub(super) const TRACKING_SWITCH_BCAST: &[u8] = b"-ERR You can't switch BCAST mode on/off before \
disabling tracking for this client, and then re-enabling it with a different mode.\r\n";
pub(super) const TRACKING_OPT_BCAST: &[u8] =
    b"-ERR OPTIN and OPTOUT are not compatible with BCAST\r\n";
pub(super) const TRACKING_OPT_BOTH: &[u8] =
    b"-ERR You can't specify both OPTIN mode and OPTOUT mode\r\n";
pub(super) const TRACKING_SWITCH_OPT: &[u8] = b"-ERR You can't switch OPTIN/OPTOUT mode before \
disabling tracking for this client, and then re-enabling it with a different mode.\r\n";
/// Redis's words for a command that a subscriber of RESP2 may not send.
pub(super) fn only_subscriptions(out: &mut Vec<u8>, command: &str) {
    let allowed = "(P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET";
    let command = command.to_ascii_lowercase();
    let text = format!("only {allowed} are allowed in this context");
    error(out, &format!("Can't execute '{command}': {text}"));
}

/// `-ERR text`; control characters in it cannot break the line.
pub(super) fn error(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"-ERR ");
    line(out, text.as_bytes());
}

/// An error whose text has its own code: `LOADING ...`.
pub(super) fn raw_error(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'-');
    line(out, text);
}

/// Not executed, for want of a server: a code that clients know as retryable.
pub(super) fn cluster_down(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"-CLUSTERDOWN sluice: ");
    line(out, text.as_bytes());
}

/// Not executed: every replica lacks something that the read must see, or may.
pub(super) fn not_fresh(out: &mut Vec<u8>, shard: &str) {
    let text = format!(
        "shard {shard} has no replica that is known to be new enough for reads.consistency, \
         and reads.from wants replicas"
    );
    cluster_down(out, &text);
}

/// READWRITE where `reads.from` is `replica`.
pub(super) const REPLICAS_ALONE: &[u8] =
    b"-ERR sluice: reads go to replicas alone here (reads.from: replica)\r\n";

/// Not executed, because all servers that could are at their limit.
pub(super) fn overloaded(out: &mut Vec<u8>, cluster: &str) {
    error(out, &format!("sluice: cluster '{cluster}' overloaded"));
}

/// A connection that a limit of the listener refuses. The words of Redis's own limit are Redis's.
pub fn refused(refusal: Refusal) -> Vec<u8> {
    let mut out = Vec::new();
    match refusal.reason {
        Reason::MaxConnections => error(&mut out, "max number of clients reached"),
        Reason::ClientConnections => {
            error(&mut out, "sluice: too many connections from your address");
        }
        Reason::ClientRate | Reason::ClientRequests => {
            error(&mut out, "sluice: your address connects too often, try again later");
        }
        Reason::Memory => out.extend_from_slice(OUT_OF_MEMORY),
    }
    out
}

/// The connection's bytes are not Redis protocol.
pub(super) fn protocol_error(out: &mut Vec<u8>, error: DecodeError) {
    self::error(out, &format!("Protocol error: {error}"));
}

/// A split write that failed on some shards (the others have written).
pub(super) fn partial_write(
    out: &mut Vec<u8>,
    command: &str,
    failed: u16,
    parts: u16,
    shard: &str,
    text: &str,
) {
    let rest = match command.contains('|') {
        _ if failed >= parts => "",
        true => "; the others have done it",
        false => "; other keys were written",
    };
    error(
        out,
        &format!(
            "sluice: {command} failed on {failed} of {parts} shards (shard {shard}: {text}){rest}"
        ),
    );
}

/// What every shard must do, and some have not.
pub(super) fn partly_done(
    out: &mut Vec<u8>,
    command: &str,
    failed: u16,
    parts: u16,
    shard: &str,
    text: &str,
) {
    let command = command.replace('|', " ");
    error(
        out,
        &format!(
            "sluice: {command} failed on {failed} of {parts} shards (shard {shard}: {text}); \
             the others have done it"
        ),
    );
}

/// The connection ended after the request's bytes left.
pub(super) fn unknown_result(out: &mut Vec<u8>, shard: &str) {
    error(out, &format!("sluice: connection to shard {shard} lost, result unknown"));
}

/// The connection ended before the whole request was there; the rest of it was dropped.
/// A request that was not executed while later ones for its slot were.
pub(super) fn overtaken(out: &mut Vec<u8>, slot: u16) {
    let text = format!(
        "-TRYAGAIN sluice: slot {slot} has moved, later requests were executed and this one was not\r\n"
    );
    out.extend_from_slice(text.as_bytes());
}

/// A request over a connection of the session's own to a server that has given the slot away.
pub(super) fn slot_moved(out: &mut Vec<u8>, slot: u16) {
    let text = format!("-TRYAGAIN sluice: slot {slot} has moved, nothing was executed\r\n");
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn upload_lost(out: &mut Vec<u8>, shard: &str) {
    error(
        out,
        &format!(
            "sluice: connection to shard {shard} lost while the request came in, it was not executed"
        ),
    );
}

/// The request's time is over; whether it was executed is not known.
pub(super) fn timed_out(out: &mut Vec<u8>, shard: &str) {
    error(out, &format!("sluice: shard {shard}: {TIMED_OUT}"));
}

/// EXEC was answered with an `error` of ours, so only its own shard was sent those `commands`.
pub(super) fn only_here(out: &mut Vec<u8>, error: &[u8], commands: &str) {
    let rest = format!("; the other shards were not sent {commands}");
    raw_error(out, &[error.get(1..).unwrap_or_default(), rest.as_bytes()].concat());
}

/// A transaction that was not executed, and why.
pub(super) fn exec_aborted(out: &mut Vec<u8>, cause: &[u8]) {
    let text = [b"EXECABORT Transaction discarded because of: ", cause].concat();
    raw_error(out, &text);
}

/// Redis's words for EXEC with arguments, which ends the transaction.
pub(super) fn exec_arity(out: &mut Vec<u8>) {
    exec_aborted(out, b"wrong number of arguments for 'exec' command");
}

/// A server that does not let us use MULTI; whether the queued requests were executed without it.
pub(super) fn multi_refused(out: &mut Vec<u8>, shard: &str, cause: &[u8], ran: bool) {
    let cause = String::from_utf8_lossy(cause.get(1..).unwrap_or_default());
    let rest = match ran {
        true => "the requests were executed one by one",
        false => "nothing was executed",
    };
    error(out, &format!("sluice: shard {shard} refuses MULTI ({cause}); {rest}"));
}

/// A command whose reply or effect would not stay inside EXEC's.
pub(super) fn not_in_multi(out: &mut Vec<u8>, command: &str) {
    error(out, &format!("sluice: '{command}' is not allowed inside MULTI"));
}

/// A command that concerns all shards, in a transaction, which has one.
pub(super) fn spans_shards(out: &mut Vec<u8>, command: &str) {
    error(out, &format!("sluice: '{command}' concerns every shard: not allowed inside MULTI"));
}

/// A transaction over a limit of the listener.
pub(super) fn multi_limit(out: &mut Vec<u8>, key: &str, limit: u64) {
    error(out, &format!("sluice: transaction over redis.{key} ({limit})"));
}

/// Redis's words for a command that it does not know (server.c, processCommand).
pub(super) fn no_such_command(out: &mut Vec<u8>, args: super::args::Args<'_>) {
    let cut = |bytes: &[u8], most: usize| {
        String::from_utf8_lossy(bytes.get(..most).unwrap_or(bytes)).into_owned()
    };
    let mut told = String::new();
    for arg in args.iter().skip(1) {
        if told.len() >= 128 {
            break;
        }
        told.push_str(&format!("'{}' ", cut(arg, 128 - told.len())));
    }
    let name = cut(args.get(0).unwrap_or_default(), 128);
    error(out, &format!("unknown command '{name}', with args beginning with: {told}"));
}

/// A command that a later version has.
pub(super) fn not_yet(out: &mut Vec<u8>, command: &str) {
    error(out, &format!("sluice: '{command}' is not supported yet"));
}

/// `INFO shard NAME` of a shard that there is none of.
pub(super) fn no_such_shard(out: &mut Vec<u8>, name: &[u8]) {
    error(
        out,
        &format!("sluice: there is no shard '{}'; SLUICE SHARDS lists them", printable(name)),
    );
}

/// Redis's words for a command that a user may not run.
pub(super) fn may_not_run(out: &mut Vec<u8>, command: &str) {
    let name = command.to_ascii_lowercase();
    let text = format!("NOPERM this user has no permissions to run the '{name}' command");
    raw_error(out, text.as_bytes());
}

/// A command that is refused by default or by the configuration.
pub(super) fn disabled(out: &mut Vec<u8>, command: &str) {
    error(out, &format!("sluice: command '{command}' is disabled"));
}

/// A command nobody told us about, with several shards.
pub(super) fn unknown_command(out: &mut Vec<u8>, name: &[u8]) {
    let name = printable(name);
    error(out, &format!("sluice: unknown command '{name}', add it under redis.commands"));
}

/// Redis's words for a wrong number of arguments.
pub(super) fn wrong_arity(out: &mut Vec<u8>, command: &str) {
    let name = command.to_ascii_lowercase();
    error(out, &format!("wrong number of arguments for '{name}' command"));
}

/// Redis's words for a container without a subcommand that we know.
pub(super) fn unknown_subcommand(out: &mut Vec<u8>, args: super::args::Args<'_>) {
    let container = printable(args.get(0).unwrap_or_default());
    match args.get(1) {
        None => wrong_arity(out, &container),
        Some(sub) => error(
            out,
            &format!(
                "unknown subcommand '{}'. Try {} HELP.",
                printable(sub),
                container.to_ascii_uppercase()
            ),
        ),
    }
}

/// Redis's words for a type of clients that is none.
pub(super) fn unknown_client_type(out: &mut Vec<u8>, word: &[u8]) {
    error(out, &format!("Unknown client type '{}'", printable(word)));
}

/// Redis's words for a user that is none.
pub(super) fn no_such_user(out: &mut Vec<u8>, user: &[u8]) {
    error(out, &format!("No such user '{}'", printable(user)));
}

/// Redis's words for a subcommand that has other arguments than it can have.
pub(super) fn wrong_subcommand(out: &mut Vec<u8>, args: super::args::Args<'_>) {
    let word = |at| args.get(at).unwrap_or_default();
    let (container, sub) = (printable(word(0)).to_ascii_uppercase(), printable(word(1)));
    let what = "unknown subcommand or wrong number of arguments for";
    error(out, &format!("{what} '{sub}'. Try {container} HELP."));
}

/// Redis's words for an option of HELLO that is none.
pub(super) fn hello_option(out: &mut Vec<u8>, word: &[u8]) {
    error(out, &format!("Syntax error in HELLO option '{}'", printable(word)));
}

/// Redis's words for a field of CLIENT SETINFO that is none.
pub(super) fn unknown_option(out: &mut Vec<u8>, field: &[u8]) {
    error(out, &format!("Unrecognized option '{}'", printable(field)));
}

/// Redis's words for a value that CLIENT SETINFO does not take.
pub(super) fn bad_info(out: &mut Vec<u8>, field: &[u8]) {
    let field = printable(&field.to_ascii_lowercase());
    error(out, &format!("{field} cannot contain spaces, newlines or special characters."));
}

/// SORT with patterns that name keys of any shard.
pub(super) fn foreign_pattern(out: &mut Vec<u8>, command: &str) {
    let text = "BY and GET patterns may name keys of other shards; give them the key's {tag}";
    error(out, &format!("sluice: {command}: {text}"));
}

/// At most 64 characters of what a client sent, safe to print.
pub(super) fn printable(bytes: &[u8]) -> String {
    bytes.get(..64).unwrap_or(bytes).escape_ascii().to_string()
}

fn line(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(text.iter().map(|b| if b.is_ascii_control() { b' ' } else { *b }));
    out.extend_from_slice(b"\r\n");
}
