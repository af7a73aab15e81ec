//! What the rules cost that every engine calls inside its transactions.

#![allow(clippy::unwrap_used)] // its own data are sound

use std::time::Duration;

use divan::{Bencher, black_box};
use store_api::window::{format_length, parse_length};
use store_api::{Amount, Cursor, Ledger, List, PageRequest, Window, time};

fn main() {
    divan::main();
}

const HOUR: i64 = 3_600_000_000_000;

/// A ledger whose window is full: as many buckets as it can have.
fn ledger(window: &Window, buckets: i64) -> Ledger {
    let mut ledger = Ledger::default();
    for hour in 0..buckets {
        ledger
            .charge(window, Amount::from_micros(1).unwrap(), None, None, time::from_nanos(hour * HOUR))
            .unwrap();
    }
    ledger
}

#[divan::bench(args = [1, 24, 168])]
fn charge(bencher: Bencher<'_, '_>, buckets: u32) {
    let window = match buckets {
        1 => Window::default(),
        _ => Window::sliding(Duration::from_secs(3_600) * buckets, buckets).unwrap(),
    };
    let ledger = ledger(&window, buckets.into());
    let (amount, now) =
        (Amount::from_micros(1_250).unwrap(), time::from_nanos((i64::from(buckets) - 1) * HOUR + 1));
    bencher
        .with_inputs(|| ledger.clone())
        .bench_refs(|ledger| ledger.charge(black_box(&window), amount, None, Some(Amount::MAX), now));
}

#[divan::bench]
fn usage(bencher: Bencher<'_, '_>) {
    let window = Window::sliding(Duration::from_secs(3_600) * 168, 168).unwrap();
    let ledger = ledger(&window, 168);
    bencher.bench(|| black_box(&ledger).usage(&window, time::from_nanos(167 * HOUR + 1)));
}

#[divan::bench]
fn window_written_and_read(bencher: Bencher<'_, '_>) {
    let length = Duration::from_secs(7 * 24 * 3_600);
    bencher.bench(|| parse_length("length", &format_length(black_box(length))));
}

#[divan::bench]
fn cursor_made(bencher: Bencher<'_, '_>) {
    let position = (1_700_000_000_000_000_000_i64, "skill-00000001".to_owned());
    bencher.bench(|| Cursor::new(List::DueSkills, black_box(&position)));
}

#[divan::bench]
fn cursor_opened(bencher: Bencher<'_, '_>) {
    let position = (1_700_000_000_000_000_000_i64, "skill-00000001".to_owned());
    let cursor = Cursor::new(List::DueSkills, &position).unwrap();
    let request = PageRequest::first(50).unwrap().after(cursor);
    bencher.bench(|| black_box(&request).position::<(i64, String)>(List::DueSkills));
}
