//! WIN: budgets and their windows.

use std::time::Duration;

use chrono::{DateTime, Utc};
use store_api::window::MAX_WINDOW;
use store_api::*;

use crate::fixture::*;
use crate::suite::Suite;

/// Threads that charge at once.
const THREADS: usize = 4;
/// Charges of each thread.
const CHARGES: usize = 25;
/// How often they race for one unit.
const ROUNDS: usize = 20;
/// Charges that WIN-7 compares with a sum made by hand.
const SLIDING_CHARGES: u64 = 120;

fn used(store: &dyn Store, account: &Account, now: DateTime<Utc>) -> u64 {
    store.budgets().usage(account, now).unwrap().used.micros()
}

fn add(store: &dyn Store, account: &Account, amount: u64, now: DateTime<Utc>) -> Usage {
    store.budgets().add(&charge(account, amount), now).unwrap()
}

fn hold(account: &Account, name: &str, estimate: u64, expires_at: DateTime<Utc>) -> Reservation {
    Reservation { id: id(name), account: account.clone(), estimate: micros(estimate), expires_at }
}

pub fn win_1_adds_sum_exactly(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let sliding = Account::new(id("c"), id("tokens"), Window::sliding(seconds(100), 10).unwrap());
    for account in [account("c", 100), sliding] {
        // Amounts that a sum of floats would get wrong.
        for round in 1..=50 {
            let usage = add(&*store, &account, 100_000, at(round));
            assert_eq!(usage.used.micros(), round as u64 * 100_000);
            assert_eq!(store.budgets().usage(&account, at(round)).unwrap(), usage);
        }
        assert_eq!(add(&*store, &account, 0, at(50)).used.micros(), 5_000_000, "nothing adds nothing");
    }

    // Charges of all sorts from many threads, in any interleaving, beside another account of the same caller.
    let (busy, other) = (account("busy", 1_000), account("busy", 2_000));
    let spent = race(THREADS, |thread| {
        let mut spent = 0;
        for number in 0..CHARGES {
            let amount = (thread * CHARGES + number) as u64 + 1;
            let at = at(number as i64);
            match number % 4 {
                0 => drop(add(&*store, &busy, amount, at)),
                1 => drop(store.budgets().admit(&charge(&busy, amount), Amount::MAX, at).unwrap()),
                2 => {
                    let name = format!("h{thread}-{number}");
                    let seams = store.budgets();
                    seams.reserve(&hold(&busy, &name, 1, self::at(900)), Amount::MAX, at).unwrap();
                    seams.settle(&busy, &id(&name), micros(amount), at).unwrap();
                }
                _ => store
                    .transaction(&mut |seams| {
                        seams.budgets().add(&charge(&busy, amount), at)?;
                        seams.budgets().add(&charge(&other, 1), at).map(drop)
                    })
                    .unwrap(),
            }
            spent += amount;
        }
        spent
    });
    let usage = store.budgets().usage(&busy, at(30)).unwrap();
    assert_eq!((usage.used.micros(), usage.held), (spent.iter().sum(), Amount::ZERO));
    assert_eq!(used(&*store, &other, at(30)), (THREADS * (CHARGES / 4)) as u64);

    // What a transaction undoes was never charged.
    let undone = store.transaction(&mut |seams| {
        seams.budgets().add(&charge(&busy, 7), at(30))?;
        Err(Error::invalid("work", "undone"))
    });
    refused(undone, ErrorKind::InvalidInput);
    assert_eq!(store.budgets().usage(&busy, at(30)).unwrap(), usage);
}

