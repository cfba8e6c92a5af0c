//! Stories of one backend as strings of events, and rules that hold in any order of them.

use super::*;
use crate::policy::gate::{Admin, Axes, Health, Init, Role, derive};
use proptest::prelude::*;

/// Plays events, half a second apart, to a fresh machine and tells the state after each:
/// `.` closed, `E` ejected, `H` half open.
///
/// Events: `f` local failure, `e` error, `o` a success, `x` 19 failures, `h` hung, `+` and `-` a
/// probe, `_` nothing, `w` 11s pass, `m` a minute passes. Each ends with a sample.
struct Story {
    machine: Machine,
    now_ms: u64,
    totals: [u64; 2],
    may_eject: bool,
    causes: Vec<&'static str>,
}

impl Story {
    fn new() -> Self {
        let totals = [1_000, 50];
        Self {
            machine: Machine::new(totals[0], totals[1]),
            now_ms: 5_000,
            totals,
            may_eject: true,
            causes: Vec::new(),
        }
    }

    fn tell(&mut self, event: Event) {
        let (next, transition) = self.machine.observe(self.now_ms, event, self.may_eject, 3);
        self.machine = next;
        self.causes.extend(transition.map(|t| t.cause.as_str()));
    }

    fn sample(&mut self) {
        let [ok_total, failed_total] = self.totals;
        self.tell(Event::Sample { ok_total, failed_total });
    }

    fn play(&mut self, events: &str) -> String {
        events.chars().map(|event| self.step(event)).collect()
    }

    fn step(&mut self, event: char) -> char {
        self.now_ms += match event {
            'w' => 11_000,
            'm' => 60_000,
            _ => 500,
        };
        match event {
            'f' | 'e' => {
                self.totals[1] += 1;
                self.tell(if event == 'f' { Event::LocalFailure } else { Event::Error });
            }
            'o' => self.totals[0] += 1,
            'x' => self.totals[1] += 19,
            'h' => self.tell(Event::Trip(Cause::Hung)),
            '+' | '-' => self.tell(Event::Probe { passed: event == '+' }),
            _ => self.tell(Event::Tick),
        }
        self.sample();
        match self.machine.passive() {
            Passive::Closed => '.',
            Passive::Ejected => 'E',
            Passive::HalfOpen => 'H',
        }
    }
}

#[test]
fn stories() {
    for (events, expected, causes) in [
        // Three local failures or five errors in a row; a success in between forgives.
        ("fff", "..E", "local_failures"),
        ("ffoffoff", "........", ""),
        ("eeeee", "....E", "errors"),
        ("eeeeoeeee", ".........", ""),
        ("efefef", ".....E", "local_failures"),
        ("h", "E", "hung"),
        // 19 failures are too few to judge by, 1 of 20 is a ratio, old ones are forgotten.
        ("x_", "..", ""),
        ("ox", ".E", "success_ratio"),
        ("xwox", "...E", "success_ratio"),
        ("owx", "...", ""),
        // Back only when the time is over and the newest probe passed.
        ("fffw_", "..EEE", "local_failures"),
        ("fff+_", "..EEE", "local_failures"),
        ("fff+-w", "..EEEE", "local_failures"),
        ("fff+w", "..EEH", "local_failures time_over"),
        ("fffw+", "..EEH", "local_failures time_over"),
        // A success closes, a failure of any kind ejects again, and old probes no longer count.
        ("h+wo", "EEH.", "hung time_over trial_passed"),
        ("h+wfw", "EEHEE", "hung time_over trial_failed"),
        ("h+wew+", "EEHEEH", "hung time_over trial_failed time_over"),
        ("h+wxw", "EEHEE", "hung time_over trial_failed"),
        ("h+wh", "EEHE", "hung time_over hung"),
        ("h+w-+-", "EEHHHH", "hung time_over"),
        // What was counted before the ejection is forgotten.
        ("ox+woff", ".EEH...", "success_ratio time_over trial_passed"),
        ("offh+woff", "...EEH...", "hung time_over trial_passed"),
        // What ends while ejected is not the trial's.
        ("ho+wo", "EEEH.", "hung time_over trial_passed"),
        ("hx+wo", "EEEH.", "hung time_over trial_passed"),
        // A permit nobody came back with is given once more.
        ("h+www_", "EEHHHH", "hung time_over"),
        ("h+wm_", "EEHHH", "hung time_over trial_lost"),
    ] {
        let mut story = Story::new();
        assert_eq!(story.play(events), expected, "{events}");
        assert_eq!(story.causes.join(" "), causes, "{events}");
    }
}

