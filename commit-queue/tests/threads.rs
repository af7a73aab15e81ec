//! The queue under real threads.
#![cfg(not(shuttle))]

#[allow(clippy::unwrap_used, reason = "a scenario of tests")]
mod common;

use std::sync::mpsc::channel;
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
fn a_lone_writer_commits_each_operation_by_itself() {
    let queue = run(1, 100, None);
    assert!(queue.engine().commits.lock().unwrap().iter().all(|size| *size == 1));
}

fn empty(timeout: Duration) -> Queue<Numbers> {
    Queue::new(Numbers { disk: Default::default(), commits: Default::default(), fails: None }, timeout)
}

#[test]
fn writers_that_wait_share_a_flush_and_none_is_overtaken() {
    let queue = empty(Duration::from_secs(60));
    let order = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let (entered, inside) = channel();
        let (go, wait) = channel::<()>();
        scope.spawn(|| {
            queue.write(move |_| {
                entered.send(()).unwrap();
                wait.recv().unwrap();
                Ok(())
            })
        });
        inside.recv().unwrap();
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
    assert_eq!(*order.lock().unwrap(), (0..10).collect::<Vec<_>>());
    assert_eq!(queue.engine().commits.lock().unwrap().len(), 1, "eleven operations, one flush");
}

#[test]
fn who_waits_too_long_is_told_busy_and_the_others_go_on() {
    let queue = empty(Duration::from_millis(50));
    std::thread::scope(|scope| {
        let (entered, inside) = channel();
        let (go, wait) = channel::<()>();
        let holder = scope.spawn(|| {
            queue.write(move |_| {
                entered.send(()).unwrap();
                wait.recv().unwrap();
                Ok(())
            })
        });
        inside.recv().unwrap();
        let start = Instant::now();
        let refused = queue.write(|_| Ok(())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Busy);
        assert!(start.elapsed() >= Duration::from_millis(50));
        go.send(()).unwrap();
        holder.join().unwrap().unwrap();
    });
    queue.write(|_| Ok(())).unwrap();
    queue.alone(|_| Ok(())).unwrap();
}
