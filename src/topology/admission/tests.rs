//! Requests in line, on a clock that stands still and across threads.

use super::*;
use crate::{
    policy::{
        balance::{Balancer, Strategy},
        gate::{Admin, Axes, Health, Init, Life, Passive, Role, derive},
    },
    topology::{
        FailOpen,
        pick::{self, Picker},
    },
};
use std::{
    cell::RefCell,
    future::poll_fn,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};
use tokio::time::sleep;

const UP: Axes = Axes {
    admin: Admin::Ready,
    health: Health::Healthy,
    passive: Passive::Closed,
    role: Role::None,
    init: Init::Up,
    life: Life::Steady,
};
const DOWN: Axes = Axes { health: Health::Unhealthy, ..UP };

fn publish(backend: &Backend, axes: Axes) {
    let (state, gate) = derive(axes);
    backend.publish_admin(axes.admin);
    backend.publish(state, gate, axes.role, u32::from(gate.half_open()));
}

/// A group of so many backends, each with room for `most`.
fn group(members: u32, most: u32, queue: usize) -> (Shard, Arc<Queue>) {
    let queue = Arc::new(Queue::new(queue, 1));
    let backend = |id| {
        let address = format!("10.0.0.{id}:1").parse().unwrap();
        let room = Room::new(most, Some(Arc::clone(&queue)));
        let backend = Backend::new(id, "c".into(), "".into(), address, 1, 4).with_room(Some(room));
        publish(&backend, UP);
        Arc::new(backend)
    };
    let members: Vec<_> = (0..members).map(backend).collect();
    let any = Balancer::new(Strategy::RoundRobin, &vec![1; members.len()]);
    let replicas = Balancer::new(Strategy::RoundRobin, &[]);
    let shard = Shard {
        name: "".into(),
        members,
        replicas,
        any,
        pinned: None,
        fail_open: FailOpen::AllDown,
        present: Default::default(),
    };
    (shard, queue)
}

fn attempt(shard: &Shard, worker: usize) -> Attempt<Lease> {
    let mut picker = Picker { cursor: 0, key: 0, now_us: 0 };
    let pick = |tried| pick::any(shard, &mut picker, tried, || 7);
    match claim(worker, shard, 0, None, pick) {
        Attempt::Got((_, lease)) => Attempt::Got(lease),
        Attempt::Full => Attempt::Full,
        Attempt::Nobody => Attempt::Nobody,
    }
}

async fn admit(shard: &Shard, queue: &Queue, patience: Duration) -> Result<Lease, NotAdmitted> {
    queue.admit(WRITE, sleep(patience), || attempt(shard, 0)).await
}

fn used(shard: &Shard) -> u32 {
    shard.members.iter().map(|backend| backend.room().unwrap().used.load(Ordering::SeqCst)).sum()
}

