//! Run audit: runs and their events.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rusqlite::types::Value;
use rusqlite::{Row, params, params_from_iter};
use store_api::audit::{self, Summing};
use store_api::{
    AgentId, AuditStore, ChannelId, Entity, Error, Event, Finish, GroupBy, List, NewEvent, NewRun, Page,
    PageRequest, PurgeReport, Result, Run, RunFilter, RunId, RunOutcome, RunStatus, SkillId, SummaryRow,
    rules, time,
};
use store_api::{json, page::MAX_PAGE};

use crate::sums;
use crate::tx::{Onward, Tx, column, document, next, start, text};

/// Where a run stands in the order of every list of runs.
type Position = (i64, RunId);

fn key(id: &str) -> String {
    format!("runs/{id}")
}

fn not_found(id: &RunId) -> Error {
    Error::not_found(Entity::Run, id.as_str())
}

/// A run from the columns `id, sum, doc`.
pub(crate) fn read_run(row: &Row<'_>) -> Result<Run> {
    read_run_as(text(row, 0)?, row)
}

/// The run `id` from the columns `sum, doc`, which are the second and third. Another run has another sum.
fn read_run_as(id: &str, row: &Row<'_>) -> Result<Run> {
    json::decode(|| key(id), run_document(id, row)?)
}

/// The document of the run `id` from the same columns.
fn run_document<'r>(id: &str, row: &'r Row<'_>) -> Result<&'r str> {
    let doc = document(|| key(id), row, 2)?;
    sums::check(|| key(id), column(row, 1)?, sums::run(id, doc))?;
    Ok(doc)
}

/// An event from the columns `run, seq, kind, at, sum, payload`.
pub(crate) fn read_event(row: &Row<'_>) -> Result<Event> {
    let (run, seq, at): (_, i64, i64) = (text(row, 0)?, column(row, 1)?, column(row, 3)?);
    let what = || format!("events/{run}/{seq}");
    let (kind, payload) = (document(what, row, 2)?, document(what, row, 5)?);
    sums::check(what, column(row, 4)?, sums::event(run, seq, kind, at, payload))?;
    let run = RunId::new(run).map_err(|e| sums::damaged(what, &e))?;
    let payload = json::decode(what, payload)?;
    let content = NewEvent { kind: kind.to_owned(), at: time::from_nanos(at), payload };
    Ok(Event { run, seq: seq.cast_unsigned(), content })
}

/// An event that an index gave for `run`, and its place among those: a damaged one leads to events of other runs too,
/// which are sound.
pub(crate) fn read_event_of(run: &RunId, row: &Row<'_>) -> Result<(i64, Event)> {
    let event = read_event(row)?;
    if event.run == *run {
        return Ok((event.seq.cast_signed(), event));
    }
    let what = format!("events/{}/{}", event.run, event.seq);
    Err(Error::corrupt(what, format!("an index has it among the events of {run}")))
}

/// Where a run stands in the order of every list of runs, and the run.
fn read_placed_run(row: &Row<'_>) -> Result<(Position, Run)> {
    let run = read_run(row)?;
    Ok(((time::nanos("started_at", run.started_at)?, run.id.clone()), run))
}

/// The columns that are derived from a run's document: what writes store and `verify` compares.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Derived<'r> {
    pub(crate) parent: Option<&'r str>,
    pub(crate) skill: Option<&'r str>,
    pub(crate) agent: Option<&'r str>,
    pub(crate) caller: &'r str,
    pub(crate) channel: Option<&'r str>,
    pub(crate) status: &'r str,
    pub(crate) started_at: i64,
    pub(crate) finished_at: Option<i64>,
}

impl<'r> Derived<'r> {
    pub(crate) fn of(run: &'r Run) -> Result<Self> {
        let finished_at = run.finish.as_ref().map(|finish| time::nanos("finished_at", finish.finished_at));
        Ok(Derived {
            parent: run.parent.as_ref().map(RunId::as_str),
            skill: run.skill.as_ref().map(SkillId::as_str),
            agent: run.agent.as_ref().map(AgentId::as_str),
            caller: run.caller.as_str(),
            channel: run.channel.as_ref().map(ChannelId::as_str),
            status: run.status.as_str(),
            started_at: time::nanos("started_at", run.started_at)?,
            finished_at: finished_at.transpose()?,
        })
    }
}

