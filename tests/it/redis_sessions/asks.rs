//! What a session asks: random requests of every kind that replies, messages and leases could be
//! confused by, each value with its client and number in it.

use super::model::{Model, Weather, Words};
use crate::harness::Dice;

pub(super) const CLIENTS: u64 = 8;

fn words(line: &str) -> Words {
    line.split(' ').map(str::to_owned).collect()
}

impl Model<'_> {
    /// Some requests that belong together.
    pub(super) fn turn(&mut self, dice: &mut Dice, asked: &mut Vec<Words>) {
        let three = self.session.three;
        match dice.below(100) {
            0..=44 => asked.push(self.text(dice, false)),
            45..=57 => asked.push(self.pile(dice, false)),
            58..=67 => self.transaction(dice, asked, true),
            68..=75 => asked.push(self.wait(dice)),
            76..=83 => asked.push(self.publish()),
            84..=88 => self.subscribe(dice, asked, three),
            89 | 90 if three => asked.push(self.unsubscribe(dice)),
            89..=91 => self.in_silence(dice, asked),
            92..=94 => {
                asked.push(words("CLIENT REPLY SKIP"));
                asked.push(self.text(dice, false));
                asked.push(self.echo());
            }
            95 | 96 => asked.push(words(if dice.percent(70) { "HELLO 3" } else { "HELLO 2" })),
            97 => asked.push(words("RESET")),
            _ => asked.push(words("PING")),
        }
    }

    /// One that waits for what nobody will push.
    pub(super) fn wait_for_nothing(&mut self) -> Words {
        let (number, _) = self.data.tag();
        words(&format!("BLPOP {{c{}}}:none{number} 0", self.client))
    }

    pub(super) fn echo(&mut self) -> Words {
        vec!["ECHO".to_owned(), self.data.tag().1]
    }

    fn key(&self, dice: &mut Dice, tagged: bool, kind: char, many: u64) -> String {
        let client = self.client;
        let prefix = if tagged { format!("{{c{client}}}") } else { format!("c{client}") };
        self.data.name(&format!("{prefix}:{kind}{}", dice.below(many)))
    }

    fn text(&mut self, dice: &mut Dice, tagged: bool) -> Words {
        let mut key = || self.key(dice, tagged, 's', 10);
        let [a, b, c, d] = [key(), key(), key(), key()];
        let (_, tag) = self.data.tag();
        words(&match dice.below(13) {
            0..=3 => format!("SET {a} {tag}"),
            4..=7 => format!("GET {a}"),
            8 => format!("MGET {a} {b} {c} {d}"),
            9 => format!("MSET {a} {tag}a {b} {tag}b"),
            10 => format!("DEL {a} {b}"),
            11 => format!("EXISTS {a} {b} {c} {d}"),
            _ if dice.percent(50) => format!("APPEND {a} {tag}"),
            _ => format!("ECHO {tag}"),
        })
    }

    fn pile(&mut self, dice: &mut Dice, tagged: bool) -> Words {
        // Those with a tag are waited for as well.
        let tagged = tagged || dice.percent(60);
        let (list, scores) = (self.key(dice, tagged, 'q', 3), self.key(dice, tagged, 'z', 2));
        let (number, tag) = self.data.tag();
        words(&match dice.below(12) {
            0..=2 => format!("RPUSH {list} {tag}"),
            3 => format!("LPUSH {list} {tag}"),
            4 | 5 => format!("LPOP {list}"),
            6 => format!("RPOP {list}"),
            7 => format!("LLEN {list}"),
            8 => format!("LRANGE {list} 0 -1"),
            9 | 10 => format!("ZADD {scores} {number} {tag}"),
            _ if dice.percent(50) => format!("ZPOPMIN {scores}"),
            _ => format!("ZCARD {scores}"),
        })
    }

    /// Without end where somebody will push, else for a moment.
    fn wait(&mut self, dice: &mut Dice) -> Words {
        let timeout = if dice.percent(60) { "0" } else { "0.015" };
        self.wait_for(dice, timeout)
    }

    fn wait_for(&self, dice: &mut Dice, timeout: &str) -> Words {
        let (one, other) = (self.key(dice, true, 'q', 3), self.key(dice, true, 'q', 3));
        let (scores, more) = (self.key(dice, true, 'z', 2), self.key(dice, true, 'z', 2));
        words(&match dice.below(6) {
            0 | 1 => format!("BLPOP {one} {timeout}"),
            2 => format!("BLPOP {one} {other} {timeout}"),
            3 => format!("BRPOP {one} {other} {timeout}"),
            4 => format!("BZPOPMIN {scores} {timeout}"),
            _ => format!("BZPOPMIN {scores} {more} {timeout}"),
        })
    }

    fn publish(&mut self) -> Words {
        let channel = self.board.channel(self.client);
        let text = self.board.next_message(&channel);
        vec!["PUBLISH".to_owned(), channel, text]
    }

    /// Of all sorts; sometimes watched, changed after that, discarded or with a mistake in it.
    fn transaction(&mut self, dice: &mut Dice, asked: &mut Vec<Words>, watches: bool) {
        if watches && dice.percent(40) {
            let (one, other) = (self.key(dice, true, 's', 10), self.key(dice, true, 'q', 3));
            asked.push(words(&format!("WATCH {one} {other}")));
            match dice.below(6) {
                0 => asked.push(self.text(dice, true)),
                1 => asked.push(self.pile(dice, true)),
                2 => asked.push(self.wait_for(dice, "0.015")),
                3 => asked.push(words("UNWATCH")),
                _ => {}
            }
        }
        asked.push(words("MULTI"));
        for _ in 0..dice.below(6) {
            let one = match dice.below(8) {
                0..=2 => self.text(dice, true),
                3 | 4 => self.pile(dice, true),
                5 => self.wait_for(dice, "0.015"),
                6 => self.publish(),
                _ => self.echo(),
            };
            asked.push(one);
        }
        match dice.below(12) {
            0 => asked.push(words("GET")),
            1 => asked.push(words("SUBSCRIBE nowhere")),
            _ => {}
        }
        asked.push(words(if dice.percent(12) { "DISCARD" } else { "EXEC" }));
        if dice.percent(5) {
            asked.push(words("EXEC"));
        }
    }

    /// In RESP2 not for long: nothing else may be asked meanwhile.
    fn subscribe(&mut self, dice: &mut Dice, asked: &mut Vec<Words>, three: bool) {
        for _ in 0..=dice.below(2) {
            let names: Vec<String> = (0..=dice.below(3))
                .map(|_| self.board.channel(usize::try_from(dice.below(CLIENTS)).unwrap()))
                .collect();
            asked.push(words(&match dice.percent(70) {
                true => format!("SUBSCRIBE {}", names.join(" ")),
                false => format!("PSUBSCRIBE {}*", names.join("* ")),
            }));
        }
        if three {
            return;
        }
        for _ in 0..dice.below(4) {
            asked.push(match dice.below(3) {
                0 => self.text(dice, false),
                1 => words("PING"),
                _ => self.unsubscribe(dice),
            });
        }
        match dice.below(3) {
            0 => asked.push(words("RESET")),
            _ => asked.extend([words("PUNSUBSCRIBE"), words("UNSUBSCRIBE")]),
        }
    }

    fn unsubscribe(&mut self, dice: &mut Dice) -> Words {
        let name = self.board.channel(usize::try_from(dice.below(CLIENTS)).unwrap());
        words(&match dice.below(4) {
            0 => "UNSUBSCRIBE".to_owned(),
            1 => "PUNSUBSCRIBE".to_owned(),
            2 => format!("UNSUBSCRIBE {name} {name}"),
            _ => format!("PUNSUBSCRIBE {name}*"),
        })
    }

    /// What nobody hears the replies to; only messages may come.
    fn in_silence(&mut self, dice: &mut Dice, asked: &mut Vec<Words>) {
        asked.push(words("CLIENT REPLY OFF"));
        for _ in 0..dice.below(6) {
            match dice.below(8) {
                0..=3 => asked.push(self.text(dice, false)),
                4 => asked.push(self.pile(dice, false)),
                5 => asked.push(self.wait_for(dice, "0.015")),
                // A failure would not be heard.
                _ if self.weather != Weather::Fair => asked.push(self.echo()),
                6 => self.transaction(dice, asked, false),
                _ => asked.push(self.publish()),
            }
        }
        asked.push(words("CLIENT REPLY ON"));
        asked.push(self.echo());
    }
}