const WRITE: Turn = Turn { shard: 0, access: Access::Write, home: None };
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn who_finds_room_does_not_wait_and_who_finds_none_waits_for_it() {
    let (shard, queue) = group(2, 1, 10);
    let first = admit(&shard, &queue, SECOND).await.unwrap();
    let second = admit(&shard, &queue, SECOND).await.unwrap();
    assert_ne!(first.backend().id, second.backend().id);
    let start = tokio::time::Instant::now();
    let (third, ()) = tokio::join!(admit(&shard, &queue, SECOND), async {
        sleep(SECOND / 4).await;
        assert_eq!(queue.len(), 1);
        drop(first);
    });
    assert_eq!((start.elapsed(), third.is_ok()), (SECOND / 4, true));
    let start = tokio::time::Instant::now();
    assert_eq!(admit(&shard, &queue, SECOND).await.unwrap_err(), NotAdmitted::Overloaded);
    assert_eq!(start.elapsed(), SECOND);
    drop((second, third));
    assert_eq!((used(&shard), queue.len()), (0, 0));
    assert!(shard.members.iter().all(|backend| backend.in_flight() == 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_line_refuses_at_once_and_one_of_none_has_no_places() {
    for places in [0, 2] {
        let (shard, queue) = group(1, 1, places);
        let _busy = admit(&shard, &queue, SECOND).await.unwrap();
        let start = tokio::time::Instant::now();
        let many = (0..5).map(|_| Box::pin(admit(&shard, &queue, SECOND)));
        let mut many: Vec<_> = many.collect();
        let refused = poll_fn(|cx| {
            Poll::Ready(
                many.iter_mut().map(|one| one.as_mut().poll(cx).is_ready()).filter(|r| *r).count(),
            )
        });
        assert_eq!(refused.await, 5 - places);
        assert_eq!((queue.len(), start.elapsed()), (places, Duration::ZERO));
        drop(many);
        assert_eq!(queue.len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn first_come_first_served() {
    let (shard, queue) = group(1, 1, 100);
    let busy = admit(&shard, &queue, SECOND).await.unwrap();
    let served = Rc::new(RefCell::new(Vec::new()));
    let one = |n: u32| {
        let (served, shard, queue) = (Rc::clone(&served), &shard, &queue);
        async move {
            let lease = admit(shard, queue, 100 * SECOND).await.unwrap();
            served.borrow_mut().push(n);
            sleep(SECOND).await;
            drop(lease);
        }
    };
    let mut all: Vec<_> = (0..20).map(|n| Box::pin(one(n))).collect();
    let mut busy = Some(busy);
    poll_fn(|cx| {
        all.retain_mut(|one| one.as_mut().poll(cx).is_pending());
        busy = None;
        if all.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    assert_eq!(*served.borrow(), (0..20).collect::<Vec<_>>());
    assert_eq!((used(&shard), queue.len()), (0, 0));
}

/// Futures that are dropped at any time leave neither a place in the line nor room taken.
#[tokio::test(start_paused = true)]
async fn cancelling_leaks_nothing() {
    let (shard, queue) = group(2, 2, 50);
    let mut dice = crate::policy::dice::Dice::new(11);
    let mut held = Vec::new();
    for round in 0..200 {
        let waits = (0..20).map(|_| Box::pin(admit(&shard, &queue, SECOND)));
        let mut waits: Vec<_> = waits.collect();
        for _ in 0..6 {
            poll_fn(|cx| {
                waits.retain_mut(|one| match one.as_mut().poll(cx) {
                    Poll::Ready(Ok(lease)) => {
                        held.push(lease);
                        false
                    }
                    Poll::Ready(Err(_)) => false,
                    Poll::Pending => true,
                });
                Poll::Ready(())
            })
            .await;
            assert!(used(&shard) <= 4 && held.len() as u32 == used(&shard), "round {round}");
            for _ in 0..dice.below(4) {
                if !waits.is_empty() {
                    drop(waits.swap_remove(usize::try_from(dice.next()).unwrap() % waits.len()));
                }
            }
            if !held.is_empty() {
                held.swap_remove(usize::try_from(dice.next()).unwrap() % held.len());
            }
        }
    }
    held.clear();
    assert_eq!((used(&shard), queue.len()), (0, 0));
    assert!(admit(&shard, &queue, SECOND).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_hear_at_once_that_nobody_is_left_or_somebody_is_back() {
    let (shard, queue) = group(2, 1, 10);
    publish(&shard.members[1], DOWN);
    let _busy = admit(&shard, &queue, SECOND).await.unwrap();
    let start = tokio::time::Instant::now();
    let (got, ()) = tokio::join!(admit(&shard, &queue, SECOND), async {
        sleep(SECOND / 2).await;
        publish(&shard.members[1], UP);
    });
    assert_eq!((got.unwrap().backend().id, start.elapsed()), (1, SECOND / 2));
    let disabled = Axes { admin: Admin::Disabled, ..UP };
    publish(&shard.members[1], disabled);
    let (got, ()) = tokio::join!(admit(&shard, &queue, SECOND), async {
        sleep(SECOND / 2).await;
        publish(&shard.members[0], disabled);
    });
    assert_eq!(got.unwrap_err(), NotAdmitted::Nobody);
}

/// When all that are ready are busy, one that is down is no way out.
#[tokio::test(start_paused = true)]
async fn a_busy_backend_does_not_open_the_way_to_one_that_is_down() {
    let (shard, queue) = group(2, 1, 0);
    publish(&shard.members[1], DOWN);
    let _busy = admit(&shard, &queue, SECOND).await.unwrap();
    assert_eq!(admit(&shard, &queue, SECOND).await.unwrap_err(), NotAdmitted::Overloaded);
    publish(&shard.members[0], DOWN);
    assert_eq!(admit(&shard, &queue, SECOND).await.unwrap().backend().id, 1);
}

#[tokio::test(start_paused = true)]
async fn the_trial_of_a_backend_on_probation_is_not_used_up_by_one_that_finds_no_room() {
    let (shard, _queue) = group(1, 1, 10);
    let backend = &shard.members[0];
    publish(backend, Axes { passive: Passive::HalfOpen, ..UP });
    let index = pick::any(&shard, &mut Picker { cursor: 0, key: 0, now_us: 0 }, 0, || 7);
    let _other = Lease::claim(0, Arc::clone(backend)).unwrap();
    assert_eq!((index, backend.has_permit()), (Some(0), false));
    let mut first = index;
    assert!(matches!(claim(0, &shard, 0, None, |_| first.take()), Attempt::Full));
    assert!(backend.has_permit());
}

/// A write that waits for its primary does not hold up reads of the replica.
#[tokio::test(start_paused = true)]
async fn a_line_for_writes_is_none_for_reads() {
    let (shard, queue) = group(2, 1, 10);
    publish(&shard.members[0], Axes { role: Role::Primary, ..UP });
    publish(&shard.members[1], Axes { role: Role::Replica, ..UP });
    let shard = Shard { replicas: Balancer::new(Strategy::RoundRobin, &[1]), ..shard };
    let wanted = |access| (access, ReadFrom::Replica);
    let one = |access| {
        let (shard, mut picker) = (&shard, Picker { cursor: 0, key: 0, now_us: 0 });
        queue.admit(Turn { access, ..WRITE }, sleep(SECOND), move || {
            claim(0, shard, 0, Some(wanted(access)), |tried| {
                pick::select(shard, access, ReadFrom::Replica, &mut picker, tried, || 7)
            })
        })
    };
    let _primary = one(Access::Write).await.unwrap();
    let (write, read) = tokio::join!(one(Access::Write), one(Access::Read));
    assert_eq!(write.unwrap_err(), NotAdmitted::Overloaded);
    assert_eq!(read.unwrap().0, 1);
}

/// Four threads that hold leases for a moment: never more than there is room for, everybody gets one,
/// nothing is left.
#[test]
fn the_bound_holds_across_threads_and_no_wake_is_lost() {
    let (shard, queue) = group(2, 2, 1_000);
    let (busiest, served) = (AtomicU32::new(0), AtomicU32::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (shard, queue, busiest, served) = (&shard, &queue, &busiest, &served);
            scope.spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                runtime.block_on(async {
                    let one = || async {
                        for _ in 0..50 {
                            let patience = sleep(60 * SECOND);
                            let try_once = || attempt(shard, worker);
                            let lease = queue.admit(WRITE, patience, try_once).await.unwrap();
                            busiest.fetch_max(used(shard), Ordering::Relaxed);
                            tokio::task::yield_now().await;
                            drop(lease);
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                    };
                    tokio::join!(one(), one(), one(), one(), one());
                });
            });
        }
    });
    assert!(start.elapsed() < 50 * SECOND, "somebody was not woken");
    assert_eq!(served.load(Ordering::Relaxed), 4 * 5 * 50);
    assert!((1..=4).contains(&busiest.load(Ordering::Relaxed)));
    assert_eq!((used(&shard), queue.len()), (0, 0));
}
