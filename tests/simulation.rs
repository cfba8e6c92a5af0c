//! Simulation: real policies, topology, sessions and upstream connections against a fake cluster
//! under a virtual clock, story after story by seed; every reply and every request that a server
//! gets is held against a model. `SIMULATION_SEED=n` plays that story alone,
//! `SIMULATION_SEEDS=n` the first n.

mod simulation {
    pub(crate) mod clients;
    pub(crate) mod control;
    pub(crate) mod ledger;
    pub(crate) mod resp;
    pub(crate) mod servers;
    pub(crate) mod world;

    /// A bug of the proxy that a layer of the simulation plays, to show that it would be found.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Planted {
        Nothing,
        /// A write whose connection was lost is sent once more.
        ResentWrite,
        /// Two replies of one connection change places.
        SwappedReplies,
        /// Workers do not hear that a backend is out.
        DeafWorkers,
    }
}

use simulation::{Planted, world::play};
use std::io::Write;

const SEEDS: u64 = 64;

#[test]
fn no_story_breaks_a_promise() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_SEEDS").unwrap_or(SEEDS),
    };
    let alone = seeds.end - seeds.start == 1;
    let (mut replies, mut errors, mut retries) = (0, 0, 0);
    for seed in seeds {
        let outcome = play(seed, Planted::Nothing);
        assert!(
            outcome.violations.is_empty(),
            "{}\n\nSIMULATION_SEED={seed}: {:#?}",
            outcome.story,
            outcome.violations
        );
        let counts = (outcome.transitions, outcome.faults, outcome.snapshots);
        assert!(counts.0 >= 20 && counts.1 >= 5 && counts.2 >= 2, "seed {seed}: {counts:?}");
        replies += outcome.replies;
        errors += outcome.errors;
        retries += outcome.retries;
    }
    let told = format!("{replies} replies, {errors} of them errors; {retries} retries");
    writeln!(std::io::stdout().lock(), "{told}").unwrap();
    // A cluster in such a state answers most requests all the same, and not all.
    assert!(alone || errors * 3 < replies && errors > 0 && retries > 0, "{told}");
}

#[test]
fn a_write_sent_twice_is_found() {
    assert!(is_found(Planted::ResentWrite, "was applied 2 times"));
}

#[test]
fn swapped_replies_are_found() {
    assert!(is_found(Planted::SwappedReplies, ""));
}

#[test]
fn a_request_for_a_closed_gate_is_found() {
    assert!(is_found(Planted::DeafWorkers, "with its gate closed"));
}

/// Whether some story of the seeds tells of a planted bug in these words.
fn is_found(planted: Planted, words: &str) -> bool {
    (0..SEEDS).any(|seed| {
        let violations = play(seed, planted).violations;
        violations.iter().any(|violation| violation.contains(words))
    })
}

#[test]
fn a_seed_tells_the_same_story_again() {
    for seed in 0..3 {
        let (one, two) = (play(seed, Planted::Nothing), play(seed, Planted::Nothing));
        assert_eq!(one.story, two.story, "seed {seed}");
        assert_eq!((one.replies, one.errors), (two.replies, two.errors), "seed {seed}");
    }
}