pub fn win_2_the_window_turns_to_the_nanosecond(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    for nanos in [1, 2, 999_999_999, 7 * 24 * 3_600 * 1_000_000_000, MAX_WINDOW.as_nanos() as i64] {
        let window = Window::rollover(Duration::from_nanos(nanos as u64)).unwrap();
        let account = Account::new(id(&format!("c{nanos}")), id("m"), window);
        let start = at_nanos(17);
        let end = at_nanos(17 + nanos);
        let usage = add(&*store, &account, 5, start);
        assert_eq!((usage.since, usage.until), (Some(start), Some(end)));
        let just_before = at_nanos(16 + nanos);
        assert_eq!(used(&*store, &account, just_before), 5);
        assert_eq!(add(&*store, &account, 1, just_before).since, Some(start), "nothing turns before the end");
        assert_eq!(used(&*store, &account, end), 0, "a read at the end is in no window");
        let usage = add(&*store, &account, 3, end);
        assert_eq!((usage.used.micros(), usage.since), (3, Some(end)), "an add at the end opens the next");
        assert_eq!(used(&*store, &account, at_nanos(17 + 2 * nanos)), 0);
    }

    // A window starts at its first add, wherever that is, not at a multiple of its length.
    let account = account("gap", 10);
    add(&*store, &account, 1, at(0));
    assert_eq!(add(&*store, &account, 1, at(27)).since, Some(at(27)));
    assert_eq!(used(&*store, &account, at_nanos(36_999_999_999)), 1);
    assert_eq!(used(&*store, &account, at(37)), 0);

    // admit and settle turn it as add does.
    let budgets = store.budgets();
    let usage = budgets.admit(&charge(&account, 4), micros(4), at(37)).unwrap();
    assert_eq!((usage.used.micros(), usage.since), (4, Some(at(37))));
    budgets.reserve(&hold(&account, "h", 2, at(60)), micros(10), at(40)).unwrap();
    let usage = budgets.settle(&account, &id("h"), micros(3), at(47)).unwrap();
    assert_eq!((usage.used.micros(), usage.held, usage.since), (3, Amount::ZERO, Some(at(47))));
}

pub fn win_3_reads_write_nothing(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let budgets = store.budgets();
    let rolling = account("c", 10);
    let sliding = Account::new(id("c"), id("sliding"), Window::sliding(seconds(10), 5).unwrap());
    let never = account("never", 10);
    add(&*store, &rolling, 5, at(0));
    add(&*store, &sliding, 5, at(0));
    let key = charge(&rolling, 1).with_key(id("k"));
    budgets.add(&key, at(1)).unwrap();
    budgets.reserve(&hold(&rolling, "h", 1, at(5)), Amount::MAX, at(1)).unwrap();
    let before = export(&*store);
    for now in [at(0), at(9), at(10), at(11), at(1_000_000), at(-1_000)] {
        budgets.usage(&rolling, now).unwrap();
        budgets.usage(&sliding, now).unwrap();
        budgets.reservations(&rolling, now).unwrap();
        assert_eq!(list(|page| budgets.accounts(now, page)).len(), 2);
        assert_eq!(budgets.usage(&never, now).unwrap(), Usage::default());
        assert!(budgets.reservations(&never, now).unwrap().is_empty());
    }
    assert_eq!(export(&*store), before, "a read wrote something");
    for account in [&rolling, &sliding] {
        assert_eq!(budgets.usage(account, at(10)).unwrap(), Usage::default(), "over means zero");
    }
    // The window that a read saw ended is still there for a clock that is behind.
    assert_eq!(used(&*store, &rolling, at(9)), 6);
    for listed in list(|page| budgets.accounts(at(10), page)) {
        assert_eq!(listed.usage, Usage::default());
    }
    refused(budgets.usage(&rolling, DateTime::<Utc>::MAX_UTC), ErrorKind::InvalidInput);
    refused(budgets.reservations(&rolling, DateTime::<Utc>::MAX_UTC), ErrorKind::InvalidInput);
    refused(budgets.accounts(DateTime::<Utc>::MAX_UTC, &whole()), ErrorKind::InvalidInput);
}