/// A query for runs: the conditions that narrow it, each bound.
struct Narrowed {
    conditions: String,
    params: Vec<Value>,
}

impl Narrowed {
    /// Every part of a filter narrows. Only the first of them may choose the index: each index ends in the order of
    /// the list, and the planner, which has no statistics, would otherwise guess. (`+` takes a column out of its
    /// consideration.)
    fn by(filter: &RunFilter) -> Result<Self> {
        let mut query = Narrowed { conditions: " WHERE true".to_owned(), params: Vec::new() };
        let wanted = [
            (filter.skill.as_ref().map(ToString::to_string), " AND skill = ?", " AND +skill = ?"),
            (filter.agent.as_ref().map(ToString::to_string), " AND agent = ?", " AND +agent = ?"),
            (filter.channel.as_ref().map(ToString::to_string), " AND channel = ?", " AND +channel = ?"),
            (filter.caller.as_ref().map(ToString::to_string), " AND caller = ?", " AND +caller = ?"),
            (filter.status.map(|status| status.to_string()), " AND status = ?", " AND +status = ?"),
        ];
        let mut indexed = false;
        for (value, by_index, by_row) in wanted {
            let Some(value) = value else { continue };
            query.add(if indexed { by_row } else { by_index }, [value.into()]);
            indexed = true;
        }
        if filter.top_level {
            query.add(if indexed { " AND +parent IS NULL" } else { " AND parent IS NULL" }, []);
        }
        if let Some(from) = filter.from {
            query.add(" AND started_at >= ?", [time::nanos("from", from)?.into()]);
        }
        Ok(query)
    }

    fn add<const N: usize>(&mut self, condition: &str, params: [Value; N]) {
        self.conditions.push_str(condition);
        self.params.extend(params);
    }

    /// Newest first, after `position` and before `to`: both are bounds from above, so the lower one is enough.
    fn newest_first(mut self, position: Option<&Position>, to: Option<DateTime<Utc>>) -> Result<Self> {
        // No id is empty, so this position lies after all runs that started at `to` and before all older ones.
        let to = to.map(|to| Ok::<_, Error>((time::nanos("to", to)?, ""))).transpose()?;
        let position = position.map(|(at, id)| (*at, id.as_str()));
        if let Some((at, id)) = [position, to].into_iter().flatten().min() {
            self.add(" AND (started_at, id) < (?, ?)", [at.into(), id.to_owned().into()]);
        }
        self.conditions.push_str(" ORDER BY started_at DESC, id DESC");
        Ok(self)
    }

    fn sql(&self) -> String {
        format!("SELECT id, sum, doc FROM runs{}", self.conditions)
    }
}