#[test]
fn what_the_group_forbids_happens_when_it_no_longer_does() {
    let mut story = Story { may_eject: false, ..Story::new() };
    assert_eq!(story.play("ffffh"), ".....");
    story.may_eject = true;
    assert_eq!(story.play("_"), ".");
    assert_eq!(story.play("f"), "E");
    // Half open is out already: the group has no say.
    story.may_eject = false;
    assert_eq!(story.play("+wf"), "EHE");
}

/// Trips, waits its ejection out to half open, and says how many milliseconds it took.
fn ejection_ms(story: &mut Story, cause: char) -> u64 {
    assert_eq!(story.step(cause), 'E');
    let until_ms = story.machine.until_ms().unwrap();
    let length = until_ms - story.now_ms;
    assert_eq!(story.play("+"), "E");
    for (now_ms, state) in [(until_ms - 1, "E"), (until_ms, "H")] {
        story.now_ms = now_ms - 500;
        assert_eq!(story.play("_"), state, "{now_ms}ms, and it is over at {until_ms}ms");
    }
    length
}

#[test]
fn ejections_double_up_to_five_minutes_and_shrink_by_the_clean_minute() {
    let mut story = Story::new();
    let expect = |story: &mut Story, cause, seconds: u64| {
        let length = ejection_ms(story, cause);
        assert!((seconds * 900..=seconds * 1_100).contains(&length), "{length}ms, not {seconds}s");
    };
    expect(&mut story, 'h', 5);
    for seconds in [10, 20, 40, 80, 160, 300, 300, 300] {
        expect(&mut story, 'f', seconds);
    }
    assert_eq!(story.machine.ejections(), MOST_EJECTIONS);
    // Three clean minutes: 7 falls to 4, the next is the fifth.
    assert_eq!(story.play("ommm"), "....");
    assert_eq!(story.machine.ejections(), 4);
    expect(&mut story, 'h', 80);
    // Half a minute closed is not a clean minute.
    assert_eq!(story.play("oww"), "...");
    expect(&mut story, 'h', 160);
    assert_eq!(story.play("ommmmmmmmmm"), "...........");
    expect(&mut story, 'h', 5);
}

#[test]
fn at_most_half_of_a_group_rounded_up_and_never_the_last() {
    // Ejected one after another, from a group that is all ready.
    let ejected = |size: usize| (0..).find(|out| !may_eject(size, *out, size - out)).unwrap();
    assert_eq!((1..=8).map(ejected).collect::<Vec<_>>(), [0, 1, 2, 2, 3, 3, 4, 4]);
    // Five, three of them dead by their probes: one may go, not the other.
    assert!(may_eject(5, 0, 2));
    assert!(!may_eject(5, 0, 1));
    assert!(!may_eject(0, 0, 0));
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_u64..3, 0_u64..3)
            .prop_map(|(ok, failed)| Event::Sample { ok_total: ok, failed_total: failed }),
        (0_u64..3, 0_u64..30)
            .prop_map(|(ok, failed)| Event::Sample { ok_total: ok, failed_total: failed }),
        Just(Event::LocalFailure),
        Just(Event::Error),
        Just(Event::Trip(Cause::Hung)),
        any::<bool>().prop_map(|passed| Event::Probe { passed }),
        Just(Event::Tick),
    ]
}

/// What the event would add to the totals; a sample made by [`events`] holds differences.
fn absolute(totals: &mut [u64; 2], event: Event) -> Event {
    let Event::Sample { ok_total, failed_total } = event else { return event };
    *totals = [totals[0] + ok_total, totals[1] + failed_total];
    Event::Sample { ok_total: totals[0], failed_total: totals[1] }
}

fn pauses() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..2_000, 1 => 2_000_u64..20_000, 1 => 20_000_u64..400_000]
}

