//! The strategies on plain numbers: who may be picked, and how often.

use super::{Strategy, *};
use crate::policy::dice::Dice;
use proptest::prelude::{Strategy as _, *};

#[derive(Clone, Copy, Debug)]
struct Fake {
    ready: bool,
    in_flight: u32,
    weight: u32,
    latency_us: f64,
}

impl Candidate for Fake {
    fn ready(&self) -> bool {
        self.ready
    }
    fn in_flight(&self) -> u32 {
        self.in_flight
    }
    fn weight(&self) -> u32 {
        self.weight
    }
    fn pace(&self) -> Pace {
        Pace { us: self.latency_us, is_failing: self.latency_us == FAILING_US }
    }
}

/// All but `failover`, which shares nothing.
const SHARING: [Strategy; 7] = [
    Strategy::RoundRobin,
    Strategy::LeastConnections,
    Strategy::P2c,
    Strategy::Random,
    Strategy::ClientIp,
    Strategy::Maglev,
    Strategy::PeakEwma,
];

fn strategies() -> impl Iterator<Item = Strategy> {
    SHARING.into_iter().chain([Strategy::Failover])
}

/// The latency of a fake that is failing.
const FAILING_US: f64 = 20.0;

fn idle(weights: &[u32]) -> Vec<Fake> {
    let one = |weight: &u32| Fake { ready: true, in_flight: 0, weight: *weight, latency_us: 1.0 };
    weights.iter().map(one).collect()
}

fn balancer(strategy: Strategy, candidates: &[Fake]) -> Balancer {
    let weights: Vec<u32> = candidates.iter().map(|c| c.weight).collect();
    Balancer::new(strategy, &weights)
}

/// How often each is picked: 200 sessions of `picks` requests each.
fn shares(strategy: Strategy, candidates: &[Fake], picks: u64) -> Vec<f64> {
    let balancer = balancer(strategy, candidates);
    let mut dice = Dice::new(42);
    let mut shares = vec![0.0; candidates.len()];
    for _ in 0..200 {
        let mut cursor = (dice.next() >> 32) as u32;
        for _ in 0..picks {
            let (key, draw) = (dice.next(), dice.next());
            shares[balancer.pick(candidates, key, 0, &mut cursor, draw).unwrap()] += 1.0;
        }
    }
    shares
}

/// Pearson's statistic against the weights of the ready ones.
fn chi_square(shares: &[f64], candidates: &[Fake]) -> f64 {
    let weight = |c: &Fake| if c.ready { f64::from(c.weight) } else { 0.0 };
    let sum: f64 = candidates.iter().map(weight).sum();
    let picks: f64 = shares.iter().sum();
    let pairs = shares.iter().zip(candidates).filter(|(_, c)| c.ready);
    pairs
        .map(|(share, c)| {
            let fair = picks * weight(c) / sum;
            (share - fair).powi(2) / fair
        })
        .sum()
}

/// The 99.9 % point of chi-square with 4 degrees of freedom (five ready candidates).
const LIMIT: f64 = 18.47;

#[test]
fn idle_candidates_share_by_weight() {
    for weights in [[1, 1, 1, 1, 1], [1, 2, 3, 4, 10], [1_000, 7, 500, 100, 100]] {
        for strategy in SHARING {
            let candidates = idle(&weights);
            let shares = shares(strategy, &candidates, 200);
            let statistic = chi_square(&shares, &candidates);
            assert!(statistic < LIMIT, "{strategy:?} {weights:?}: {statistic} of {shares:?}");
        }
    }
}

#[test]
fn the_share_of_what_is_out_falls_to_the_others_by_weight() {
    for strategy in SHARING {
        let mut candidates = idle(&[1, 9, 2, 3, 9, 4, 5]);
        candidates[1].ready = false;
        candidates[4].ready = false;
        let shares = shares(strategy, &candidates, 200);
        let statistic = chi_square(&shares, &candidates);
        assert!(statistic < LIMIT, "{strategy:?}: {statistic} of {shares:?}");
    }
}

