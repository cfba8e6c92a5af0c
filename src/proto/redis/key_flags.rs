//! What a request does to each of its keys, for COMMAND GETKEYSANDFLAGS. It finds no keys: that is
//! [`super::keys`].

use super::{
    args::Args,
    flags::spec_flag::{ACCESS, INCOMPLETE, NOT_KEY, OW, RO, RW, UPDATE, VARIABLE},
    keys,
    options::is,
    table::Command,
};

/// The flags (`spec_flag`) of the key at argument `at`, which is the first of the request's keys or
/// not.
pub(super) fn of(command: &Command, args: Args<'_>, at: usize, is_first: bool) -> u16 {
    let told =
        |spec: &&_| keys::of_spec(spec, args).is_some_and(|mut keys| keys.any(|key| key == at));
    let specs = || command.specs.iter().filter(|spec| spec.flags & NOT_KEY == 0);
    let flags = match specs().find(told).or_else(|| specs().next()) {
        Some(spec) if spec.flags & VARIABLE != 0 => by_options(command, args),
        // Where no specification tells a key (SORT's STORE), it is the one that is written to.
        Some(_) if !is_first && specs().all(|spec| !told(&spec)) => OW | UPDATE,
        Some(spec) => spec.flags,
        None => 0,
    };
    flags & !INCOMPLETE
}

/// SET and BITFIELD do what their options say (db.c, `setGetKeys` and `bitfieldGetKeys`).
fn by_options(command: &Command, args: Args<'_>) -> u16 {
    let options = 2..args.len();
    match command.name {
        "SET" if !options.clone().skip(1).any(|at| is(args, at, "GET")) => OW | UPDATE,
        "BITFIELD" if only_reads(args) => RO | ACCESS,
        _ => RW | ACCESS | UPDATE,
    }
}

/// Whether a BITFIELD has nothing but GETs, each with its two arguments.
fn only_reads(args: Args<'_>) -> bool {
    (2..args.len()).step_by(3).all(|at| is(args, at, "GET"))
}
