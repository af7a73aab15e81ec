//! What the line expects, which shows from outside as time alone.

use store_api::Entity;

use super::*;

fn line(last_batch: usize, usual_flush: Duration) -> Line<()> {
    Line { led: true, waiting: VecDeque::new(), last_batch, usual_flush }
}

fn waiter() -> Waiter<()> {
    let parker = Parker::of_this_thread();
    Waiter { seat: Arc::new(Seat { told: OnceLock::new(), parker }), job: None }
}

const FLUSH: Duration = Duration::from_micros(800);

#[test]
fn a_lone_writer_never_lingers() {
    assert_eq!(line(1, FLUSH).linger(1), None);
}

#[test]
fn a_batch_lingers_for_an_eighth_of_a_flush_while_it_is_smaller_than_the_last() {
    let lingers = |size| line(3, FLUSH).linger(size);
    assert_eq!([1, 2, 3, 4].map(lingers), [Some(FLUSH / 8), Some(FLUSH / 8), None, None]);
    assert_eq!(line(2, Duration::from_secs(1)).linger(1), Some(MAX_LINGER));
}

#[test]
fn nobody_lingers_while_somebody_waits_to_lead() {
    let mut line = line(3, FLUSH);
    line.waiting.push_back(waiter());
    assert_eq!(line.linger(1), None);
}

#[test]
fn the_usual_flush_follows_the_last_ones() {
    let mut line = line(1, Duration::ZERO);
    line.flushed(4, Some(FLUSH));
    assert_eq!((line.last_batch, line.usual_flush), (4, FLUSH));
    line.flushed(2, Some(FLUSH * 9));
    assert_eq!((line.last_batch, line.usual_flush), (2, FLUSH * 2));
    line.flushed(1, None);
    assert_eq!((line.last_batch, line.usual_flush), (1, FLUSH * 2), "that of one alone is not timed");
}

#[test]
fn who_gives_up_leaves_its_own_place() {
    let mut line = line(1, FLUSH);
    line.waiting.extend([waiter(), waiter()]);
    let second = Arc::clone(&line.waiting[1].seat);
    assert!(line.leave(&second) && !line.leave(&second));
    assert_eq!(line.waiting.len(), 1);
}

/// Keeps the sizes of its batches.
#[derive(Default)]
struct Sizes(std::sync::Mutex<Vec<usize>>);

impl Engine for Sizes {
    type Open = ();

    fn begin(&self, _: Duration) -> Result<()> {
        Ok(())
    }
    fn changes(&self, _: &()) -> Option<u64> {
        Some(0)
    }
    fn commit(&self, _: (), size: usize) -> Result<()> {
        self.0.lock().unwrap().push(size);
        Ok(())
    }
    fn abort(&self, _: ()) -> Result<()> {
        Ok(())
    }
}

fn queue(timeout: Duration) -> Queue<Sizes> {
    Queue::new(Sizes::default(), timeout)
}

/// Lets writers come while one leads, and gives the size of the batch that it led.
fn batch_with(queue: &Queue<Sizes>, writers: usize) -> usize {
    std::thread::scope(|scope| {
        let led = |_: &()| {
            for _ in 0..writers {
                scope.spawn(|| queue.write(|_| Ok(())).unwrap());
            }
            while lock(&queue.line).waiting.len() < writers {
                std::thread::yield_now();
            }
            Ok(())
        };
        queue.write(led).unwrap();
    });
    queue.engine().0.lock().unwrap()[0]
}

#[test]
fn a_batch_has_its_leader_in_it_and_no_more_members_than_it_may() {
    let minute = Duration::from_secs(60);
    assert_eq!(batch_with(&queue(minute), 1), 2);
    assert_eq!(batch_with(&queue(minute), MAX_BATCH - 1), MAX_BATCH);
    assert_eq!(batch_with(&queue(minute), MAX_BATCH + 5), MAX_BATCH);
}

#[test]
fn the_size_of_a_batch_is_what_the_next_one_expects() {
    let queue = queue(Duration::from_secs(60));
    batch_with(&queue, 1);
    assert_eq!(lock(&queue.line).last_batch, 2);
}

#[test]
fn a_batch_lingers_until_the_time_is_over_and_a_full_one_does_not() {
    let queue = queue(Duration::from_secs(60));
    lock(&queue.line).flushed(2, Some(Duration::from_secs(1)));
    let mut until = None;
    let start = now();
    assert!(queue.take_jobs(1, &mut until).is_empty());
    assert!(now() - start >= MAX_LINGER);
    until = None;
    assert!(queue.take_jobs(2, &mut until).is_empty() && until.is_none());
}

/// A thread wakes up now and then for no reason.
#[test]
fn who_is_woken_for_nothing_waits_no_longer_than_it_was_to() {
    let timeout = Duration::from_secs(1);
    let queue = queue(timeout);
    let led = |_: &()| {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let start = now();
                (queue.write(|_| Ok(())), now() - start)
            });
            std::thread::sleep(timeout / 2);
            waiting.thread().unpark();
            let (refused, waited) = waiting.join().unwrap();
            assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
            assert!(waited >= timeout && waited < timeout * 9 / 5, "{waited:?}");
        });
        Ok(())
    };
    queue.write(led).unwrap();
}

/// What a writer is answered whose work and whose transaction ended so.
fn answer(own: Result<()>, ended: Result<()>) -> Option<String> {
    let mut job = Job::new(|_: &()| own.clone());
    job.run(&());
    job.answer(ended).err().map(|error| error.to_string())
}

/// It was refused for what others wrote before it, perhaps, and that is lost.
#[test]
fn a_refusal_in_a_batch_that_is_lost_is_none() {
    let refusal = || Error::not_found(Entity::Run, "r");
    let failure = || Error::backend("reading", std::io::Error::other("the disk is broken"));
    let lost = || Error::backend("flushing", std::io::Error::other("the disk is broken"));
    assert!(refusal().is_refusal() && !failure().is_refusal());
    let text = |error: Error| Some(error.to_string());
    assert_eq!(answer(Ok(()), Ok(())), None);
    assert_eq!(answer(Ok(()), Err(lost())), text(lost()));
    assert_eq!(answer(Err(refusal()), Ok(())), text(refusal()));
    assert_eq!(answer(Err(refusal()), Err(lost())), text(lost()));
    assert_eq!(answer(Err(failure()), Ok(())), text(failure()));
    assert_eq!(answer(Err(failure()), Err(lost())), text(failure()));
}
