//! Peers in Rust. Called as `peers PEER CLIENTS SECONDS DIRECTORY`; see `../loop.py` for what that means.
//!
//! What blocks runs on threads, what is async on tasks of a multi-threaded tokio, as its users run it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

mod embedded;
mod on_sqlx;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What is asked for.
struct Call {
    clients: usize,
    length: Duration,
    directory: PathBuf,
    documents: Value,
}

impl Call {
    fn document(&self, name: &str) -> Value {
        self.documents[name].clone()
    }
}

/// What came of it. Latencies are in nanoseconds.
struct Ran {
    elapsed: Duration,
    latency: Histogram<u64>,
    settings: Value,
}

/// The operations of one client, timed.
struct Client {
    until: Instant,
    began: Instant,
    latency: Histogram<u64>,
}

impl Client {
    fn new(length: Duration) -> Result<Self> {
        let now = Instant::now();
        Ok(Client { until: now + length, began: now, latency: Histogram::new(3)? })
    }

    /// Notes that an operation is done; says whether there is time for another.
    fn goes_on(&mut self) -> Result<bool> {
        let now = Instant::now();
        self.latency.record(u64::try_from((now - self.began).as_nanos())?)?;
        self.began = now;
        Ok(now < self.until)
    }
}

/// Runs an operation, which is given the client's number and its own, on so many threads.
fn on_threads(call: &Call, op: impl Fn(usize, u64) -> Result<()> + Sync) -> Result<(Duration, Histogram<u64>)> {
    let began = Instant::now();
    let mut all = Histogram::new(3)?;
    std::thread::scope(|scope| {
        let client = |number| {
            let op = &op;
            scope.spawn(move || {
                let mut client = Client::new(call.length)?;
                let mut n = 0;
                loop {
                    op(number, n)?;
                    n += 1;
                    if !client.goes_on()? {
                        return Result::Ok(client.latency);
                    }
                }
            })
        };
        let clients: Vec<_> = (0..call.clients).map(client).collect();
        clients.into_iter().try_for_each(|client| {
            all.add(client.join().map_err(|_| "a client panicked")??)?;
            Result::Ok(())
        })
    })?;
    Ok((began.elapsed(), all))
}

/// The same on so many tasks.
async fn on_tasks<F>(call: &Call, op: impl Fn(usize, u64) -> F + Send + Sync + 'static) -> Result<(Duration, Histogram<u64>)>
where
    F: Future<Output = Result<()>> + Send,
{
    let began = Instant::now();
    let op = Arc::new(op);
    let mut all = Histogram::new(3)?;
    let client = |number| {
        let (op, length) = (Arc::clone(&op), call.length);
        tokio::spawn(async move {
            let mut client = Client::new(length)?;
            let mut n = 0;
            loop {
                op(number, n).await?;
                n += 1;
                if !client.goes_on()? {
                    return Result::Ok(client.latency);
                }
            }
        })
    };
    for client in (0..call.clients).map(client).collect::<Vec<_>>() {
        all.add(client.await??)?;
    }
    Ok((began.elapsed(), all))
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [peer, clients, seconds, directory] = arguments.as_slice() else {
        return Err("usage: peers PEER CLIENTS SECONDS DIRECTORY".into());
    };
    let directory = Path::new(directory).to_owned();
    let length = Duration::try_from_secs_f64(seconds.parse()?)?;
    let documents = serde_json::from_slice(&std::fs::read(directory.join("documents.json"))?)?;
    let call = Call { clients: clients.parse()?, length, directory, documents };
    let tokio = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let Ran { elapsed, latency, settings } = match peer.as_str() {
        "sqlx" => tokio()?.block_on(on_sqlx::versions(&call))?,
        "apalis" => tokio()?.block_on(on_sqlx::jobs(&call))?,
        "fjall" => embedded::fjall(&call)?,
        "native_db" => embedded::native_db(&call)?,
        other => return Err(format!("no peer is called {other}").into()),
    };
    let micros = |nanos: u64| nanos as f64 / 1e3;
    let line = json!({
        "ops": latency.len(),
        "seconds": elapsed.as_secs_f64(),
        "p50_us": micros(latency.value_at_quantile(0.5)),
        "p99_us": micros(latency.value_at_quantile(0.99)),
        "max_us": micros(latency.max()),
        "settings": settings,
    });
    println!("{line}");
    Ok(())
}
