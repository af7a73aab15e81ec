//! What is done inside a write transaction. Documents come encoded.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, params};
use store_api::budget::{AccountKey, Charging};
use store_api::{
    Amount, Charge, Checkpoint, Finish, LeaseToken, Ledger, NewEvent, NewRun, NewVersion, Record, RunId,
    RunStatus, Skill, SkillId, WorkerId, time,
};

use super::read;
use crate::subject::{Claimed, Result};

/// Checks that a statement changed one row.
fn one(changed: usize) -> Result<()> {
    if changed == 1 { Ok(()) } else { Err("no such row".into()) }
}

fn execute(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<usize> {
    Ok(connection.prepare_cached(sql)?.execute(params)?)
}

/// A record of a bulk load.
pub(super) fn record(connection: &Connection, record: &Record) -> Result<()> {
    match record {
        Record::Counter(counter) => {
            one(execute(connection, "UPDATE counter SET value = ?1", [counter.last.cast_signed()])?)
        }
        Record::Skill(record) => skill(connection, &record.doc, record.last_seq),
        Record::SkillVersion(version) => {
            let doc = serde_json::to_string(&version.content)?;
            insert_version(connection, &version.content, version.seq.cast_signed(), &doc)
        }
        Record::Account(record) => {
            put_ledger(connection, &record.account.key(), &serde_json::to_string(&record.ledger)?)
        }
        Record::Run(run) => {
            start_run(connection, &run.start, &serde_json::to_string(&run.start)?)?;
            let Some(finish) = &run.finish else { return Ok(()) };
            finish_run(connection, &run.id, finish, &serde_json::to_string(finish)?)
        }
        Record::Event(event) => {
            insert_event(connection, &event.run, event.seq, event, &serde_json::to_string(&event.payload)?)
        }
        Record::Checkpoint(record) => {
            checkpoint(connection, &record.checkpoint, &serde_json::to_string(&record.checkpoint)?)
        }
        other => Err(format!("no table for a {}", other.type_name()).into()),
    }
}

fn skill(connection: &Connection, skill: &Skill, last_seq: u64) -> Result<()> {
    let next = skill.schedule.as_ref().and_then(|schedule| schedule.next_run_at);
    let next = next.map(|at| time::nanos("next_run_at", at)).transpose()?;
    let sql =
        "INSERT INTO skills (id, owner, name, last_seq, next_run_at, doc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let doc = serde_json::to_string(skill)?;
    let (id, owner, name) = (skill.id.as_str(), skill.owner.as_str(), skill.name.as_str());
    one(execute(connection, sql, params![id, owner, name, last_seq.cast_signed(), next, doc])?)
}

fn insert_version(connection: &Connection, version: &NewVersion<Skill>, seq: i64, doc: &str) -> Result<()> {
    let sql = "INSERT INTO versions (id, skill, seq, doc) VALUES (?1, ?2, ?3, ?4)";
    one(execute(connection, sql, params![version.id.as_str(), version.snapshot.id.as_str(), seq, doc])?)
}

pub(super) fn append_version(connection: &Connection, version: &NewVersion<Skill>, doc: &str) -> Result<u64> {
    let sql = "UPDATE skills SET last_seq = last_seq + 1 WHERE id = ?1 RETURNING last_seq";
    let id = version.snapshot.id.as_str();
    let seq: i64 = connection.prepare_cached(sql)?.query_one([id], |row| row.get(0))?;
    insert_version(connection, version, seq, doc)?;
    Ok(seq.cast_unsigned())
}

pub(super) fn mark(
    connection: &Connection,
    id: &SkillId,
    ran_at: DateTime<Utc>,
    next: DateTime<Utc>,
) -> Result<()> {
    let sql = "UPDATE skills SET last_run_at = ?2, next_run_at = ?3, lease_worker = NULL, lease_until = NULL, \
               lease_token = NULL WHERE id = ?1";
    let (ran_at, next) = (time::nanos("ran_at", ran_at)?, time::nanos("next", next)?);
    one(execute(connection, sql, params![id.as_str(), ran_at, next])?)
}

fn put_ledger(connection: &Connection, (caller, meter, window): &AccountKey, ledger: &str) -> Result<()> {
    let sql = "INSERT INTO accounts (caller, meter, \"window\", ledger) VALUES (?1, ?2, ?3, ?4) \
               ON CONFLICT (caller, meter, \"window\") DO UPDATE SET ledger = ?4";
    one(execute(connection, sql, params![caller, meter, window, ledger])?)
}

pub(super) fn charge(
    connection: &Connection,
    key: &AccountKey,
    charge: &Charge,
    limit: Option<Amount>,
    now: DateTime<Utc>,
) -> Result<Amount> {
    let sql = "SELECT ledger FROM accounts WHERE caller = ?1 AND meter = ?2 AND \"window\" = ?3";
    let found = connection
        .prepare_cached(sql)?
        .query_one(params![key.0, key.1, key.2], |row| row.get::<_, String>(0))
        .optional()?;
    let mut ledger: Ledger = found.map(|doc| serde_json::from_str(&doc)).transpose()?.unwrap_or_default();
    let charging = ledger.charge(&charge.account.meter.window, charge.amount, None, limit, now)?;
    put_ledger(connection, key, &serde_json::to_string(&ledger)?)?;
    match charging {
        Charging::Made { usage, .. } | Charging::Replayed(usage) => Ok(usage.used),
    }
}

pub(super) fn start_run(connection: &Connection, run: &NewRun, doc: &str) -> Result<()> {
    let sql = "INSERT INTO runs (id, parent, skill, agent, caller, channel, status, started_at, start) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'running', ?7, ?8)";
    let params = params![
        run.id.as_str(),
        run.parent.as_ref().map(RunId::as_str),
        run.skill.as_ref().map(SkillId::as_str),
        run.agent.as_ref().map(|agent| agent.as_str()),
        run.caller.as_str(),
        run.channel.as_ref().map(|channel| channel.as_str()),
        time::nanos("started_at", run.started_at)?,
        doc,
    ];
    one(execute(connection, sql, params)?)
}

pub(super) fn finish_run(connection: &Connection, id: &RunId, finish: &Finish, doc: &str) -> Result<()> {
    let sql = "UPDATE runs SET status = ?2, finished_at = ?3, cost = ?4, input_tokens = ?5, output_tokens = ?6, \
               finish = ?7 WHERE id = ?1 AND status = 'running'";
    let params = params![
        id.as_str(),
        RunStatus::from(finish.outcome).as_str(),
        time::nanos("finished_at", finish.finished_at)?,
        finish.cost.micros().cast_signed(),
        finish.tokens.input.cast_signed(),
        finish.tokens.output.cast_signed(),
        doc,
    ];
    one(execute(connection, sql, params)?)
}

fn insert_event(
    connection: &Connection,
    run: &RunId,
    seq: u64,
    event: &NewEvent,
    payload: &str,
) -> Result<()> {
    let sql = "INSERT INTO events (run, seq, kind, at, payload) VALUES (?1, ?2, ?3, ?4, ?5)";
    let at = time::nanos("at", event.at)?;
    one(execute(connection, sql, params![run.as_str(), seq.cast_signed(), event.kind, at, payload])?)
}

pub(super) fn append_event(
    connection: &Connection,
    run: &RunId,
    event: &NewEvent,
    payload: &str,
) -> Result<u64> {
    let sql = "SELECT max(seq) FROM events WHERE run = ?1";
    let last: Option<i64> = connection.prepare_cached(sql)?.query_one([run.as_str()], |row| row.get(0))?;
    let seq = last.unwrap_or_default().cast_unsigned() + 1;
    insert_event(connection, run, seq, event, payload)?;
    Ok(seq)
}

pub(super) fn checkpoint(connection: &Connection, checkpoint: &Checkpoint, doc: &str) -> Result<()> {
    let sql = "INSERT INTO checkpoints (run, iteration, doc) VALUES (?1, ?2, ?3) \
               ON CONFLICT (run) DO UPDATE SET iteration = ?2, doc = ?3 WHERE iteration <= ?2";
    one(execute(connection, sql, params![checkpoint.run.as_str(), checkpoint.iteration.cast_signed(), doc])?)
}

pub(super) fn delete_checkpoint(connection: &Connection, run: &RunId) -> Result<()> {
    one(execute(connection, "DELETE FROM checkpoints WHERE run = ?1", [run.as_str()])?)
}

pub(super) fn claim(
    connection: &Connection,
    now: DateTime<Utc>,
    worker: &WorkerId,
    lease: Duration,
) -> Result<Option<Claimed>> {
    let until = time::nanos("until", time::after("until", now, lease)?)?;
    let now = time::nanos("now", now)?;
    let sql = "SELECT doc, next_run_at, last_run_at FROM skills \
               WHERE next_run_at <= ?1 AND (lease_until IS NULL OR lease_until <= ?1) \
               ORDER BY next_run_at, id LIMIT 1";
    let found = connection.prepare_cached(sql)?.query_one([now], |row| Ok(read::skill(row))).optional()?;
    let Some(skill): Option<Arc<Skill>> = found.transpose()? else { return Ok(None) };
    let sql = "UPDATE counter SET value = value + 1 RETURNING value";
    let token: i64 = connection.prepare_cached(sql)?.query_one([], |row| row.get(0))?;
    let sql = "UPDATE skills SET lease_worker = ?2, lease_until = ?3, lease_token = ?4 WHERE id = ?1";
    one(execute(connection, sql, params![skill.id.as_str(), worker.as_str(), until, token])?)?;
    Ok(Some(Claimed { skill, token: LeaseToken(token.cast_unsigned()) }))
}

pub(super) fn finish_claim(
    connection: &Connection,
    claimed: &Claimed,
    now: DateTime<Utc>,
    next: DateTime<Utc>,
) -> Result<()> {
    let sql = "UPDATE skills SET last_run_at = ?3, next_run_at = ?4, lease_worker = NULL, lease_until = NULL, \
               lease_token = NULL WHERE id = ?1 AND lease_token = ?2 AND lease_until > ?3";
    let (now, next) = (time::nanos("now", now)?, time::nanos("next", next)?);
    let params = params![claimed.skill.id.as_str(), claimed.token.0.cast_signed(), now, next];
    one(execute(connection, sql, params)?)
}