impl Tx<'_> {
    fn find_run(&self, id: &RunId) -> Result<Option<Run>> {
        let sql = "SELECT id, sum, doc FROM runs WHERE id = ?1";
        self.first(sql, [id.as_str()], |row| read_run_as(id.as_str(), row))
    }

    fn run_exists(&self, id: &RunId) -> Result<bool> {
        self.any("SELECT 1 FROM runs WHERE id = ?1", [id.as_str()])
    }

    /// Stores a run whose id must be free.
    pub(crate) fn insert_run(&self, run: &Run) -> Result<()> {
        let doc = json::encode(run)?;
        let derived = Derived::of(run)?;
        let sql = "INSERT INTO runs (id, parent, skill, agent, caller, channel, status, started_at, finished_at, \
                   sum, doc) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (id) DO NOTHING";
        let params = params![
            run.id.as_str(),
            derived.parent,
            derived.skill,
            derived.agent,
            derived.caller,
            derived.channel,
            derived.status,
            derived.started_at,
            derived.finished_at,
            sums::run(run.id.as_str(), &doc),
            doc,
        ];
        match self.execute(sql, params)? {
            1 => Ok(()),
            _ => Err(Error::already_exists(Entity::Run, "id", run.id.as_str())),
        }
    }

    /// Finishes a run; what was recorded at its start never changes.
    fn finish(&self, id: &RunId, finish: &Finish) -> Result<()> {
        let what = || key(id.as_str());
        let sql = "SELECT rowid, sum, doc FROM runs WHERE id = ?1";
        let found = self.first(sql, [id.as_str()], |row| {
            let finished = Run::finished_document(what, run_document(id.as_str(), row)?, finish)?;
            Ok((column::<i64>(row, 0)?, finished))
        })?;
        let (place, finished) = found.ok_or_else(|| not_found(id))?;
        let Some(doc) = finished else { return Ok(()) };
        let (status, sum) = (RunStatus::from(finish.outcome).as_str(), sums::run(id.as_str(), &doc));
        let finished_at = time::nanos("finished_at", finish.finished_at)?;
        let sql = "UPDATE runs SET status = ?2, finished_at = ?3, sum = ?4, doc = ?5 WHERE rowid = ?1";
        self.change_one(what, sql, params![place, status, finished_at, sum, doc])
    }

    pub(crate) fn insert_event(&self, run: &RunId, seq: u64, event: &NewEvent) -> Result<()> {
        let payload = json::encode(&event.payload)?;
        let (seq, at) = (seq.cast_signed(), time::nanos("at", event.at)?);
        let sum = sums::event(run.as_str(), seq, &event.kind, at, &payload);
        let sql = "INSERT INTO events (run, seq, kind, at, sum, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.execute(sql, params![run.as_str(), seq, event.kind, at, sum, payload]).map(drop)
    }

    /// A page of the runs that a query gives, of those after `position` that `matches` lets through.
    fn page_of_runs(
        &self,
        list: List,
        query: Narrowed,
        position: Option<Position>,
        page: &PageRequest,
        matches: impl Fn(&Run) -> bool,
    ) -> Result<Page<Arc<Run>>> {
        let (sql, onward) = (query.sql(), Onward::falling(position));
        let found = self.take(&sql, params_from_iter(query.params), onward, page.limit() + 1, |row| {
            let (place, run) = read_placed_run(row)?;
            let started_at = place.0;
            Ok((place, matches(&run).then(|| (started_at, Arc::new(run)))))
        })?;
        let position = |(started_at, run): &(i64, Arc<Run>)| (*started_at, run.id.clone());
        Ok(Page::cut(list, page, found, position)?.map(|(_, run)| run))
    }

    /// The ids of all runs that running ones need, found by looking at one run at a time.
    fn needed(&self) -> Result<std::collections::HashSet<RunId>> {
        let mut statement = self.statement("SELECT id, sum, doc FROM runs WHERE status = 'running'")?;
        let mut rows = start(&mut statement, [])?;
        let mut failure = None;
        let running =
            std::iter::from_fn(|| match next(&mut rows).and_then(|row| row.map(read_run).transpose()) {
                Ok(run) => run.map(Arc::new),
                Err(error) => {
                    failure = Some(error);
                    None
                }
            });
        let needed = audit::needed(running, |id| Ok(self.find_run(id)?.map(Arc::new)))?;
        failure.map_or(Ok(needed), Err)
    }

    fn delete_run(&self, id: &RunId) -> Result<u64> {
        let sql = "DELETE FROM events WHERE run = ?1 RETURNING run = ?1";
        let events = self.change(|| key(id.as_str()), sql, [id.as_str()])?;
        let sql = "DELETE FROM runs WHERE id = ?1 RETURNING id = ?1";
        self.change(|| key(id.as_str()), sql, [id.as_str()])?;
        Ok(events as u64)
    }

    fn count_events(&self, id: &RunId) -> Result<u64> {
        let sql = "SELECT count(*) FROM events WHERE run = ?1";
        let found = self.first(sql, [id.as_str()], |row| column::<i64>(row, 0))?;
        Ok(found.unwrap_or_default().cast_unsigned())
    }
}

