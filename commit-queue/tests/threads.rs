//! The queue under real threads.
#![cfg(not(any(shuttle, loom)))]

#[allow(clippy::unwrap_used, reason = "a scenario of tests")]
mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use commit_queue::Queue;
use common::{Numbers, run};
use store_api::{Entity, Error, ErrorKind};

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
    common::run_within(Duration::from_micros(50), 0, 16, 500, None);
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
            let mut hold = Some((entered, wait)); // the first time that it is run
            queue.write(move |_| {
                if let Some((entered, wait)) = hold.take() {
                    entered.send(()).unwrap();
                    wait.recv().unwrap();
                }
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

/// Lets writers come one after the other while somebody leads; gives the letters of those that were run, in that order, and
/// what each was answered. `c` is refused and `q` panics at once; `d` is refused and `p` panics after it has written; `e`
/// does as `d` when it is run again; a capital letter writes by itself.
#[allow(clippy::unwrap_used, reason = "a scenario of tests")]
fn in_line(queue: &Queue<Numbers>, letters: &str) -> (String, Vec<Option<ErrorKind>>) {
    let ran = std::sync::Mutex::new(String::new());
    let mut answers = Vec::new();
    while_led(queue, |go| {
        std::thread::scope(|scope| {
            let come = |letter: char| {
                let ran = &ran;
                let writer = scope.spawn(move || {
                    let work = |open: &common::Open| {
                        let again = ran.lock().unwrap().contains(letter);
                        ran.lock().unwrap().push(letter);
                        let refused = Err(Error::not_found(Entity::Run, letter.to_string()));
                        let panic =
                            || -> store_api::Result<()> { std::panic::resume_unwind(Box::new(letter)) };
                        match letter {
                            'c' => return refused,
                            'q' => return panic(),
                            _ => open.written.borrow_mut().push(u64::from(letter)),
                        }
                        match letter {
                            'd' => refused,
                            'e' if again => refused,
                            'p' => panic(),
                            _ => Ok(()),
                        }
                    };
                    if letter.is_uppercase() { queue.write_by_itself(work) } else { queue.write(work) }
                });
                std::thread::sleep(Duration::from_millis(20));
                writer
            };
            let writers: Vec<_> = letters.chars().map(come).collect();
            go.send(()).unwrap();
            let answer = |joined: std::thread::Result<store_api::Result<()>>| {
                joined.map_or(Some(ErrorKind::Backend), |done| done.err().map(|error| error.kind()))
            };
            answers = writers.into_iter().map(|writer| answer(writer.join())).collect();
        });
    });
    (ran.into_inner().unwrap(), answers)
}

/// What each commit has brought to the disk.
#[allow(clippy::unwrap_used, reason = "a scenario of tests")]
fn commits(queue: &Queue<Numbers>) -> Vec<String> {
    let disk = queue.engine().disk.lock().unwrap();
    let mut numbers = disk.iter().map(|number| char::from(*number as u8));
    let commits = queue.engine().commits.lock().unwrap();
    commits.iter().map(|size| numbers.by_ref().take(*size).collect()).collect()
}

const REFUSED: Option<ErrorKind> = Some(ErrorKind::NotFound);
const PANICKED: Option<ErrorKind> = Some(ErrorKind::Backend);

/// One that changed nothing needs no undoing.
#[test]
fn who_is_refused_at_once_costs_the_others_nothing() {
    let queue = empty(Duration::from_secs(60));
    let (ran, answers) = in_line(&queue, "acb");
    assert_eq!((ran.as_str(), answers), ("acb", vec![None, REFUSED, None]));
    assert_eq!(commits(&queue), ["ab"]);
}

/// What came before it is done again, but for what panicked, and what comes after it is not made to wait for that.
#[test]
fn who_fails_half_way_is_undone_and_those_before_it_are_done_again() {
    let queue = empty(Duration::from_secs(60));
    let (ran, answers) = in_line(&queue, "acbdxy");
    assert_eq!((ran.as_str(), answers), ("acbdacbxy", vec![None, REFUSED, None, REFUSED, None, None]));
    assert_eq!(commits(&queue), ["ab", "xy"]);

    let queue = empty(Duration::from_secs(60));
    let (ran, answers) = in_line(&queue, "aqpb");
    assert_eq!((ran.as_str(), answers), ("aqpab", vec![None, PANICKED, PANICKED, None]));
    assert_eq!(commits(&queue), ["a", "b"]);

    let queue = empty(Duration::from_secs(60));
    let (ran, answers) = in_line(&queue, "aebd");
    assert_eq!((ran.as_str(), answers), ("aebdaeab", vec![None, REFUSED, None, REFUSED]));
    assert_eq!(commits(&queue), ["ab"]);
}

#[test]
fn who_writes_by_itself_shares_with_nobody_and_is_not_overtaken() {
    let queue = empty(Duration::from_secs(60));
    let (ran, answers) = in_line(&queue, "aBcd");
    assert_eq!((ran.as_str(), answers), ("aBcd", vec![None, None, REFUSED, REFUSED]));
    assert_eq!(commits(&queue), ["a", "B"]);
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
