//! Fills an empty store with about as many records as you say, to measure on:
//! `cargo run --release --example fill -- sqlite:big.db 1000000`

#[path = "../tests/cli/records.rs"]
mod records;

use store::Error;

fn main() -> store::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(url), Some(count)) = (args.next(), args.next()) else {
        return Err(Error::invalid("arguments", "a URL and a number of records"));
    };
    let count = count.parse().map_err(|_| Error::invalid("count", format!("{count:?} is no number")))?;
    let store = store::open(&url)?;
    store.import(&mut records::records(count))?;
    store.close()
}
