//! The queue under real threads.
#![cfg(not(any(shuttle, loom)))]

#[allow(clippy::unwrap_used, reason = "a scenario of tests")]
mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use commit_queue::Queue;
use common::{Numbers, run};
use store_api::ErrorKind;

#[test]
fn acknowledged_numbers_are_there_and_others_are_not() {
    run(16, 500, None);
}

#[test]
fn a_flush_that_fails_fails_for_every_member() {
    run(8, 500, Some(13));
}

#[test]
fn what_is_given_up_is_never_done() {
    common::run_within(Duration::from_micros(50), 16, 500, None);
}

#[test]
fn a_lone_writer_commits_each_operation_by_itself() {
    let queue = run(1, 100, None);
    assert!(queue.engine().commits.lock().unwrap().iter().all(|size| *size == 1));
}

fn empty(timeout: Duration) -> Queue<Numbers> {
    Queue::new(Numbers { disk: Default::default(), commits: Default::default(), fails: None }, timeout)
}

/// Holds the lead while `meanwhile` runs, which is given what lets go of it.
#[allow(clippy::unwrap_used, reason = "a scenario of tests")]
fn while_led(queue: &Queue<Numbers>, meanwhile: impl FnOnce(Sender<()>)) {
    std::thread::scope(|scope| {
        let (entered, inside) = channel();
        let (go, wait) = channel::<()>();
        let leader = scope.spawn(move || {
            queue.write(move |_| {
                entered.send(()).unwrap();
                wait.recv().unwrap();
                Ok(())
            })
        });
        inside.recv().unwrap();
        meanwhile(go);
        leader.join().unwrap().unwrap();
    });
}

#[test]
fn writers_that_wait_share_a_flush_and_none_is_overtaken() {
    let queue = empty(Duration::from_secs(60));
    let order = std::sync::Mutex::new(Vec::new());
    while_led(&queue, |go| {
        std::thread::scope(|scope| {
            for number in 0..10 {
                let (queue, order) = (&queue, &order);
                scope.spawn(move || {
                    queue.write(|_| {
                        order.lock().unwrap().push(number);
                        Ok(())
                    })
                });
                std::thread::sleep(Duration::from_millis(10));
            }
            go.send(()).unwrap();
        });
    });
    assert_eq!(*order.lock().unwrap(), (0..10).collect::<Vec<_>>());
    assert_eq!(queue.engine().commits.lock().unwrap().len(), 1, "eleven operations, one flush");
}

#[test]
fn who_waits_too_long_is_told_busy_and_the_others_go_on() {
    let queue = empty(Duration::from_millis(50));
    let ran = AtomicBool::new(false);
    while_led(&queue, |go| {
        let start = Instant::now();
        let refused = queue.write(|_| {
            ran.store(true, Ordering::Relaxed);
            Ok(())
        });
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Busy);
        assert!(start.elapsed() >= Duration::from_millis(50));
        assert_eq!(queue.alone(|_| Ok(())).unwrap_err().kind(), ErrorKind::Busy);
        go.send(()).unwrap();
    });
    assert!(!ran.into_inner(), "what was refused is never done");
    queue.write(|_| Ok(())).unwrap();
    queue.alone(|_| Ok(())).unwrap();
}

/// What a writer borrows is done with by the time that it goes on, also when another did its work.
#[test]
fn a_writer_in_line_is_worked_for_by_who_leads() {
    let queue = empty(Duration::from_secs(60));
    let (mut ran_on, mut asked_by) = (None, None);
    while_led(&queue, |go| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                asked_by = Some(std::thread::current().id());
                let answer = queue.write(|_| {
                    ran_on = Some(std::thread::current().id());
                    Ok("mine".to_owned())
                });
                assert_eq!(answer.unwrap(), "mine");
            });
            std::thread::sleep(Duration::from_millis(20));
            go.send(()).unwrap();
        });
    });
    assert!(ran_on.is_some() && ran_on != asked_by);
}

#[test]
fn who_waits_to_be_alone_is_not_overtaken() {
    let queue = empty(Duration::from_secs(60));
    let order = std::sync::Mutex::new(Vec::new());
    let note = |what| {
        order.lock().unwrap().push(what);
        Ok(())
    };
    while_led(&queue, |go| {
        std::thread::scope(|scope| {
            scope.spawn(|| queue.write(|_| note("before")));
            std::thread::sleep(Duration::from_millis(20));
            scope.spawn(|| queue.alone(|_| note("alone")));
            std::thread::sleep(Duration::from_millis(20));
            scope.spawn(|| queue.write(|_| note("after")));
            std::thread::sleep(Duration::from_millis(20));
            go.send(()).unwrap();
        });
    });
    assert_eq!(*order.lock().unwrap(), ["before", "alone", "after"]);
    assert_eq!(queue.engine().commits.lock().unwrap().len(), 2);
}