fn axes(passive: Passive) -> Vec<Axes> {
    let mut all = Vec::new();
    for admin in [Admin::Ready, Admin::Drain, Admin::Disabled] {
        for health in [Health::Unknown, Health::Healthy, Health::Unhealthy] {
            for role in Role::ALL {
                for init in [Init::Down, Init::Up] {
                    all.push(Axes { admin, health, passive, role, init, ..Axes::default() });
                }
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_order_of_events_keeps_the_rules(
        steps in prop::collection::vec((pauses(), events(), prop::bool::weighted(0.9), any::<u64>()), 1..200),
    ) {
        let mut machine = Machine::new(0, 0);
        let (mut now_ms, mut totals) = (0, [0, 0]);
        // The newest probe since the newest trip, told a second time.
        let mut passed = false;
        for (pause, event, may, draw) in steps {
            now_ms += pause;
            let before = totals;
            let event = absolute(&mut totals, event);
            let (next, transition) = machine.observe(now_ms, event, may, draw);
            if let Event::Probe { passed: result } = event {
                passed = result;
            }
            let moved = (machine.passive(), next.passive());
            match moved {
                (Passive::Closed, Passive::Ejected) => prop_assert!(may),
                (Passive::Ejected, Passive::HalfOpen) => {
                    prop_assert!(passed && now_ms >= machine.until_ms().unwrap());
                }
                (Passive::HalfOpen, Passive::Closed) => {
                    prop_assert!(totals[0] > before[0] && totals[1] == before[1]);
                }
                (Passive::HalfOpen, Passive::Ejected) => {
                    prop_assert!(next.ejections() > machine.ejections() || next.ejections() == MOST_EJECTIONS);
                }
                (Passive::Closed, Passive::HalfOpen) | (Passive::Ejected, Passive::Closed) => {
                    prop_assert!(false, "{moved:?} skips a state");
                }
                (from, to) => prop_assert_eq!(from, to),
            }
            if moved.1 == Passive::Ejected && moved.0 != Passive::Ejected {
                passed = false;
                let length = next.until_ms().unwrap() - now_ms;
                prop_assert!((4_500..=330_000).contains(&length), "{length}ms");
            }
            match transition {
                Some(t) => {
                    prop_assert_eq!((t.from, t.to), moved);
                    prop_assert!(t.from != t.to || t.cause == Cause::TrialLost);
                }
                None => prop_assert_eq!(moved.0, moved.1),
            }
            for axes in axes(next.passive()) {
                let (_, gate) = derive(axes);
                let well = match axes.init {
                    Init::Up => axes.health != Health::Unhealthy,
                    Init::Down => axes.health == Health::Healthy,
                };
                let usable = axes.admin == Admin::Ready && well;
                prop_assert_eq!(gate.open(), usable && next.passive() == Passive::Closed);
                prop_assert!(!gate.half_open() || next.passive() == Passive::HalfOpen);
                prop_assert!(!gate.open() || !gate.half_open());
            }
            machine = next;
        }
        // However it got there, a backend that is well comes back.
        for event in [Event::Tick, Event::Probe { passed: true }] {
            now_ms += 331_000;
            machine = machine.observe(now_ms, event, true, 0).0;
        }
        let event = absolute(&mut totals, Event::Sample { ok_total: 100, failed_total: 0 });
        prop_assert_eq!(machine.observe(now_ms, event, true, 0).0.passive(), Passive::Closed);
    }

    #[test]
    fn a_group_is_never_ejected_as_a_whole(
        size in 1_usize..9,
        steps in prop::collection::vec((pauses(), any::<prop::sample::Index>(), events()), 1..300),
    ) {
        let mut group = vec![(Machine::new(0, 0), [0, 0]); size];
        let mut now_ms = 0;
        for (pause, index, event) in steps {
            now_ms += pause;
            let ready = group.iter().filter(|(m, _)| m.passive() == Passive::Closed).count();
            let (machine, totals) = index.get_mut(&mut group);
            let event = absolute(totals, event);
            *machine = machine.observe(now_ms, event, may_eject(size, size - ready, ready), 1).0;
            let ready = group.iter().filter(|(m, _)| m.passive() == Passive::Closed).count();
            prop_assert!(ready >= 1, "the last ready member is out");
            prop_assert!(size - ready <= size.div_ceil(2), "{} of {size} are out", size - ready);
        }
    }
}