pub fn win_4_only_amounts_are_charged(suite: &Suite<'_>) {
    // No other number becomes an amount.
    // 2^63 micro-units are one too many; the float before them is an amount.
    let above = 2_f64.powi(63) / 1e6;
    let below = f64::from_bits(above.to_bits() - 1);
    refused(Amount::try_from(above), ErrorKind::InvalidInput);
    for bad in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.000_001, -1e300, 9.3e12, f64::MAX] {
        refused(Amount::try_from(bad), ErrorKind::InvalidInput);
    }
    assert!(Amount::try_from(below).is_ok() && Amount::try_from(0.0).is_ok());
    refused(Amount::from_micros(u64::MAX), ErrorKind::InvalidInput);
    refused(Amount::from_micros(i64::MAX as u64 + 1), ErrorKind::InvalidInput);
    assert!(serde_json::from_str::<Amount>("-1").is_err() && serde_json::from_str::<Amount>("0.5").is_err());
    assert!(serde_json::from_str::<Amount>("9223372036854775808").is_err());

    let instance = suite.create();
    let store = instance.store();
    let budgets = store.budgets();
    let invalid = ErrorKind::InvalidInput;
    let sliding = Account::new(id("c"), id("sliding"), Window::sliding(seconds(100), 10).unwrap());
    for account in [account("c", 100), sliding] {
        let most = Amount::MAX.micros();
        add(&*store, &account, most - 5, at(1));
        budgets.reserve(&hold(&account, "h", 1, at(90)), Amount::MAX, at(2)).unwrap();
        let over = charge(&account, 6);
        for now in [at(1), at(2), at(30)] {
            refused_without_trace(&*store, invalid, || budgets.add(&over, now));
            let keyed = over.clone().with_key(id("k"));
            refused_without_trace(&*store, invalid, || budgets.add(&keyed, now));
            refused_without_trace(&*store, invalid, || budgets.settle(&account, &id("h"), micros(6), now));
            refused_without_trace(&*store, invalid, || budgets.settle(&account, &id("x"), micros(6), now));
            let exceeded = ErrorKind::LimitExceeded;
            refused_without_trace(&*store, exceeded, || budgets.admit(&over, Amount::MAX, now));
        }
        assert_eq!(add(&*store, &account, 5, at(31)).used, Amount::MAX, "up to the last unit");
        let usage = budgets.usage(&account, at(31)).unwrap();
        assert_eq!(usage.total(), Amount::MAX, "a total stops at the most that there is");
    }
    // Times that no store can index are refused, and change nothing.
    let (account, beyond) = (account("c", 100), DateTime::<Utc>::MAX_UTC);
    refused_without_trace(&*store, invalid, || budgets.add(&charge(&account, 1), beyond));
    refused_without_trace(&*store, invalid, || budgets.admit(&charge(&account, 1), Amount::MAX, beyond));
    let late = hold(&account, "late", 1, beyond);
    refused_without_trace(&*store, invalid, || budgets.reserve(&late, Amount::MAX, at(1)));
    refused_without_trace(&*store, invalid, || budgets.settle(&account, &id("h"), micros(1), beyond));
    refused_without_trace(&*store, invalid, || budgets.release(&account, &id("h"), beyond));
}

