//! What the operator wants of a backend, kept apart by who said it; the strictest wins. Not what
//! follows for its gate: that is [`super::gate`].

use super::gate::Admin;

/// Who may say what a backend is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The configuration's `admin:`.
    Config,
    /// The admin API, for an operator or a script.
    Api,
    /// What finds the backends.
    Discovery,
}

/// What the sources say of one backend. Each clears only its own.
///
/// ```text
///             set                          set(ready), or its time is over
///   ready -----------> drain, disabled -------------------------------------> ready
/// ```
///
/// Only what the API sets may have a time; the others last until they are told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    config: Admin,
    api: Admin,
    discovery: Admin,
    /// When what the API set is over; `None`: when it is cleared.
    until_ms: Option<u64>,
}

/// What happens to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A source says what it wants from now on; from the API until a time of the caller's clock,
    /// which other sources do not have.
    Set { source: Source, to: Admin, until_ms: Option<u64> },
    /// Time has passed.
    Tick,
}

/// What one source wants has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What was in force.
    pub from: Admin,
    /// What is in force now; the same when another source is as strict.
    pub to: Admin,
    pub source: Source,
    /// It was time that did it.
    pub expired: bool,
}

impl Machine {
    /// What is in force.
    pub fn admin(self) -> Admin {
        self.config.max(self.api).max(self.discovery)
    }

    /// What one source wants.
    pub const fn of(self, source: Source) -> Admin {
        match source {
            Source::Config => self.config,
            Source::Api => self.api,
            Source::Discovery => self.discovery,
        }
    }

    /// When what the API set is over, by the caller's clock.
    pub const fn until_ms(self) -> Option<u64> {
        self.until_ms
    }

    /// Takes one event; gives what it changed, a new time for the same wish included.
    pub fn observe(self, now_ms: u64, event: Event) -> (Self, Option<Transition>) {
        let (source, to, until_ms) = match event {
            Event::Set { source, to, until_ms } => (source, to, until_ms),
            Event::Tick if self.until_ms.is_some_and(|until| now_ms >= until) => {
                (Source::Api, Admin::Ready, None)
            }
            Event::Tick => return (self, None),
        };
        let next = match source {
            Source::Config => Self { config: to, ..self },
            Source::Discovery => Self { discovery: to, ..self },
            Source::Api => {
                Self { api: to, until_ms: until_ms.filter(|_| to != Admin::Ready), ..self }
            }
        };
        let expired = event == Event::Tick;
        let moved = Transition { from: self.admin(), to: next.admin(), source, expired };
        (next, (next != self).then_some(moved))
    }
}

impl Source {
    /// The word of events and the status API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Api => "api",
            Self::Discovery => "discovery",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is in force after each event, one letter each: `R`eady, `D`rain, disabled is `X`. An
    /// event is its source (`c`, `a`, `d`) and the letter it sets; an API wish is over three
    /// ticks (`.`) later when it is written as `t`.
    fn story(events: &str) -> String {
        let (mut machine, mut now_ms) = (Machine::default(), 0);
        let each = events.split(' ').map(|event| {
            let letters: Vec<char> = event.chars().collect();
            let event = match letters.as_slice() {
                ['.'] => {
                    now_ms += 1;
                    Event::Tick
                }
                [source, letter] => {
                    let until_ms = (*source == 't').then_some(now_ms + 3);
                    let source = match source {
                        'c' => Source::Config,
                        'd' => Source::Discovery,
                        _ => Source::Api,
                    };
                    let to = match letter {
                        'R' => Admin::Ready,
                        'D' => Admin::Drain,
                        _ => Admin::Disabled,
                    };
                    Event::Set { source, to, until_ms }
                }
                _ => panic!("{event}"),
            };
            machine = machine.observe(now_ms, event).0;
            match machine.admin() {
                Admin::Ready => 'R',
                Admin::Drain => 'D',
                Admin::Disabled => 'X',
            }
        });
        each.collect()
    }

    #[test]
    fn stories() {
        for (events, expected) in [
            ("aD aR", "DR"),
            // The strictest wins, and a source clears only its own.
            ("cD aX aR cR", "DXDR"),
            ("cX aD aR", "XXX"),
            ("dD cX dR cR", "DXXR"),
            // A wish with a time goes back by itself; what others say stays.
            ("tD . . . .", "DDDRR"),
            ("cD tX . . .", "DXXXD"),
            // A new wish takes the place of the old one and of its time.
            ("tD . aD . . . .", "DDDDDDD"),
            ("tD . tX . . .", "DDXXXR"),
            ("tD aR . . .", "DRRRR"),
        ] {
            assert_eq!(story(events), expected, "{events}");
        }
    }

    fn events() -> impl Strategy<Value = Event> {
        let source = prop::sample::select(vec![Source::Config, Source::Api, Source::Discovery]);
        let to = prop::sample::select(vec![Admin::Ready, Admin::Drain, Admin::Disabled]);
        let set = (source, to, prop::option::of(0u64..50)).prop_map(|(source, to, until_ms)| {
            let until_ms = until_ms.filter(|_| source == Source::Api);
            Event::Set { source, to, until_ms }
        });
        prop_oneof![3 => set, 2 => Just(Event::Tick)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Against a model that remembers each source's last wish and nothing else.
        #[test]
        fn the_strictest_wish_that_is_not_over_is_in_force(
            events in prop::collection::vec((events(), 0u64..5), 0..60),
        ) {
            let sources = [Source::Config, Source::Api, Source::Discovery];
            let (mut machine, mut now_ms) = (Machine::default(), 0u64);
            let mut wishes = [(Admin::Ready, None); 3];
            for (event, pause) in events {
                now_ms += pause;
                let before = machine;
                let (next, moved) = machine.observe(now_ms, event);
                machine = next;
                match event {
                    Event::Set { source, to, until_ms } => {
                        wishes[sources.iter().position(|one| *one == source).unwrap()] =
                            (to, until_ms);
                    }
                    Event::Tick => {
                        for wish in &mut wishes {
                            if wish.1.is_some_and(|until| now_ms >= until) {
                                *wish = (Admin::Ready, None);
                            }
                        }
                    }
                }
                let expected = wishes.iter().map(|(wish, _)| *wish).max().unwrap();
                prop_assert_eq!(machine.admin(), expected);
                for (source, (wish, _)) in sources.iter().zip(wishes) {
                    prop_assert_eq!(machine.of(*source), wish);
                }
                // It tells of every change, and of nothing else.
                prop_assert_eq!(moved.is_some(), before != machine);
                if let Some(moved) = moved {
                    prop_assert_eq!((moved.from, moved.to), (before.admin(), machine.admin()));
                    prop_assert_eq!(moved.expired, event == Event::Tick);
                }
                prop_assert!(machine.until_ms().is_none() || machine.of(Source::Api) != Admin::Ready);
            }
            // In the end time alone takes away what had a time.
            let last = machine.observe(u64::MAX, Event::Tick).0;
            prop_assert_eq!(last.until_ms(), None);
        }
    }
}
