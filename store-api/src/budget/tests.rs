//! The ledger against plain sums, at the edges to the nanosecond.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::time::from_nanos;

fn amount(micros: u64) -> Amount {
    Amount::from_micros(micros).unwrap()
}

fn rollover(nanos: u64) -> Window {
    Window::rollover(Duration::from_nanos(nanos)).unwrap()
}

fn sliding(nanos: u64, buckets: u32) -> Window {
    Window::sliding(Duration::from_nanos(nanos), buckets).unwrap()
}

fn add(ledger: &mut Ledger, window: &Window, micros: u64, now: i64) -> Usage {
    match ledger.charge(window, amount(micros), None, None, from_nanos(now)).unwrap() {
        Charging::Made { usage, .. } | Charging::Replayed(usage) => usage,
    }
}

fn used(ledger: &Ledger, window: &Window, now: i64) -> u64 {
    ledger.usage(window, from_nanos(now)).unwrap().used.micros()
}

#[test]
fn a_rollover_window_turns_at_its_end_to_the_nanosecond() {
    let (window, mut ledger) = (rollover(100), Ledger::default());
    add(&mut ledger, &window, 5, 1_000);
    add(&mut ledger, &window, 6, 1_099);
    assert_eq!(used(&ledger, &window, 1_099), 11);
    assert_eq!(used(&ledger, &window, 1_100), 0);
    let before = ledger.clone();
    assert_eq!(ledger, before, "a read writes nothing");
    let usage = add(&mut ledger, &window, 7, 1_100);
    assert_eq!(
        (usage.used.micros(), usage.since, usage.until),
        (7, Some(from_nanos(1_100)), Some(from_nanos(1_200)))
    );
}

#[test]
fn a_clock_that_steps_back_counts_as_the_windows_start() {
    let (window, mut ledger) = (rollover(100), Ledger::default());
    add(&mut ledger, &window, 5, 1_000);
    let usage = add(&mut ledger, &window, 5, 10);
    assert_eq!((usage.used.micros(), usage.since), (10, Some(from_nanos(1_000))));
    assert_eq!(used(&ledger, &window, i64::MIN), 10);
    let (window, mut ledger) = (sliding(100, 10), Ledger::default());
    add(&mut ledger, &window, 5, 1_055);
    assert_eq!(add(&mut ledger, &window, 5, 10).used.micros(), 10);
    assert_eq!(ledger.buckets, vec![(1_050, amount(10))]);
}

#[test]
fn a_sliding_window_drops_whole_buckets() {
    let (window, mut ledger) = (sliding(100, 10), Ledger::default());
    add(&mut ledger, &window, 1, 1_009);
    add(&mut ledger, &window, 2, 1_010);
    assert_eq!(used(&ledger, &window, 1_099), 3, "1000 begins within the last 100");
    assert_eq!(used(&ledger, &window, 1_100), 2, "and now no more");
    assert_eq!(used(&ledger, &window, 1_110), 0);
}

#[test]
fn a_key_is_charged_once_while_its_window_lasts() {
    let (window, mut ledger) = (rollover(100), Ledger::default());
    let key = ChargeKey::Key(IdempotencyKey::new("k").unwrap());
    let mut charge = |micros, prior, now| {
        ledger.charge(&window, amount(micros), Some((&key, prior)), Some(amount(10)), from_nanos(now))
    };
    let Charging::Made { charged, .. } = charge(9, None, 1_000).unwrap() else { panic!("new") };
    assert_eq!(charged.expires_at, 1_100);
    assert!(
        matches!(charge(9, Some(charged), 1_099).unwrap(), Charging::Replayed(usage) if usage.used == amount(9))
    );
    assert_eq!(charge(8, Some(charged), 1_099).unwrap_err().kind(), crate::ErrorKind::Conflict);
    assert!(matches!(charge(9, Some(charged), 1_100).unwrap(), Charging::Made { .. }));
}

#[test]
fn holds_count_until_they_lapse_and_a_settle_charges_once() {
    let (window, mut ledger) = (rollover(1_000), Ledger::default());
    let account = Account::new(PrincipalId::new("p").unwrap(), MeterName::new("usd").unwrap(), window);
    let id = ReservationId::new("r").unwrap();
    let hold = |id: &ReservationId, micros, until| Reservation {
        id: id.clone(),
        account: account.clone(),
        estimate: amount(micros),
        expires_at: from_nanos(until),
    };
    let limit = amount(10);
    assert_eq!(ledger.reserve(&hold(&id, 6, 50), limit, from_nanos(0)).unwrap().total(), amount(6));
    let again = ledger.reserve(&hold(&id, 1, 50), limit, from_nanos(49)).unwrap_err();
    assert_eq!(again.kind(), crate::ErrorKind::AlreadyExists);
    let other = ReservationId::new("other").unwrap();
    let refused = ledger.reserve(&hold(&other, 5, 60), limit, from_nanos(49)).unwrap_err();
    assert!(matches!(refused, Error::LimitExceeded { used, .. } if used == amount(6)));
    ledger.reserve(&hold(&other, 5, 60), limit, from_nanos(50)).unwrap();
    assert_eq!(ledger.holds.len(), 1, "the lapsed one is dropped");
    let Charging::Made { usage, charged, .. } =
        ledger.settle(&window, &id, None, amount(7), from_nanos(55)).unwrap()
    else {
        panic!("charged although it lapsed")
    };
    assert_eq!((usage.used, usage.held), (amount(7), amount(5)));
    let again = ledger.settle(&window, &id, Some(charged), amount(7), from_nanos(56)).unwrap();
    assert!(matches!(again, Charging::Replayed(_)));
    assert_eq!(ledger.release(&window, &other, from_nanos(57)).unwrap().total(), amount(7));
    assert!(ledger.release(&window, &other, from_nanos(57)).is_err());
}

