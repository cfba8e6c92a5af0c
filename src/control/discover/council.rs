//! Whom to believe when several Sentinels speak of the same masters. It asks nobody: it takes what
//! they said and when.
//!
//! The newest configuration wins, as it does among the Sentinels themselves: of two epochs the
//! greater one. Of several that say the same epoch the address that most of them name, then the one
//! in force. An epoch less than the one in force is believed only when most of all Sentinels say so:
//! then they were reset; one alone has merely not heard.

use crate::{net::addr::Address, proto::redis::sentinel::Known};

/// What each Sentinel said last of one master.
#[derive(Clone, Debug)]
pub(super) struct Votes {
    /// By Sentinel: when it said so, and what.
    said: Vec<Option<(u64, Known)>>,
    /// What was believed last.
    believed: Option<Known>,
}

/// What is to be believed now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Its replicas are those of all who agree, without those that most of these think down.
    pub(super) known: Known,
    /// How many agree.
    pub(super) agree: usize,
    /// How many have said anything lately.
    pub(super) said: usize,
}

impl Votes {
    /// Of so many Sentinels, of which none has said anything.
    pub(super) fn new(sentinels: usize) -> Self {
        Self { said: vec![None; sentinels], believed: None }
    }

    /// Takes what one of them says now; `None`: it does not know.
    pub(super) fn take(&mut self, sentinel: usize, known: Option<Known>, now_ms: u64) {
        if let Some(said) = self.said.get_mut(sentinel) {
            *said = known.map(|known| (now_ms, known));
        }
    }

    /// Whom to believe; `None` when nobody has said anything lately, or nothing that is better than
    /// what was believed before.
    pub(super) fn decide(&mut self, now_ms: u64) -> Option<Verdict> {
        let fresh = |said: &&(u64, Known)| now_ms.saturating_sub(said.0) <= STALE_MS;
        let said: Vec<&Known> =
            self.said.iter().flatten().filter(fresh).map(|(_, known)| known).collect();
        let votes = |primary: &Address, epoch: u64| {
            said.iter().filter(|one| one.primary == *primary && one.epoch == epoch).count()
        };
        let before = self.believed.as_ref();
        let best = said.iter().max_by_key(|one| {
            let is_in_force = before.is_some_and(|before| before.primary == one.primary);
            (one.epoch, votes(&one.primary, one.epoch), is_in_force)
        })?;
        let most = self.said.len() / 2 + 1;
        let is_older = before.is_some_and(|before| best.epoch < before.epoch);
        if is_older && votes(&best.primary, best.epoch) < most {
            return None;
        }
        let agree: Vec<_> = said
            .iter()
            .filter(|one| one.primary == best.primary && one.epoch == best.epoch)
            .collect();
        let mut known = Known { down: Vec::new(), replicas: Vec::new(), ..Known::clone(best) };
        known.replicas = agree.iter().flat_map(|one| one.replicas.iter().cloned()).collect();
        known.replicas.sort_by_cached_key(Address::to_string);
        known.replicas.dedup();
        let think_down =
            |address: &Address| agree.iter().filter(|one| one.down.contains(address)).count();
        known.replicas.retain(|address| 2 * think_down(address) <= agree.len());
        let verdict = Verdict { known, agree: agree.len(), said: said.len() };
        self.believed = Some(verdict.known.clone());
        Some(verdict)
    }
}

/// Three polls: what was said before that says nothing any more.
const STALE_MS: u64 = 30_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn known(port: u16, epoch: u64, replicas: &[u16]) -> Option<Known> {
        let at = |port| Address::Tcp { host: "10.0.0.1".to_owned(), port };
        let replicas = replicas.iter().copied().map(at).collect();
        Some(Known { primary: at(port), epoch, replicas, down: Vec::new() })
    }

    /// `port@epoch agree/said`, or `-`.
    fn verdict(votes: &mut Votes, now_ms: u64) -> String {
        let Some(Verdict { known, agree, said }) = votes.decide(now_ms) else {
            return "-".to_owned();
        };
        let Address::Tcp { port, .. } = known.primary else { unreachable!() };
        format!("{port}@{} {agree}/{said}", known.epoch)
    }

    #[test]
    fn one_answer_is_enough_and_the_newest_epoch_wins() {
        let mut votes = Votes::new(3);
        assert_eq!(verdict(&mut votes, 0), "-");
        votes.take(1, known(1, 4, &[2]), 0);
        assert_eq!(verdict(&mut votes, 0), "1@4 1/1");
        votes.take(0, known(1, 4, &[3]), 1);
        assert_eq!(verdict(&mut votes, 1), "1@4 2/2");
        votes.take(2, known(2, 5, &[1]), 2);
        assert_eq!(verdict(&mut votes, 2), "2@5 1/3", "the others have not heard yet");
    }

    #[test]
    fn replicas_are_those_of_all_who_agree() {
        let mut votes = Votes::new(3);
        votes.take(0, known(1, 4, &[2, 3]), 0);
        votes.take(1, known(1, 4, &[3, 4]), 0);
        votes.take(2, known(9, 3, &[5]), 0);
        let ports: Vec<_> = votes.decide(0).unwrap().known.replicas;
        assert_eq!(ports, known(1, 0, &[2, 3, 4]).unwrap().replicas);
    }

    #[test]
    fn a_replica_is_left_out_when_most_think_it_down() {
        let mut votes = Votes::new(3);
        let mut left = |down: [bool; 3]| {
            for (at, is_down) in down.into_iter().enumerate() {
                let mut said = known(1, 4, &[2, 3]).unwrap();
                said.down.extend(is_down.then(|| said.replicas[1].clone()));
                votes.take(at, Some(said), 0);
            }
            votes.decide(0).unwrap().known.replicas.len()
        };
        assert_eq!(left([true, false, false]), 2);
        assert_eq!(left([true, false, true]), 1);
        assert_eq!(left([false, false, true]), 2);
    }

    #[test]
    fn of_one_epoch_most_decide_and_then_who_is_in_force() {
        let mut votes = Votes::new(4);
        votes.take(0, known(1, 4, &[]), 0);
        assert_eq!(verdict(&mut votes, 0), "1@4 1/1");
        votes.take(1, known(2, 4, &[]), 0);
        assert_eq!(verdict(&mut votes, 0), "1@4 1/2");
        votes.take(2, known(2, 4, &[]), 0);
        assert_eq!(verdict(&mut votes, 0), "2@4 2/3");
        votes.take(3, known(1, 4, &[]), 0);
        assert_eq!(verdict(&mut votes, 0), "2@4 2/4");
    }

    #[test]
    fn who_has_not_heard_does_not_bring_the_old_one_back_but_most_of_them_do() {
        let mut votes = Votes::new(3);
        votes.take(0, known(2, 5, &[]), 0);
        votes.take(1, known(1, 4, &[]), 0);
        assert_eq!(verdict(&mut votes, 0), "2@5 1/2");
        votes.take(0, None, 1);
        assert_eq!(verdict(&mut votes, 1), "-", "one of three says an older epoch");
        votes.take(2, known(1, 4, &[]), 2);
        assert_eq!(verdict(&mut votes, 2), "1@4 2/2");
    }

    #[test]
    fn what_is_long_ago_says_nothing() {
        let mut votes = Votes::new(2);
        votes.take(0, known(1, 4, &[]), 0);
        assert_eq!(verdict(&mut votes, 30_000), "1@4 1/1");
        assert_eq!(verdict(&mut votes, 30_001), "-");
    }
}