pub fn win_5_clocks_that_step_back(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let budgets = store.budgets();
    let sliding = Account::new(id("c"), id("sliding"), Window::sliding(seconds(100), 10).unwrap());
    for account in [account("c", 100), sliding] {
        let begin = add(&*store, &account, 10, at(1_000)).since;
        let span = budgets.usage(&account, at(1_000)).unwrap();
        // Reads and adds from the past count at the window's own start: no window opens in the past.
        for back in [999, 500, 0, -1_000_000] {
            assert_eq!(used(&*store, &account, at(back)), 10);
            let usage = add(&*store, &account, 0, at(back));
            assert_eq!((usage.used, usage.since), (micros(10), begin));
        }
        assert_eq!(add(&*store, &account, 5, at(0)).used.micros(), 15);
        assert_eq!(budgets.usage(&account, at(1_000)).unwrap().used.micros(), 15);
        assert_eq!(budgets.usage(&account, at(1_000)).unwrap().until, span.until);
        // A limit holds for a clock that is behind, and a key is known to it.
        let more = charge(&account, 6);
        refused(budgets.admit(&more, micros(20), at(3)), ErrorKind::LimitExceeded);
        let keyed = charge(&account, 2).with_key(id("k"));
        assert_eq!(budgets.add(&keyed, at(1_001)).unwrap().used.micros(), 17);
        assert_eq!(budgets.add(&keyed, at(-5)).unwrap().used.micros(), 17, "replayed, not charged");

        // An add made far in the future counts until then; the remedy is a reset.
        add(&*store, &account, 1, at(1_000_000_000));
        assert_eq!(used(&*store, &account, at(1_002)), 1);
        budgets.reset(&account).unwrap();
        assert_eq!(budgets.usage(&account, at(1_002)).unwrap(), Usage::default());
        assert_eq!(budgets.add(&keyed, at(1_002)).unwrap().used.micros(), 2, "a reset forgets the keys");
        assert!(used(&*store, &account, at(1_003)) == 2);
        budgets.reset(&account).unwrap();
        refused_without_trace(&*store, ErrorKind::NotFound, || budgets.reset(&account));
    }
    assert!(list(|page| budgets.accounts(at(0), page)).is_empty());
    assert_eq!(export(&*store).len(), 1, "a reset leaves nothing but the counter");
}

pub fn win_6_limits_holds_and_keys(suite: &Suite<'_>) {
    limits(suite);
    holds(suite);
    keys(suite);
    threads_race_for_a_limit(suite);
    threads_race_for_the_last_unit(suite);
    threads_race_with_one_key(suite);
}

fn limits(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let budgets = store.budgets();
    let account = account("c", 100);
    let exceeded = ErrorKind::LimitExceeded;
    let limit = micros(10);
    refused_without_trace(&*store, exceeded, || budgets.admit(&charge(&account, 11), limit, at(0)));
    assert!(list(|page| budgets.accounts(at(0), page)).is_empty(), "a refusal makes no account");
    budgets.admit(&charge(&account, 6), limit, at(0)).unwrap();
    budgets.reserve(&hold(&account, "h", 3, at(50)), limit, at(0)).unwrap();
    // Used and held count together, up to the limit and not beyond.
    match refused(budgets.admit(&charge(&account, 2), limit, at(1)), exceeded) {
        Error::LimitExceeded { used, limit: asked } => assert_eq!((used.micros(), asked), (9, limit)),
        other => panic!("{other:?}"),
    }
    refused_without_trace(&*store, exceeded, || {
        budgets.reserve(&hold(&account, "i", 2, at(50)), limit, at(1))
    });
    let usage = budgets.admit(&charge(&account, 1), limit, at(1)).unwrap();
    assert_eq!((usage.used.micros(), usage.held.micros(), usage.total()), (7, 3, limit));
    budgets.admit(&charge(&account, 0), limit, at(1)).unwrap();
    // A limit below what is used refuses everything but nothing; what is added without one goes beyond.
    refused(budgets.admit(&charge(&account, 1), micros(5), at(1)), exceeded);
    refused(budgets.admit(&charge(&account, 0), micros(5), at(1)), exceeded);
    assert_eq!(add(&*store, &account, 90, at(1)).used.micros(), 97);
    // A new window is a new chance; a hold that is older than the window still counts.
    refused(budgets.admit(&charge(&account, 1), limit, at(49)), exceeded);
    assert_eq!(budgets.admit(&charge(&account, 10), limit, at(100)).unwrap().used.micros(), 10);
}