#[test]
fn keys_of_accounts_and_charges_are_read_back() {
    let window = sliding(100, 10);
    let account = Account::new(PrincipalId::new("p").unwrap(), MeterName::new("usd").unwrap(), window);
    let key = account.key();
    assert_eq!((key.0.as_str(), key.1.as_str(), key.2.as_str()), ("p", "usd", "sliding:100ns/10"));
    assert_eq!(Account::from_key(&key).unwrap(), account);
    let keys = [
        (ChargeKey::Key(IdempotencyKey::new("r:x").unwrap()), "k:r:x"),
        (ChargeKey::Reservation(ReservationId::new("k:x").unwrap()), "r:k:x"),
    ];
    for (key, text) in keys {
        assert_eq!((key.as_text().as_str(), ChargeKey::from_text(text).unwrap()), (text, key));
    }
    assert!(ChargeKey::from_text("x:x").is_err() && ChargeKey::from_text("k").is_err());
}

#[test]
fn a_limit_can_be_used_up_and_not_passed() {
    let (window, limit) = (rollover(100), amount(10));
    for (micros, fits) in [(9, true), (10, true), (11, false)] {
        let charged = Ledger::default().charge(&window, amount(micros), None, Some(limit), from_nanos(0));
        assert_eq!(charged.is_ok(), fits, "{micros}");
    }
}

/// Holds of one account, so many of them, that lapse at 50.
fn holding(holds: usize) -> (Account, Ledger) {
    let account =
        Account::new(PrincipalId::new("p").unwrap(), MeterName::new("usd").unwrap(), rollover(1_000));
    let mut ledger = Ledger::default();
    for number in 0..holds {
        let id = ReservationId::new(format!("h{number:04}")).unwrap();
        ledger.holds.insert(id, Hold { amount: amount(1), expires_at: from_nanos(50) });
    }
    (account, ledger)
}

#[test]
fn a_hold_lapses_at_its_end_to_the_nanosecond() {
    let (account, ledger) = holding(2);
    let standing = ledger.reservations(&account, from_nanos(49)).unwrap();
    let expected = |id: &str| Reservation {
        id: ReservationId::new(id).unwrap(),
        account: account.clone(),
        estimate: amount(1),
        expires_at: from_nanos(50),
    };
    assert_eq!(standing, [expected("h0000"), expected("h0001")]);
    assert_eq!(ledger.reservations(&account, from_nanos(50)).unwrap(), []);
    // Its id is free again.
    let again = Reservation { expires_at: from_nanos(60), ..expected("h0000") };
    assert!(ledger.clone().reserve(&again, amount(10), from_nanos(49)).is_err());
    assert!(ledger.clone().reserve(&again, amount(10), from_nanos(50)).is_ok());
}

#[test]
fn holds_are_bounded_and_lapsed_ones_do_not_count() {
    let one_more = |held: usize, now: i64| {
        let (account, mut ledger) = holding(held);
        let id = ReservationId::new("more").unwrap();
        let more = Reservation { id, account, estimate: amount(1), expires_at: from_nanos(60) };
        ledger.reserve(&more, Amount::MAX, from_nanos(now)).map(drop)
    };
    assert!(one_more(MAX_HOLDS - 1, 49).is_ok());
    assert_eq!(one_more(MAX_HOLDS, 49).unwrap_err().kind(), crate::ErrorKind::InvalidInput);
    assert!(one_more(MAX_HOLDS, 50).is_ok());
}