/// 150 requests under way at all times, each as likely to end as any other.
#[test]
fn what_is_under_way_follows_the_weights() {
    for strategy in [Strategy::P2c, Strategy::LeastConnections, Strategy::PeakEwma] {
        for weights in [vec![1, 1, 1], vec![1, 2, 3], [&[10][..], &[1; 9]].concat(), vec![1; 40]] {
            let mut candidates = idle(&weights);
            let balancer = balancer(strategy, &candidates);
            let mut dice = Dice::new(1);
            let mut under_way = Vec::new();
            let mut shares = vec![0.0; weights.len()];
            let mut cursor = 0;
            for round in 0..50_000 {
                if under_way.len() == 150 {
                    let done: usize = under_way.swap_remove(dice.index(150));
                    candidates[done].in_flight -= 1;
                }
                let pick = balancer.pick(&candidates, 0, 0, &mut cursor, dice.next()).unwrap();
                candidates[pick].in_flight += 1;
                under_way.push(pick);
                shares[pick] += f64::from(u8::from(round >= 1_000));
            }
            let sum: u32 = weights.iter().sum();
            for (share, weight) in shares.iter().zip(&weights) {
                let fair = 49_000.0 * f64::from(*weight) / f64::from(sum);
                let off = (share / fair - 1.0).abs();
                assert!(off < 0.1, "{strategy:?} {weights:?}: {shares:?}");
            }
        }
    }
}

#[test]
fn p2c_takes_turns_between_two_equals() {
    let candidates = idle(&[1, 1]);
    let balancer = balancer(Strategy::P2c, &candidates);
    let mut cursor = 0;
    let picks: Vec<_> =
        (0..6).map(|draw| balancer.pick(&candidates, 0, 0, &mut cursor, draw).unwrap()).collect();
    assert_eq!(picks, [0, 1, 0, 1, 0, 1]);
}

#[test]
fn p2c_avoids_the_loaded_one() {
    // Two distinct draws, also when one of them falls on a candidate that is out.
    for out in [vec![], vec![0], vec![2, 4], vec![0, 2, 3]] {
        let mut candidates = idle(&[1; 5]);
        out.iter().for_each(|i| candidates[*i].ready = false);
        candidates[1].in_flight = 5;
        let shares = shares(Strategy::P2c, &candidates, 100);
        assert_eq!(shares[1], 0.0, "{out:?} out: {shares:?}");
    }
}

#[test]
fn least_connections_finds_the_least_loaded_by_weight() {
    let mut candidates = idle(&[1; 32]);
    candidates.iter_mut().for_each(|c| c.in_flight = 9);
    candidates[17] = Fake { in_flight: 12, weight: 2, ..candidates[17] };
    assert_eq!(shares(Strategy::LeastConnections, &candidates, 10)[17], 2_000.0);
}