fn holds(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let budgets = store.budgets();
    let account = account("c", 100);
    let limit = micros(10);
    let usage = budgets.reserve(&hold(&account, "b", 6, at(50)), limit, at(0)).unwrap();
    assert_eq!((usage.used, usage.held.micros(), usage.since), (Amount::ZERO, 6, None));
    budgets.reserve(&hold(&account, "a", 4, at(40)), limit, at(0)).unwrap();
    let named = |now| -> Vec<String> {
        budgets.reservations(&account, now).unwrap().iter().map(|hold| hold.id.to_string()).collect()
    };
    assert_eq!(named(at(1)), ["a", "b"]);
    assert_eq!(budgets.reservations(&account, at(1)).unwrap()[0], hold(&account, "a", 4, at(40)));

    // They hold before their end, not at it; a free id can be taken again, a held one cannot.
    let taken = ErrorKind::AlreadyExists;
    refused_without_trace(&*store, taken, || budgets.reserve(&hold(&account, "b", 0, at(60)), limit, at(1)));
    assert_eq!(named(at_nanos(39_999_999_999)), ["a", "b"]);
    assert_eq!(named(at(40)), ["b"]);
    assert_eq!(budgets.usage(&account, at(40)).unwrap().held.micros(), 6);
    refused_without_trace(&*store, ErrorKind::NotFound, || budgets.release(&account, &id("a"), at(40)));
    budgets.reserve(&hold(&account, "a", 4, at(70)), limit, at(40)).unwrap();
    assert_eq!(budgets.usage(&account, at(40)).unwrap().held.micros(), 10);
    for now in [at(70), at(71)] {
        let over = hold(&account, "c", 1, at(70));
        refused_without_trace(&*store, ErrorKind::InvalidInput, || budgets.reserve(&over, limit, now));
    }

    // Released it charges nothing; settled it charges what was spent, also more than the estimate, once.
    assert_eq!(budgets.release(&account, &id("a"), at(41)).unwrap().held.micros(), 6);
    refused_without_trace(&*store, ErrorKind::NotFound, || budgets.release(&account, &id("a"), at(41)));
    let usage = budgets.settle(&account, &id("b"), micros(15), at(42)).unwrap();
    assert_eq!((usage.used.micros(), usage.held), (15, Amount::ZERO));
    assert_eq!(budgets.settle(&account, &id("b"), micros(15), at(43)).unwrap().used.micros(), 15);
    let conflict = ErrorKind::Conflict;
    refused_without_trace(&*store, conflict, || budgets.settle(&account, &id("b"), micros(16), at(43)));
    // What was spent was spent: after a release, after a lapse, and when the store never heard of the hold.
    assert_eq!(budgets.settle(&account, &id("a"), micros(2), at(44)).unwrap().used.micros(), 17);
    assert_eq!(budgets.settle(&account, &id("never"), micros(3), at(44)).unwrap().used.micros(), 20);
    budgets.reserve(&hold(&account, "l", 1, at(46)), Amount::MAX, at(45)).unwrap();
    assert_eq!(budgets.settle(&account, &id("l"), micros(5), at(50)).unwrap().used.micros(), 25);
    assert_eq!(budgets.settle(&account, &id("l"), micros(5), at(50)).unwrap().used.micros(), 25);
}