#[test]
fn ledgers_from_outside_are_checked() {
    let buckets = |positions: &[i64]| Ledger {
        buckets: positions.iter().map(|at| (*at, amount(1))).collect(),
        ..Ledger::default()
    };
    let three = sliding(30, 3);
    assert!(buckets(&[0, 10, 20]).validate(&three).is_ok());
    assert!(buckets(&[0, 10, 20, 30]).validate(&three).is_err(), "too many");
    assert!(buckets(&[0, 20, 10]).validate(&three).is_err(), "out of order");
    assert!(buckets(&[0, 10, 10]).validate(&three).is_err(), "one twice");
    assert!(buckets(&[0]).validate(&rollover(30)).is_ok());
    assert!(buckets(&[0, 10]).validate(&rollover(30)).is_err(), "a rollover window has one");
    let mut heavy = buckets(&[0, 10]);
    heavy.buckets[0].1 = Amount::MAX;
    assert!(heavy.validate(&three).is_err(), "more than an amount can be");
    assert!(holding(MAX_HOLDS).1.validate(&three).is_ok());
    assert!(holding(MAX_HOLDS + 1).1.validate(&three).is_err(), "too many holds");
}

#[test]
fn a_sum_that_overflows_is_refused_and_changes_nothing() {
    let (window, mut ledger) = (Window::default(), Ledger::default());
    add(&mut ledger, &window, i64::MAX as u64, 0);
    let before = ledger.clone();
    let refused = ledger.charge(&window, amount(1), None, None, from_nanos(1)).unwrap_err();
    assert_eq!(refused.kind(), crate::ErrorKind::InvalidInput);
    assert_eq!(ledger, before);
}

fn windows() -> impl Strategy<Value = Window> {
    prop_oneof![
        (1u64..200).prop_map(rollover),
        (1u32..12, 1u64..20).prop_map(|(n, width)| sliding(u64::from(n) * width, n))
    ]
}

proptest! {
    /// Against the definition, computed from the list of all adds: no shared code.
    #[test]
    fn usage_is_the_sum_that_the_definition_gives(
        window in windows(),
        steps in prop::collection::vec((-30i64..60, 0u64..1_000), 1..60),
    ) {
        let mut ledger = Ledger::default();
        let (mut now, length) = (0i64, window.length().as_nanos() as i64);
        let mut adds: Vec<(i64, u64)> = Vec::new();
        for (step, micros) in steps {
            now += step;
            let newest = adds.last().map_or(now, |(at, _)| *at);
            let (used, at) = match window.kind() {
                WindowKind::Rollover => {
                    let at = now.max(newest);
                    let turned = adds.is_empty() || at >= newest + length;
                    if turned { adds.clear(); }
                    let start = if turned { at } else { newest };
                    adds.push((start, micros));
                    (adds.iter().map(|(_, m)| m).sum::<u64>(), start)
                }
                WindowKind::Sliding { buckets } => {
                    let width = length / i64::from(buckets);
                    let effective = now.max(newest);
                    let bucket = effective.div_euclid(width) * width;
                    adds.push((bucket, micros));
                    (adds.iter().filter(|(at, _)| *at > effective - length).map(|(_, m)| m).sum(), bucket)
                }
            };
            let usage = add(&mut ledger, &window, micros, now);
            prop_assert_eq!(usage.used.micros(), used, "at {} in {}", at, window);
            ledger.validate(&window).unwrap();
        }
    }

    /// What is left of the keys when they are forgotten only when the ledger says so: those that have not ended.
    #[test]
    fn a_key_that_has_ended_is_never_kept(
        window in windows(),
        steps in prop::collection::vec((-30i64..60, 0u8..20), 1..60),
    ) {
        let mut ledger = Ledger::default();
        let mut kept: BTreeMap<ChargeKey, Charged> = BTreeMap::new();
        let mut now = 0i64;
        for (step, key) in steps {
            now += step;
            let key = ChargeKey::Key(IdempotencyKey::new(key.to_string()).unwrap());
            let prior = kept.get(&key).copied();
            let charging = ledger.charge(&window, amount(1), Some((&key, prior)), None, from_nanos(now)).unwrap();
            if let Charging::Made { charged, forget, .. } = charging {
                kept.retain(|_, charged| forget.is_none_or(|until| charged.expires_at > until));
                prop_assert!(!kept.contains_key(&key), "a key is stored where none is");
                kept.insert(key, charged);
                let at = ledger.anchored(now);
                prop_assert!(kept.values().all(|charged| charged.expires_at > at), "at {} in {}", at, window);
            }
        }
    }

    #[test]
    fn no_time_or_amount_panics_and_refusals_change_nothing(
        window in windows(),
        steps in prop::collection::vec((any::<i64>(), any::<u64>(), any::<u64>()), 1..20),
    ) {
        let mut ledger = Ledger::default();
        for (now, micros, limit) in steps {
            let before = ledger.clone();
            let (amount, limit) = (Amount::from_micros(micros >> 1).unwrap(), Amount::from_micros(limit >> 1).unwrap());
            match ledger.charge(&window, amount, None, Some(limit), from_nanos(now)) {
                Ok(Charging::Made { usage, .. }) => prop_assert!(usage.total() <= limit),
                Ok(Charging::Replayed(_)) => prop_assert!(false, "no key was given"),
                Err(_) => prop_assert_eq!(&ledger, &before),
            }
        }
    }
}
