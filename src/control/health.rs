//! When backends are probed: on schedule, at once when something happened, and twice with a short
//! timeout on suspicion. Not what follows from the answers: that is [`super::table`].

use super::{
    plane::Plane,
    prober::{Answer, Prober},
    run_task,
    table::{Ask, Evidence},
};
use crate::{policy::dice::Dice, topology::Report};
use std::{rc::Rc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

/// Probes one backend for as long as it is watched, on one connection.
pub(super) async fn watch(plane: Rc<Plane>, index: usize, mut dice: Dice) {
    let Some(target) = plane.table.borrow().target(index) else { return };
    let asked = || Prober::new(target.address.clone(), target.tls.clone(), target.spec.clone());
    let mut prober = asked();
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = sleep(pause) => {}
            () = target.wake.notified() => {}
        }
        if plane.table.borrow().watches().get(index).is_none() {
            // It has left its cluster.
            return end_first_round(&plane);
        }
        if plane.table.borrow().is_paused(index) {
            // It is woken when it is to work again.
            prober = asked();
            pause = Duration::MAX;
            end_first_round(&plane);
            continue;
        }
        let sent_ms = plane.now_ms();
        let sent = Instant::now();
        let answer = prober.probe(target.check.timeout).await;
        let took = sent.elapsed();
        let (result, said, weight) = match answer {
            Ok(Answer { report, said, weight }) => (Ok(report), said, weight),
            Err(error) => (Err(error), None, None),
        };
        let evidence = Evidence { result, said, sent_ms, took };
        let now_ms = plane.now_ms();
        pause = plane.table.borrow_mut().probed(index, evidence, now_ms, dice.next());
        if let Some(weight) = weight {
            plane.table.borrow_mut().set_weight(index, weight, "probe", now_ms);
        }
        plane.follow_weights();
        end_first_round(&plane);
        sleep(MIN_GAP).await;
        pause = pause.saturating_sub(MIN_GAP);
    }
}

/// Takes what the workers report, for as long as they do.
pub(super) async fn listen(plane: Rc<Plane>, mut reports: mpsc::Receiver<Report>, mut dice: Dice) {
    while let Some(report) = reports.recv().await {
        let ask = plane.table.borrow_mut().reported(report, plane.now_ms(), dice.next());
        plane.look_again(report);
        plane.follow_weights();
        match ask {
            None => {}
            Some(Ask::Suspect(index)) => {
                run_task(suspect(Rc::clone(&plane), index, Dice::new(dice.next())));
            }
            Some(Ask::Rediscover(cluster)) => {
                let council = plane.councils.get(cluster).and_then(Option::as_ref);
                council.iter().for_each(|council| council.ask_again());
            }
        }
    }
}

/// Two probes back to back on a connection of their own; one answer clears the suspicion.
async fn suspect(plane: Rc<Plane>, index: usize, mut dice: Dice) {
    let Some(target) = plane.table.borrow().target(index) else { return };
    let mut prober = Prober::new(target.address, target.tls, target.spec);
    let mut failure = None;
    for _ in 0..SUSPECT_PROBES {
        failure = prober.suspect(SUSPECT_TIMEOUT).await.err();
        if failure.is_none() {
            break;
        }
    }
    plane.table.borrow_mut().suspicion_over(index, failure, plane.now_ms(), dice.next());
}

/// What time alone brings: samples of the counters, ends of ejections, missing heartbeats.
pub(super) async fn tick(plane: Rc<Plane>, mut dice: Dice) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now_ms = plane.now_ms();
        plane.pulse.borrow_mut().sample(&plane.workers, now_ms);
        plane.table.borrow_mut().tick(now_ms, dice.next());
        plane.follow_weights();
    }
}

fn end_first_round(plane: &Plane) {
    if plane.table.borrow().all_probed() {
        plane.state.finish_first_round();
    }
}

/// Ends the first round when it takes too long.
pub(super) async fn grace(plane: Rc<Plane>, limit: Duration) {
    end_first_round(&plane);
    tokio::select! {
        () = sleep(limit) => {}
        () = plane.state.wait_first_round() => return,
    }
    tracing::warn!(
        "not every backend was probed within startup_grace ({}ms); accepting clients anyway",
        limit.as_millis()
    );
    plane.state.finish_first_round();
}

/// A storm of reports cannot probe a backend more often than this.
const MIN_GAP: Duration = Duration::from_millis(20);
/// core.md, Suspicion.
pub(super) const SUSPECT_PROBES: usize = 2;
pub(super) const SUSPECT_TIMEOUT: Duration = Duration::from_millis(250);
/// Ejections end, and error ratios are seen, this late at most.
const TICK: Duration = Duration::from_millis(100);