fn keys(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let budgets = store.budgets();
    let (account, other) = (account("c", 100), account("d", 100));
    let keyed = charge(&account, 5).with_key(id("k"));
    assert_eq!(budgets.add(&keyed, at(0)).unwrap().used.micros(), 5);
    // The same charge again, by either way, whatever the limit, changes nothing and gives the usage as it is.
    let before = export(&*store);
    assert_eq!(budgets.add(&keyed, at(1)).unwrap().used.micros(), 5);
    assert_eq!(budgets.admit(&keyed, Amount::ZERO, at(2)).unwrap().used.micros(), 5);
    assert_eq!(export(&*store), before);
    let changed = charge(&account, 6).with_key(id("k"));
    refused_without_trace(&*store, ErrorKind::Conflict, || budgets.add(&changed, at(3)));
    refused_without_trace(&*store, ErrorKind::Conflict, || budgets.admit(&changed, Amount::MAX, at(3)));
    // A key is its account's, and no reservation's.
    assert_eq!(budgets.add(&charge(&other, 7).with_key(id("k")), at(3)).unwrap().used.micros(), 7);
    assert_eq!(budgets.settle(&account, &id("k"), micros(1), at(3)).unwrap().used.micros(), 6);
    // A refused charge leaves its key free.
    let large = charge(&account, 50).with_key(id("large"));
    refused(budgets.admit(&large, micros(10), at(4)), ErrorKind::LimitExceeded);
    assert_eq!(budgets.admit(&large, micros(100), at(4)).unwrap().used.micros(), 56);
    // It lives as long as its window, to the nanosecond.
    assert_eq!(budgets.add(&keyed, at_nanos(99_999_999_999)).unwrap().used.micros(), 56);
    assert_eq!(budgets.add(&keyed, at(100)).unwrap().used.micros(), 5);
    let keys = export(&*store).iter().filter(|record| record.type_name() == "charge").count();
    assert_eq!(keys, 2, "the keys of a window go with it");
}

fn threads_race_for_a_limit(suite: &Suite<'_>) {
    const LIMIT: u64 = 100;
    let instance = suite.create();
    let store = instance.store();
    let account = account("c", 1_000);
    let limit = micros(LIMIT);
    let charged = race(THREADS, |thread| {
        let mut charged = 0;
        for number in 0..CHARGES {
            let amount = 1 + (number % 5) as u64;
            let name = format!("h{thread}-{number}");
            let admitted = match number % 3 {
                0 => store.budgets().admit(&charge(&account, amount), limit, at(1)),
                _ => store.budgets().reserve(&hold(&account, &name, amount, at(900)), limit, at(1)),
            };
            match admitted {
                Ok(usage) => assert!(usage.total() <= limit, "{usage:?} passes the limit"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
                    continue;
                }
            }
            let settled = match number % 3 {
                0 => amount,
                1 => {
                    store.budgets().settle(&account, &id(&name), micros(amount - 1), at(2)).unwrap();
                    amount - 1
                }
                _ => {
                    store.budgets().release(&account, &id(&name), at(2)).unwrap();
                    0
                }
            };
            charged += settled;
            let seen = store.budgets().usage(&account, at(2)).unwrap();
            assert!(seen.total() <= limit, "{seen:?} passes the limit");
        }
        charged
    });
    let usage = store.budgets().usage(&account, at(3)).unwrap();
    assert_eq!((usage.used.micros(), usage.held), (charged.iter().sum(), Amount::ZERO));
    assert!(usage.used <= limit);
    // What is left can be used to the last unit, and no further.
    let left = charge(&account, LIMIT - usage.used.micros());
    assert_eq!(store.budgets().admit(&left, limit, at(3)).unwrap().used, limit);
    refused(store.budgets().admit(&charge(&account, 1), limit, at(3)), ErrorKind::LimitExceeded);
}

/// In the race above the account is full most of the time, so a check that came too early was only seen now and then.
/// Here all find room for one, at the same moment, again and again.
fn threads_race_for_the_last_unit(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    for round in 0..ROUNDS {
        let account = account(&format!("c{round}"), 1_000);
        let admitted = race(THREADS, |_| store.budgets().admit(&charge(&account, 1), micros(1), at(1)));
        let refusals: Vec<_> = admitted.into_iter().filter_map(Result::err).collect();
        assert_eq!(refusals.len(), THREADS - 1, "one of them finds room");
        refusals.iter().for_each(|error| assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}"));
        assert_eq!(used(&*store, &account, at(1)), 1);
    }
}

