//! What is asked of a connection, decoded.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};
use store_api::{
    Amount, Name, PrincipalId, Run, RunId, RunState, RunStatus, Skill, SkillId, SummaryRow, Tokens, Version,
    time,
};

use crate::subject::{Position, Result, Versions};

/// A skill from `doc, next_run_at, last_run_at`.
pub(super) fn skill(row: &Row<'_>) -> Result<Arc<Skill>> {
    let mut skill: Skill = serde_json::from_str(row.get_ref(0)?.as_str()?)?;
    if let Some(schedule) = &mut skill.schedule {
        let next_run_at = row.get::<_, Option<i64>>(1)?.map(time::from_nanos);
        let last_run_at = row.get::<_, Option<i64>>(2)?.map(time::from_nanos);
        schedule.set_run_state(RunState { next_run_at, last_run_at, lease: None });
    }
    Ok(Arc::new(skill))
}

/// A run from `status, start, finish`.
fn run(row: &Row<'_>) -> Result<Arc<Run>> {
    let status: RunStatus = row.get_ref(0)?.as_str()?.parse()?;
    let start = serde_json::from_str(row.get_ref(1)?.as_str()?)?;
    let finish = row.get_ref(2)?.as_str_or_null()?.map(serde_json::from_str).transpose()?;
    Ok(Arc::new(Run { status, finish, start }))
}

/// Several statements on one moment.
pub(super) fn snapshot<T>(connection: &Connection, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    connection.prepare_cached("BEGIN")?.execute([])?;
    let done = work(connection);
    connection.prepare_cached("COMMIT")?.execute([])?;
    done
}

pub(super) fn skill_by_id(connection: &Connection, id: &SkillId) -> Result<Arc<Skill>> {
    let sql = "SELECT doc, next_run_at, last_run_at FROM skills WHERE id = ?1";
    connection.prepare_cached(sql)?.query_one([id.as_str()], |row| Ok(skill(row)))?
}

pub(super) fn skill_by_name(connection: &Connection, owner: &PrincipalId, name: &Name) -> Result<Arc<Skill>> {
    let sql = "SELECT doc, next_run_at, last_run_at FROM skills WHERE owner = ?1 AND name = ?2";
    connection.prepare_cached(sql)?.query_one([owner.as_str(), name.as_str()], |row| Ok(skill(row)))?
}

pub(super) fn versions(
    connection: &Connection,
    id: &SkillId,
    limit: usize,
    after: Option<&Position>,
) -> Result<Versions> {
    let before = match after {
        None => i64::MAX,
        Some(Position::Before(seq)) => seq.cast_signed(),
        Some(Position::Cursor(_)) => return Err("a position of another list".into()),
    };
    let sql = "SELECT seq, doc FROM versions WHERE skill = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![id.as_str(), before, i64::try_from(limit)?])?;
    let mut found = Vec::with_capacity(limit);
    while let Some(row) = rows.next()? {
        let content = serde_json::from_str(row.get_ref(1)?.as_str()?)?;
        found.push(Arc::new(Version { seq: row.get::<_, i64>(0)?.cast_unsigned(), content }));
    }
    let last = found.last().map(|version| Position::Before(version.seq));
    let next = last.filter(|_| found.len() == limit);
    Ok((found, next))
}

pub(super) fn due(connection: &Connection, now: DateTime<Utc>, limit: usize) -> Result<Vec<Arc<Skill>>> {
    let sql = "SELECT doc, next_run_at, last_run_at FROM skills WHERE next_run_at <= ?1 \
               ORDER BY next_run_at, id LIMIT ?2";
    due_by(connection, sql, now, limit, skill)
}

/// With the lease, and the id, and a number in the place of the revision and of each of two checksums.
pub(super) fn due_wide(connection: &Connection, now: DateTime<Utc>, limit: usize) -> Result<Vec<Arc<Skill>>> {
    let sql = "SELECT doc, next_run_at, last_run_at, id, lease_worker, lease_until, lease_token, \
                 last_seq, last_seq, last_seq \
               FROM skills WHERE next_run_at <= ?1 ORDER BY next_run_at, id LIMIT ?2";
    due_by(connection, sql, now, limit, |row| {
        let skill = skill(row)?;
        let lease: (Option<i64>, Option<i64>) = (row.get(5)?, row.get(6)?);
        let numbers: [i64; 3] = [row.get(7)?, row.get(8)?, row.get(9)?];
        black_box((row.get_ref(3)?.as_str()?, row.get_ref(4)?.as_str_or_null()?, lease, numbers));
        Ok(skill)
    })
}

fn due_by(
    connection: &Connection,
    sql: &str,
    now: DateTime<Utc>,
    limit: usize,
    read: impl Fn(&Row<'_>) -> Result<Arc<Skill>>,
) -> Result<Vec<Arc<Skill>>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![time::nanos("now", now)?, i64::try_from(limit)?])?;
    let mut found = Vec::with_capacity(limit);
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

pub(super) fn run_by_id(connection: &Connection, id: &RunId) -> Result<Option<Arc<Run>>> {
    let sql = "SELECT status, start, finish FROM runs WHERE id = ?1";
    connection.prepare_cached(sql)?.query_one([id.as_str()], |row| Ok(run(row))).optional()?.transpose()
}

pub(super) fn ancestors(connection: &Connection, id: &RunId) -> Result<Vec<Arc<Run>>> {
    let mut next = run_by_id(connection, id)?.ok_or("no such run")?.parent.clone();
    let mut found = Vec::new();
    while let Some(parent) = next.take() {
        let Some(run) = run_by_id(connection, &parent)? else { break };
        next = run.parent.clone();
        found.push(run);
    }
    Ok(found)
}

pub(super) fn last_runs(connection: &Connection, skills: &[SkillId]) -> Result<Vec<Arc<Run>>> {
    let sql =
        "SELECT status, start, finish FROM runs WHERE skill = ?1 ORDER BY started_at DESC, id DESC LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = Vec::with_capacity(skills.len());
    for skill in skills {
        found.extend(statement.query_one([skill.as_str()], |row| Ok(run(row))).optional()?.transpose()?);
    }
    Ok(found)
}

pub(super) fn summary(connection: &Connection) -> Result<Vec<SummaryRow>> {
    let sql = "SELECT skill, status, count(*), sum(finished_at - started_at), sum(input_tokens), \
               sum(output_tokens), sum(cost) FROM runs GROUP BY skill, status ORDER BY skill, status";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut groups: BTreeMap<Option<String>, SummaryRow> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let group: Option<String> = row.get(0)?;
        let status: RunStatus = row.get_ref(1)?.as_str()?.parse()?;
        let number = |at| row.get::<_, Option<i64>>(at).map(|n| n.unwrap_or_default().cast_unsigned());
        let of_group = groups.entry(group.clone()).or_default();
        of_group.group = group;
        of_group.runs += number(2)?;
        of_group.by_status.insert(status, number(2)?);
        of_group.duration_nanos += number(3)?;
        of_group.tokens =
            Tokens { input: of_group.tokens.input + number(4)?, output: of_group.tokens.output + number(5)? };
        of_group.cost = of_group.cost.saturating_add(Amount::from_micros(number(6)?)?);
    }
    Ok(groups.into_values().take(store_api::page::MAX_PAGE).collect())
}
