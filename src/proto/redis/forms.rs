//! Commands that may write but often only read: SORT, GEORADIUS, BITFIELD. A replica refuses them
//! whatever their arguments are, but takes their `_RO` form, which only reads (redis.md T28). Not
//! where a read goes.

use super::{
    args::Args,
    dispatch::{Flow, Scene},
    keys::{self, Keys},
    options::is,
    table::Command,
    wire,
};
use crate::{
    policy::{access::Access, reads::ReadFrom},
    topology::{Backend, Shard},
};

/// Forwards a request of a command that has a `_RO` form: in that form, as a read, where reads may
/// go to a replica and every member of the shard has it.
pub(super) fn forward(
    scene: &mut Scene<'_>,
    shard: usize,
    command: &Command,
    args: Args<'_>,
) -> Flow {
    let reads = scene.reading.from != ReadFrom::Primary && only_reads(command, args);
    let known = || scene.cluster.shards.get(shard).is_some_and(|shard| is_known(shard, command));
    if !reads || !known() {
        return scene.forward(shard, command, args.frame);
    }
    let rest = args.spans.first().map_or(0, |name| name.start as usize + name.len as usize + 2);
    let mut frame = Vec::with_capacity(args.frame.len() + 8);
    wire::array(&mut frame, args.len());
    wire::bulk(&mut frame, format!("{}_RO", command.name).as_bytes());
    frame.extend_from_slice(args.frame.get(rest..).unwrap_or_default());
    scene.send(shard, Access::Read, false, &frame)
}

/// Whether those arguments write nothing, and the `_RO` form takes them.
fn only_reads(command: &Command, args: Args<'_>) -> bool {
    match command.keys {
        // Their second key is where they store.
        Keys::Sort { .. } | Keys::GeoRadius { .. } => {
            keys::keys(command, args).is_ok_and(|keys| keys.len() == 1)
        }
        // BITFIELD: `GET type offset` and nothing else.
        _ => (2..args.len()).step_by(3).all(|at| is(args, at, "GET")),
    }
}

/// Whether every member is new enough, as far as probes have told.
fn is_known(shard: &Shard, command: &Command) -> bool {
    let since = match command.keys {
        Keys::Sort { .. } => [7, 0, 0],
        Keys::GeoRadius { .. } => [3, 2, 10],
        _ => [6, 0, 0],
    };
    shard.members.iter().all(|member| is_since(member, since))
}

/// Whether a server is of that version or newer, as far as probes have told.
pub(super) fn is_since(member: &Backend, since: [u32; 3]) -> bool {
    let version = |text: String| {
        let mut numbers = text.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
        [(); 3].map(|()| numbers.next().unwrap_or(0))
    };
    member.version().is_some_and(|text| version(text) >= since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::redis::{stage::Stage, table::Commands, testing::Request};

    #[test]
    fn only_what_stores_nothing_is_a_read() {
        let commands = Commands::builtin();
        for (line, reads) in [
            ("SORT k BY w_* GET # LIMIT 0 1", true),
            ("SORT k STORE to", false),
            ("GEORADIUS k 1 2 3 m COUNT 3", true),
            ("GEORADIUS k 1 2 3 m STORE to", false),
            ("GEORADIUSBYMEMBER k m 3 m STOREDIST to", false),
            ("BITFIELD k", true),
            ("BITFIELD k GET u8 0 get i4 #1", true),
            ("BITFIELD k GET u8 0 SET u8 0 1", false),
            ("BITFIELD k OVERFLOW SAT GET u8 0", false),
            ("BITFIELD k INCRBY u8 0 1", false),
        ] {
            let request = Request::new(line.split(' '));
            let command = commands.find(request.args()).unwrap();
            assert_eq!(only_reads(command, request.args()), reads, "{line}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn servers_that_are_too_old_or_not_known_get_the_plain_form() {
        for (versions, wanted) in [
            (["7.0.15", "7.0.15"], "$7\r\nSORT_RO\r\n"),
            (["7.0.15", "6.2.1"], "$4\r\nSORT\r\n"),
            (["7.0.15", ""], "$4\r\nSORT\r\n"),
        ] {
            let stage = Stage::new(2, ReadFrom::Replica);
            for (backend, version) in stage.backends.iter().zip(versions) {
                backend.publish_version(version);
            }
            let mut client = stage.client();
            client.say("SORT k DESC\r\n");
            stage.settle().await;
            let member = usize::from(wanted.contains("_RO"));
            let heard = stage.accept(member).heard();
            assert_eq!(heard, format!("*3\r\n{wanted}$1\r\nk\r\n$4\r\nDESC\r\n"));
        }
    }
}