fn threads_race_with_one_key(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let account = account("c", 1_000);
    for round in 0..5u64 {
        let key = format!("k{round}");
        let reservation = format!("r{round}");
        race(THREADS, |thread| {
            let amount = if round == 4 { thread as u64 + 1 } else { 3 };
            let keyed = charge(&account, amount).with_key(id(&key));
            match store.budgets().admit(&keyed, Amount::MAX, at(1)) {
                Ok(_) => {}
                // Other amounts under one key: one of them wins, the others are told.
                Err(error) => assert!(round == 4 && error.kind() == ErrorKind::Conflict, "{error}"),
            }
            store.budgets().settle(&account, &id(&reservation), micros(2), at(1)).unwrap();
        });
        if round < 4 {
            assert_eq!(used(&*store, &account, at(1)), (round + 1) * 5, "a key was charged twice");
        }
    }
    let last = used(&*store, &account, at(1)) - 22;
    assert!((1..=THREADS as u64).contains(&last), "exactly one of them was charged, not {last}");
}

pub fn win_7_sliding_usage_is_the_sum(suite: &Suite<'_>) {
    let instance = suite.create();
    let store = instance.store();
    let budgets = store.budgets();
    for (length, buckets) in [(60, 6), (60, 1), (60, 60), (10, 5)] {
        let window = Window::sliding(seconds(length), buckets).unwrap();
        let account = Account::new(id("c"), id("m"), window);
        let width = length as i64 * 1_000_000_000 / i64::from(buckets);
        // All times here stand on one clock that never steps back; its zero is no multiple of any bucket.
        let origin = 1_750_000_000_000_000_000_i64;
        let bucket_of = |nanos: i64| (origin + nanos).div_euclid(width);
        let mut charges: Vec<(i64, u64)> = Vec::new();
        let by_hand = |charges: &[(i64, u64)], now: i64| -> u64 {
            // The last `buckets` buckets, the current one included.
            let counts = |at: i64| bucket_of(now) - bucket_of(at) < i64::from(buckets);
            charges.iter().filter(|(at, _)| counts(*at)).map(|(_, amount)| amount).sum()
        };
        let mut now = 0;
        let mut step = 1_u64;
        for number in 0..SLIDING_CHARGES / 4 {
            step = step.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Steps up to a third of the window, now and then exactly onto and around a bucket's edge.
            now += (step >> 33) as i64 % (length as i64 * 333_000_000);
            if number % 3 == 0 {
                now = (bucket_of(now) + 1) * width - origin + number as i64 % 2;
            }
            let amount = 1 + (step >> 40) % 1_000;
            charges.push((now, amount));
            let usage = budgets.add(&charge(&account, amount), at_nanos(now)).unwrap();
            assert_eq!(usage.used.micros(), by_hand(&charges, now), "{window} after {number} adds");
            let edge = (bucket_of(now) + 1) * width - origin;
            for later in
                [now, edge - 1, edge, edge + 1, edge + 3 * width, now + length as i64 * 2_000_000_000]
            {
                assert_eq!(used(&*store, &account, at_nanos(later)), by_hand(&charges, later), "{window}");
            }
        }
        // The granularity that the documentation promises, for one add.
        budgets.reset(&account).unwrap();
        let begin = bucket_of(now) * width - origin;
        for made in [begin, begin + 1, begin + width - 1] {
            add(&*store, &account, 1, at_nanos(made));
            let whole = length as i64 * 1_000_000_000;
            assert_eq!(used(&*store, &account, at_nanos(made + whole - width)), 1, "{window}");
            assert_eq!(used(&*store, &account, at_nanos(made + whole)), 0, "{window}");
            budgets.reset(&account).unwrap();
        }
        let usage = add(&*store, &account, 1, at_nanos(begin));
        assert_eq!(usage.until, Some(at_nanos(begin + width)));
        assert_eq!(usage.since, Some(at_nanos(begin + width - length as i64 * 1_000_000_000)));
        budgets.reset(&account).unwrap();
    }
}
