//! Peers on sqlx: a pool with a connection for each client.

use apalis_core::backend::TaskSink;
use apalis_sqlite::SqliteStorage;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqlitePool};

use crate::{Call, Ran, Result, on_tasks};

async fn pool(call: &Call, connections: u32) -> Result<SqlitePool> {
    let options = SqliteConnectOptions::new()
        .filename(call.directory.join("sqlx.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    Ok(SqlitePoolOptions::new().max_connections(connections).connect_with(options).await?)
}

/// What decides about durability, as a connection of the pool says it.
async fn settings(pool: &SqlitePool) -> Result<Value> {
    let journal_mode: String = sqlx::query("PRAGMA journal_mode").fetch_one(pool).await?.get(0);
    let synchronous: i64 = sqlx::query("PRAGMA synchronous").fetch_one(pool).await?.get(0);
    let synchronous = ["OFF", "NORMAL", "FULL", "EXTRA"][usize::try_from(synchronous)?];
    let sqlite: String = sqlx::query("SELECT sqlite_version()").fetch_one(pool).await?.get(0);
    Ok(json!({ "journal_mode": journal_mode, "synchronous": synchronous, "sqlite": sqlite }))
}

/// A version is numbered and inserted in one statement.
pub(crate) async fn versions(call: &Call) -> Result<Ran> {
    let pool = pool(call, u32::try_from(call.clients)?).await?;
    let schema = "CREATE TABLE versions (id TEXT PRIMARY KEY, skill TEXT NOT NULL, seq INTEGER NOT NULL, \
                  doc TEXT NOT NULL, UNIQUE (skill, seq))";
    sqlx::query(schema).execute(&pool).await?;
    let (version, of_op) = (call.document("version"), pool.clone());
    let (elapsed, latency) = on_tasks(call, move |client, n| {
        let (version, pool) = (version.clone(), of_op.clone());
        async move {
            let insert = "INSERT INTO versions (id, skill, seq, doc) VALUES \
                          (?1, ?2, (SELECT coalesce(max(seq), 0) + 1 FROM versions WHERE skill = ?2), ?3)";
            let query = sqlx::query(insert)
                .bind(format!("version-{client:04}-{n:023}"))
                .bind(format!("skill-{client:08}"))
                .bind(serde_json::to_string(&version)?);
            query.execute(&pool).await?;
            Ok(())
        }
    })
    .await?;
    Ok(Ran { elapsed, latency, settings: settings(&pool).await? })
}

/// A job is queued. Its own setup turns flushes off, so it is given a connection that is closed again.
pub(crate) async fn jobs(call: &Call) -> Result<Ran> {
    let for_setup = pool(call, 1).await?;
    SqliteStorage::setup(&for_setup).await?;
    for_setup.close().await;
    let pool = pool(call, u32::try_from(call.clients)?).await?;
    let storage = SqliteStorage::<Value>::new(&pool);
    let run = call.document("run");
    let (elapsed, latency) = on_tasks(call, move |_, _| {
        let (run, mut storage) = (run.clone(), storage.clone());
        async move { storage.push(run).await.map_err(|error| error.to_string().into()) }
    })
    .await?;
    Ok(Ran { elapsed, latency, settings: settings(&pool).await? })
}