#[test]
fn round_robin_is_smooth() {
    let candidates = idle(&[5, 1, 1]);
    let balancer = balancer(Strategy::RoundRobin, &candidates);
    let mut cursor = 0;
    let picks: Vec<_> =
        (0..7).map(|_| balancer.pick(&candidates, 0, 0, &mut cursor, 0).unwrap()).collect();
    assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn a_client_stays_and_moves_only_when_its_own_backend_goes() {
    let mut candidates = idle(&[1, 2, 3, 4]);
    let balancer = balancer(Strategy::ClientIp, &candidates);
    let pick = |candidates: &[Fake], key, draw| {
        balancer.pick(candidates, key, 0, &mut (draw as u32), draw).unwrap()
    };
    let before: Vec<_> = (0..1_000).map(|key| pick(&candidates, key, 3)).collect();
    candidates[2].ready = false;
    for (key, before) in (0..).zip(&before) {
        let after = pick(&candidates, key, 99);
        assert_eq!(after, pick(&candidates, key, 100), "key {key} does not stay");
        assert!(after == *before || *before == 2, "key {key} moved from {before}");
    }
    candidates[2].ready = true;
    let again: Vec<_> = (0..1_000).map(|key| pick(&candidates, key, 5)).collect();
    assert_eq!(again, before, "not all came home");
}

#[test]
fn a_client_stays_when_the_list_around_its_backend_changes() {
    let (before, after) = ([10, 11, 12, 13], [13, 10, 11]);
    let of = |ids: &[u64]| {
        let rules = Rules { strategy: Strategy::Maglev, ids: ids.to_vec(), ..Rules::default() };
        Balancer::with(rules, &vec![1; ids.len()])
    };
    let (first, second) = (of(&before), of(&after));
    let pick = |of: &Balancer, ids: &[u64], key| {
        ids[of.pick(&idle(&vec![1; ids.len()]), key, 0, &mut 0, 0).unwrap()]
    };
    let moved = (0..4_000).filter(|key| {
        let from = pick(&first, &before, *key);
        from != 12 && from != pick(&second, &after, *key)
    });
    let moved = moved.count();
    assert!(moved < 150, "{moved} of 3,000 moved without need");
}

#[test]
fn peak_ewma_avoids_the_slow_one_and_a_queue() {
    let mut candidates = idle(&[1; 5]);
    candidates[3].latency_us = 15.0;
    candidates[0].in_flight = 2;
    let slow = shares(Strategy::PeakEwma, &candidates, 200);
    assert_eq!(slow[3], 0.0, "{slow:?}");
    assert!(slow[0] > 0.0, "three times as dear as the others, and less than the slow one");
    candidates.iter_mut().for_each(|c| c.in_flight = 21);
    candidates[3].in_flight = 0;
    let busy = shares(Strategy::PeakEwma, &candidates, 200);
    assert!(busy[3] > 0.0, "a slow idle one beats a queue: {busy:?}");
    candidates[3].latency_us = FAILING_US;
    let failing = shares(Strategy::PeakEwma, &candidates, 200);
    assert_eq!(failing[3], 0.0, "idle because it fails: {failing:?}");
}

#[test]
fn a_tier_is_used_when_none_of_a_lower_one_is_ready() {
    for strategy in SHARING {
        let mut candidates = idle(&[1, 7, 2, 7]);
        let rules = Rules { strategy, tiers: vec![0, 1, 0, 5], ..Rules::default() };
        let balancer = Balancer::with(rules, &[1, 7, 2, 7]);
        let used = |candidates: &[Fake], tried| {
            let (mut seen, mut dice) = ([0; 4], Dice::new(9));
            for _ in 0..3_000 {
                let (key, draw, mut cursor) = (dice.next(), dice.next(), dice.next() as u32);
                let pick = balancer.pick(candidates, key, tried, &mut cursor, draw);
                seen[pick.unwrap()] += 1;
            }
            seen
        };
        let [a, b, c, d] = used(&candidates, 0);
        assert!((b, d) == (0, 0) && a > 0 && c > 0, "{strategy:?}");
        assert!((900..1_100).contains(&a), "by weight within the tier: {strategy:?}: {a}");
        candidates[2].ready = false;
        assert_eq!(used(&candidates, 0), [3_000, 0, 0, 0], "{strategy:?}");
        assert_eq!(used(&candidates, 1), [0, 3_000, 0, 0], "{strategy:?}: a retry goes on");
        candidates[0].ready = false;
        candidates[1].ready = false;
        assert_eq!(used(&candidates, 0), [0, 0, 0, 3_000], "{strategy:?}");
        candidates[2].ready = true;
        assert_eq!(used(&candidates, 0), [0, 0, 3_000, 0], "{strategy:?}");
    }
}

/// Who gets a request after each of the changes: `-a` takes a out, `+a` brings it back, `~a` is a
/// request that has tried a.
fn line(failback: Failback, tiers: &[u8], changes: &str) -> String {
    let mut candidates = idle(&[1; 4]);
    let rules =
        Rules { strategy: Strategy::Failover, failback, tiers: tiers.to_vec(), ..Rules::default() };
    let balancer = Balancer::with(rules, &[1; 4]);
    let mut cursor = u32::MAX;
    let told = changes.split_whitespace().map(|change| {
        let (sign, name) = change.split_at(1);
        let at = usize::from(name.as_bytes().first().map_or(0, |name| name - b'a'));
        let mut tried = 0;
        match sign {
            "-" => candidates[at].ready = false,
            "+" => candidates[at].ready = true,
            "~" => tried = 1 << at,
            _ => {}
        }
        let pick = balancer.pick(&candidates, 1, tried, &mut cursor, 2);
        pick.map_or('!', |i| char::from(b"abcd"[i]))
    });
    told.collect()
}

#[test]
fn failover_takes_the_first_that_is_ready_and_goes_back_as_told() {
    let story = ". -a . -b +a +b ~a . -a -b -c -d +d";
    assert_eq!(line(Failback::Auto, &[], story), "abbcaababcd!d");
    assert_eq!(line(Failback::Manual, &[], story), "abbcccccccd!d");
    assert_eq!(line(Failback::Manual, &[], ". -a +a ~b ."), "abbab", "one request moves alone");
    let tiers = [1, 0, 0, 1];
    assert_eq!(line(Failback::Auto, &tiers, ". -b -c +b"), "bcab");
    assert_eq!(line(Failback::Manual, &tiers, ". -b -c +b"), "bcaa");
}

#[test]
fn nobody_is_picked_of_nobody() {
    for strategy in strategies() {
        assert_eq!(balancer(strategy, &[]).pick::<Fake>(&[], 1, 0, &mut 0, 1), None);
    }
}

fn fakes() -> impl proptest::strategy::Strategy<Value = Vec<Fake>> {
    let latency_us = prop_oneof![1.0..1e9, Just(f64::INFINITY)];
    let fake = (any::<bool>(), prop_oneof![0_u32..20, Just(u32::MAX)], 0_u32..9, latency_us);
    let fake = fake.prop_map(|(ready, in_flight, weight, latency_us)| Fake {
        ready,
        in_flight,
        weight,
        latency_us,
    });
    prop::collection::vec(fake, 0..70)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn picks_what_may_be_picked_and_nothing_else(
        candidates in fakes(),
        fewer in 0_usize..3,
        draws in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 20),
        tiers in prop_oneof![Just(Vec::new()), prop::collection::vec(0_u8..3, 70)],
        manual: bool,
        mut cursor: u32,
    ) {
        let failback = if manual { Failback::Manual } else { Failback::Auto };
        for strategy in strategies() {
            // The balancer may be older than the list: a shorter one must do no harm.
            let known = candidates.len().saturating_sub(fewer);
            let weights: Vec<u32> = candidates[..known].iter().map(|c| c.weight).collect();
            let rules = Rules { strategy, failback, tiers: tiers.clone(), ids: Vec::new() };
            let balancer = Balancer::with(rules, &weights);
            let told = |i: usize| tiers.get(i).copied().unwrap_or(0);
            let lowest = (0..known.min(64)).map(told).min().unwrap_or(0);
            let tier = |i: usize| if i < known { told(i) } else { lowest };
            for (key, tried, draw) in &draws {
                let may = |i: usize| i < 64 && candidates[i].ready && tried >> i & 1 == 0;
                let lowest_open = (0..candidates.len()).filter(|i| may(*i)).map(tier).min();
                match balancer.pick(&candidates, *key, *tried, &mut cursor, *draw) {
                    Some(i) => {
                        prop_assert!(may(i), "{strategy:?} picked {i}");
                        let stays = strategy == Strategy::Failover && (manual || fewer > 0);
                        prop_assert!(stays || Some(tier(i)) == lowest_open, "{strategy:?}: tier of {i}");
                    }
                    None => prop_assert!(!(0..candidates.len()).any(may), "{strategy:?} found none"),
                }
            }
        }
    }
}
