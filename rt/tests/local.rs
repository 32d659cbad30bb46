//! Channels, bells, semaphores and gates of one shard: order, fairness, cancellation.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use chronik_rt::local::channel::{bounded, channel, TrySendError};
use chronik_rt::local::oneshot::{oneshot, Canceled};
use chronik_rt::sim::run;
use chronik_rt::{either, first, Either, Gate, Notify, Semaphore, Shard};

/// Lets every other task come to its end or to a standstill.
async fn settle(shard: &Shard) {
    shard.sleep(Duration::from_millis(1)).await;
}

#[test]
fn oneshot_gives_a_value_or_tells_of_the_end() {
    run(1, |shard| async move {
        let (sender, receiver) = oneshot();
        let sending = shard.spawn(async move { sender.send(5) });
        assert_eq!(receiver.await, Ok(5));
        assert_eq!(sending.await, Ok(()));

        let (sender, receiver) = oneshot::<u8>();
        drop(sender);
        assert_eq!(receiver.await, Err(Canceled));

        let (sender, receiver) = oneshot::<u8>();
        let closing = shard.spawn(async move {
            sender.closed().await;
            sender.send(1)
        });
        settle(&shard).await;
        assert!(!closing.is_finished());
        drop(receiver);
        assert_eq!(closing.await, Err(1));
    });
}

#[test]
fn a_bounded_channel_serves_its_senders_in_order() {
    for seed in 0..20 {
        run(seed, |shard| async move {
            let (sender, mut receiver) = bounded(2);
            assert_eq!(sender.try_send(100), Ok(()));
            assert_eq!(sender.try_send(101), Ok(()));
            assert_eq!(sender.try_send(102), Err(TrySendError::Full(102)));
            let mut tasks = Vec::new();
            for i in 0..5 {
                let sender = sender.clone();
                tasks.push(shard.spawn(async move { sender.send(i).await }));
                settle(&shard).await;
            }
            // A sender that gives up leaves its place to the next.
            drop(tasks.remove(2));
            drop(sender);
            let mut seen = Vec::new();
            while let Some(value) = receiver.recv().await {
                seen.push(value);
            }
            assert_eq!(seen, [100, 101, 0, 1, 3, 4]);
        });
    }
}

#[test]
fn senders_learn_that_the_receiver_is_gone() {
    run(1, |shard| async move {
        let (sender, receiver) = bounded(1);
        sender.send(1).await.expect("room");
        let late = sender.clone();
        let waiting = shard.spawn(async move { late.send(2).await.map_err(|closed| closed.0) });
        settle(&shard).await;
        drop(receiver);
        assert_eq!(waiting.await, Err(2));
        assert!(sender.is_closed());
        assert_eq!(sender.try_send(3), Err(TrySendError::Closed(3)));
        let (sender, mut receiver) = channel();
        sender.send_now(1).expect("receiver");
        drop(sender);
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(1), None));
    });
}

#[test]
fn a_bell_wakes_one_or_all_and_remembers_one() {
    run(1, |shard| async move {
        let bell = Notify::new();
        bell.notify_one();
        bell.notify_one();
        bell.notified().await;
        let again = shard.timeout(Duration::from_millis(1), bell.notified()).await;
        assert!(again.is_err(), "one ring is remembered, not two");

        let woken = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for i in 0..4 {
            let (bell, woken) = (bell.clone(), Rc::clone(&woken));
            tasks.push(shard.spawn(async move {
                bell.notified().await;
                woken.borrow_mut().push(i);
            }));
            settle(&shard).await;
        }
        bell.notify_one();
        bell.notify_one();
        settle(&shard).await;
        assert_eq!(*woken.borrow(), [0, 1]);
        // The chosen one is dropped before it runs: the next gets the ring.
        bell.notify_one();
        drop(tasks.remove(2));
        settle(&shard).await;
        assert_eq!(*woken.borrow(), [0, 1, 3]);

        // Heard from its making on, so that nothing is lost between look and wait.
        let early = bell.notified();
        bell.notify_all();
        early.await;
        let late = shard.timeout(Duration::from_millis(1), bell.notified()).await;
        assert!(late.is_err(), "a round is not remembered");
    });
}

#[test]
fn a_semaphore_is_fair_to_those_who_want_much() {
    run(1, |shard| async move {
        let semaphore = Semaphore::new(4);
        let mut held = semaphore.try_acquire(3).expect("free");
        let much = {
            let semaphore = semaphore.clone();
            shard.spawn(async move { semaphore.acquire(4).await })
        };
        settle(&shard).await;
        assert!(semaphore.try_acquire(1).is_none(), "someone waits already");
        let little = {
            let semaphore = semaphore.clone();
            shard.spawn(async move { semaphore.acquire(1).await })
        };
        settle(&shard).await;
        drop(held.split(2));
        settle(&shard).await;
        assert!(!much.is_finished() && !little.is_finished());
        drop(held);
        let permit = much.await;
        assert_eq!((permit.permits(), semaphore.available()), (4, 0));
        drop(permit);
        drop(little.await);
        assert_eq!(semaphore.available(), 4);

        // One that gives up lets the next through.
        let held = semaphore.acquire(4).await;
        let waiting = semaphore.acquire(2);
        assert!(shard.timeout(Duration::from_millis(1), waiting).await.is_err());
        let next = semaphore.acquire(4);
        drop(held);
        next.await.forget();
        assert_eq!(semaphore.available(), 0);
        semaphore.add(1);
        assert_eq!(semaphore.available(), 1);
    });
}

#[test]
fn a_gate_waits_for_those_inside() {
    run(1, |shard| async move {
        let gate = Gate::new();
        let guard = gate.enter().expect("open");
        let second = guard.clone();
        let closing = {
            let gate = gate.clone();
            shard.spawn(async move { gate.close().await })
        };
        settle(&shard).await;
        assert!(gate.is_closed() && gate.enter().is_none());
        drop(guard);
        settle(&shard).await;
        assert!(!closing.is_finished());
        assert_eq!(gate.inside(), 1);
        drop(second);
        closing.await;
        gate.close().await;
    });
}

#[test]
fn the_first_of_many_wins_and_the_left_of_two() {
    run(1, |shard| async move {
        let sleeps = [30, 10, 20].map(|ms| {
            let shard = shard.clone();
            async move {
                shard.sleep(Duration::from_millis(ms)).await;
                ms
            }
        });
        assert_eq!(first(sleeps).await, 10);
        let pending = std::future::pending::<()>();
        assert_eq!(either(pending, async { 1 }).await, Either::Right(1));
        let mut sleep = shard.sleep(Duration::from_secs(100));
        sleep.reset(shard.now() + Duration::from_millis(5));
        let start = shard.now();
        sleep.await;
        assert!(shard.now() - start < Duration::from_secs(1));
    });
}