impl AuditStore for Tx<'_> {
    fn start_run(&self, run: &NewRun) -> Result<Arc<Run>> {
        run.validate()?;
        let run = Run::started(run.clone());
        self.insert_run(&run)?;
        Ok(Arc::new(run))
    }

    fn finish_run(&self, id: &RunId, finish: &Finish) -> Result<()> {
        finish.validate()?;
        self.finish(id, finish)
    }

    fn append_event(&self, run: &RunId, event: &NewEvent) -> Result<u64> {
        event.validate()?;
        let sql = "SELECT run, seq FROM events WHERE run = ?1 ORDER BY seq DESC";
        let last = self.first(sql, [run.as_str()], |row| match text(row, 0)? {
            found if found == run.as_str() => column::<i64>(row, 1),
            found => Err(Error::corrupt(key(run.as_str()), format!("an index leads to events of {found:?}"))),
        })?;
        // A run that has an event is there: SQLite keeps each event's reference to it.
        if last.is_none() && !self.run_exists(run)? {
            return Err(not_found(run));
        }
        let seq = rules::next_seq(last.unwrap_or_default().cast_unsigned())?;
        self.insert_event(run, seq, event)?;
        Ok(seq)
    }

    fn run(&self, id: &RunId) -> Result<Option<Arc<Run>>> {
        Ok(self.find_run(id)?.map(Arc::new))
    }

    fn events(&self, run: &RunId, page: &PageRequest) -> Result<Page<Arc<Event>>> {
        let after: i64 = page.position(List::Events)?.unwrap_or_default();
        let sql =
            "SELECT run, seq, kind, at, sum, payload FROM events WHERE run = ?1 AND seq > ?2 ORDER BY seq";
        let (params, onward) = (params![run.as_str(), after], Onward::rising(Some(after)));
        self.page(List::Events, sql, params, onward, page.limit(), |row| {
            let (seq, event) = read_event_of(run, row)?;
            Ok((seq, Arc::new(event)))
        })
    }

    fn runs(&self, filter: &RunFilter, page: &PageRequest) -> Result<Page<Arc<Run>>> {
        let position: Option<Position> = page.position(List::Runs)?;
        filter.validate()?;
        let query = Narrowed::by(filter)?.newest_first(position.as_ref(), filter.to)?;
        self.page_of_runs(List::Runs, query, position, page, |run| filter.matches(run))
    }

    fn children(&self, id: &RunId, page: &PageRequest) -> Result<Page<Arc<Run>>> {
        let position: Option<Position> = page.position(List::Children)?;
        let mut query = Narrowed::by(&RunFilter::default())?;
        query.add(" AND parent = ?", [id.to_string().into()]);
        let query = query.newest_first(position.as_ref(), None)?;
        self.page_of_runs(List::Children, query, position, page, |run| run.parent.as_ref() == Some(id))
    }

    fn ancestors(&self, id: &RunId) -> Result<Vec<Arc<Run>>> {
        self.one_moment()?;
        audit::ancestors(id, |id| Ok(self.find_run(id)?.map(Arc::new)))
    }

    fn last_run_of(&self, skills: &[SkillId]) -> Result<Vec<Arc<Run>>> {
        let sql = "SELECT id, sum, doc FROM runs WHERE skill = ?1 ORDER BY started_at DESC, id DESC";
        let mut found = Vec::new();
        self.one_moment()?;
        for skill in rules::distinct("skills", skills)? {
            found.extend(self.take(sql, [skill.as_str()], Onward::falling(None), 1, |row| {
                let (place, run) = read_placed_run(row)?;
                Ok((place, (run.skill.as_ref() == Some(&skill)).then(|| Arc::new(run))))
            })?);
        }
        Ok(found)
    }

    fn summary(&self, filter: &RunFilter, group_by: GroupBy, page: &PageRequest) -> Result<Page<SummaryRow>> {
        page.position::<Option<String>>(List::Summary)?;
        filter.validate()?;
        let query = Narrowed::by(filter)?.newest_first(None, filter.to)?;
        let mut summing = Summing::new(filter, group_by);
        let sql = query.sql();
        let params = params_from_iter(query.params);
        self.walk(&sql, params, Onward::falling(None), read_placed_run, |run| {
            summing.add(&run);
            Ok(())
        })?;
        summing.page(page)
    }

    fn abandon_stale(&self, before: DateTime<Utc>, now: DateTime<Utc>, max: usize) -> Result<Vec<RunId>> {
        rules::check_max(max)?;
        let nanos = time::nanos("before", before)?;
        time::nanos("now", now)?;
        let sql = "SELECT id, sum, doc FROM runs WHERE status = 'running' AND started_at < ?1 \
                   ORDER BY started_at, id";
        let stale = self.take(sql, [nanos], Onward::rising(None), max, |row| {
            let (place, run) = read_placed_run(row)?;
            Ok((place, audit::is_stale(&run, before).then(|| run.id.clone())))
        })?;
        let finish = Finish::new(RunOutcome::Abandoned, now);
        stale.iter().try_for_each(|id| self.finish(id, &finish))?;
        Ok(stale)
    }

    fn purge_before(&self, before: DateTime<Utc>, dry_run: bool) -> Result<PurgeReport> {
        let nanos = time::nanos("before", before)?;
        let needed = self.needed()?;
        let mut report = PurgeReport::default();
        // By pages of ids, so that no query is open on the table while rows leave it.
        let sql = "SELECT id FROM runs WHERE id > ?1 AND finished_at < ?2 ORDER BY id";
        let mut last: Option<RunId> = None;
        loop {
            let params = params![last.as_ref().map_or("", RunId::as_str), nanos];
            let ids = self.take(sql, params, Onward::rising(last.clone()), MAX_PAGE, |row| {
                let id = text(row, 0)?;
                let id = RunId::new(id).map_err(|e| sums::damaged(|| key(id), &e))?;
                Ok((id.clone(), Some(id)))
            })?;
            last = ids.last().cloned();
            if last.is_none() {
                return Ok(report);
            }
            for id in &ids {
                if !self.find_run(id)?.is_some_and(|run| audit::is_purgeable(&run, before)) {
                    continue;
                }
                if needed.contains(id) {
                    report.kept += 1;
                    continue;
                }
                report.runs += 1;
                report.events += if dry_run { self.count_events(id)? } else { self.delete_run(id)? };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use store_api::{PrincipalId, RunStatus};

    use super::*;
    use crate::connection::plan;

    /// Each filter alone pages by its own index, in the order of the list, and sorts nothing.
    #[test]
    fn every_filter_pages_by_an_index() {
        let text = "x".to_owned();
        let with = |set: &dyn Fn(&mut RunFilter)| {
            let mut filter = RunFilter::default();
            set(&mut filter);
            filter
        };
        let cases = [
            (with(&|_| ()), "runs_started"),
            (with(&|f| f.skill = SkillId::new(&text).ok()), "runs_skill"),
            (with(&|f| f.agent = store_api::AgentId::new(&text).ok()), "runs_agent"),
            (with(&|f| f.caller = PrincipalId::new(&text).ok()), "runs_caller"),
            (with(&|f| f.channel = store_api::ChannelId::new(&text).ok()), "runs_channel"),
            (with(&|f| f.status = Some(RunStatus::Running)), "runs_status"),
            (with(&|f| f.top_level = true), "runs_top"),
            (with(&|f| f.from = Some(time::from_nanos(1))), "runs_started"),
            (with(&|f| f.to = Some(time::from_nanos(1))), "runs_started"),
        ];
        for (filter, index) in cases {
            for position in [None, Some((5, RunId::new(&text).unwrap()))] {
                let query =
                    Narrowed::by(&filter).unwrap().newest_first(position.as_ref(), filter.to).unwrap();
                let plan = plan(&query.sql());
                assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{filter:?}: {plan}");
            }
        }
        for (sql, index) in [
            (
                "SELECT id, sum, doc FROM runs WHERE true AND parent = ? ORDER BY started_at DESC, id DESC",
                "runs_parent",
            ),
            (
                "SELECT id, sum, doc FROM runs WHERE skill = ?1 ORDER BY started_at DESC, id DESC LIMIT 1",
                "runs_skill",
            ),
            (
                "SELECT id, sum, doc FROM runs WHERE status = 'running' AND started_at < ?1 ORDER BY started_at, id",
                "runs_status",
            ),
            ("SELECT id FROM runs WHERE id > ?1 AND finished_at < ?2 ORDER BY id", "sqlite_autoindex_runs_1"),
        ] {
            let plan = plan(sql);
            assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{sql}: {plan}");
        }
    }

    #[test]
    fn two_filters_take_the_index_of_the_first() {
        let mut filter =
            RunFilter { status: Some(RunStatus::Succeeded), top_level: true, ..RunFilter::default() };
        filter.caller = PrincipalId::new("c").ok();
        let plan = plan(&Narrowed::by(&filter).unwrap().newest_first(None, None).unwrap().sql());
        assert!(plan.contains("runs_caller"), "{plan}");
    }
}
