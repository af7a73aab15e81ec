//! Run audit: runs, the lists they are in, and their events.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use store_api::audit::{self, Summing};
use store_api::{
    AuditStore, Entity, Error, Event, Finish, GroupBy, List, NewEvent, NewRun, Page, PageRequest,
    PurgeReport, Result, Run, RunFilter, RunId, RunOutcome, RunStatus, SkillId, SummaryRow, rules, time,
};

use crate::index;
use crate::keys::{self, Fields, Key, RunList, Span};
use crate::kv::Order;
use crate::tables::{EVENTS, RUN_LISTS, RUNS};
use crate::tx::{Tx, decode, missing};
use crate::value;

/// Of the document of a run, what its place in lists is made of besides its id.
#[derive(serde::Deserialize)]
struct Started {
    started_at: DateTime<Utc>,
}

/// Where a run stands in the order of every list of runs.
type Position = (i64, RunId);

fn key(id: &RunId) -> Key {
    Key::new().text(id.as_str())
}

fn not_found(id: &RunId) -> Error {
    Error::not_found(Entity::Run, id.as_str())
}

/// The narrowest list that has every run that a filter matches.
fn list_of(filter: &RunFilter) -> Key {
    let by = |list, term: &str| keys::run_list(list, Some(term));
    if let Some(skill) = &filter.skill {
        by(RunList::Skill, skill.as_str())
    } else if let Some(agent) = &filter.agent {
        by(RunList::Agent, agent.as_str())
    } else if let Some(channel) = &filter.channel {
        by(RunList::Channel, channel.as_str())
    } else if let Some(caller) = &filter.caller {
        by(RunList::Caller, caller.as_str())
    } else if let Some(status) = filter.status {
        by(RunList::Status, status.as_str())
    } else if filter.top_level {
        keys::run_list(RunList::Parent, None)
    } else {
        keys::run_list(RunList::All, None)
    }
}

/// The part of a list that lies in the time range of a filter, before `position`.
fn span_of(list: &Key, filter: &RunFilter, position: Option<&Position>) -> Result<Span> {
    let mut span = Span::under(list);
    if let Some(from) = filter.from {
        span = span.starting(&list.clone().signed(time::nanos("from", from)?));
    }
    if let Some(to) = filter.to {
        span = span.before(&list.clone().signed(time::nanos("to", to)?));
    }
    if let Some((started_at, id)) = position {
        span = span.before(&list.clone().signed(*started_at).text(id.as_str()));
    }
    Ok(span)
}

/// Where an entry of a list says that its run stands.
fn position(entry: &[u8], _: &[u8]) -> Result<Position> {
    let mut fields = Fields::of(entry);
    fields.code()?;
    fields.optional_text()?;
    let (started_at, id) = (fields.signed()?, fields.text()?);
    fields.end()?;
    let id = RunId::new(id).map_err(|e| Error::corrupt(value::place(RUN_LISTS, entry), e.to_string()))?;
    Ok((started_at, id))
}

impl Tx<'_> {
    fn find_run(&self, id: &RunId) -> Result<Option<Run>> {
        self.record(RUNS, &key(id))
    }

    /// A run that an entry of a list leads to.
    fn listed_run(&self, id: &RunId) -> Result<Run> {
        self.find_run(id)?.ok_or_else(|| missing(RUNS, &key(id)))
    }

    /// Up to `limit` runs of a list, those that `keep` keeps.
    fn list_runs(
        &self,
        span: Span,
        order: Order,
        limit: usize,
        keep: impl Fn(&Run) -> bool,
    ) -> Result<Vec<(Position, Arc<Run>)>> {
        self.pick(RUN_LISTS, span, order, limit, position, |position| {
            let run = self.listed_run(&position.1)?;
            Ok(keep(&run).then(|| (position, Arc::new(run))))
        })
    }

    /// A page of the runs of a list, newest first, of those that `keep` keeps.
    fn page_of_runs(
        &self,
        list: List,
        span: Span,
        page: &PageRequest,
        keep: impl Fn(&Run) -> bool,
    ) -> Result<Page<Arc<Run>>> {
        let found = self.list_runs(span, Order::Backwards, page.limit() + 1, keep)?;
        let position = |(position, _): &(Position, Arc<Run>)| position.clone();
        Ok(Page::cut(list, page, found, position)?.map(|(_, run)| run))
    }

    fn running(&self) -> Result<Vec<Arc<Run>>> {
        let list = keys::run_list(RunList::Status, Some(RunStatus::Running.as_str()));
        let found = self.list_runs(Span::under(&list), Order::Forwards, usize::MAX, |_| true)?;
        Ok(found.into_iter().map(|(_, run)| run).collect())
    }

    /// Stores a run whose id is free.
    pub(crate) fn insert_run(&self, run: &Run) -> Result<()> {
        self.put_record(RUNS, &key(&run.id), run)?;
        self.reindex(&[], &index::of_run(run)?)
    }

    /// Removes a run with its events; says how many those were.
    fn delete_run(&self, run: &Run) -> Result<u64> {
        self.reindex(&index::of_run(run)?, &[])?;
        self.delete(RUNS, &key(&run.id))?;
        let mut events = 0;
        let read = |event: &[u8], _: &[u8]| Ok(event.to_vec());
        self.every(EVENTS, Span::under(&key(&run.id)), read, |event| {
            events += 1;
            self.delete(EVENTS, &event).map(drop)
        })?;
        Ok(events)
    }

    /// The seq of the last event of a run, which is how many it has.
    fn last_event(&self, run: &RunId) -> Result<u64> {
        let seq = self.take(EVENTS, Span::under(&key(run)), Order::Backwards, 1, |event, _| {
            let mut fields = Fields::of(event);
            fields.text()?;
            fields.unsigned()
        })?;
        Ok(seq.first().copied().unwrap_or_default())
    }

    pub(crate) fn put_event(&self, event: &Event) -> Result<()> {
        self.put_record(EVENTS, &keys::event(event.run.as_str(), event.seq), event)
    }

    /// Finishes a run; what was recorded at its start never changes.
    fn finish(&self, id: &RunId, finish: &Finish) -> Result<()> {
        let key = key(id);
        let found = self.read(RUNS, &key, |body| {
            let doc = value::text(RUNS, &key, body)?;
            let finished = Run::finished_document(|| value::place(RUNS, &key), doc, finish)?;
            let Some(finished) = finished else { return Ok(None) };
            Ok(Some((finished, decode::<Started>(RUNS, &key, body)?)))
        })?;
        let Some((doc, Started { started_at })) = found.ok_or_else(|| not_found(id))? else { return Ok(()) };
        self.put_body(RUNS, &key, doc.as_bytes())?;
        let listed = |status| index::of_status(id, started_at, status);
        self.reindex(&[listed(RunStatus::Running)?], &[listed(finish.outcome.into())?])
    }
}

impl AuditStore for Tx<'_> {
    fn start_run(&self, run: &NewRun) -> Result<Arc<Run>> {
        run.validate()?;
        if self.has(RUNS, &key(&run.id))? {
            return Err(Error::already_exists(Entity::Run, "id", run.id.as_str()));
        }
        let started = Run::started(run.clone());
        self.insert_run(&started)?;
        Ok(Arc::new(started))
    }

    fn finish_run(&self, id: &RunId, finish: &Finish) -> Result<()> {
        finish.validate()?;
        self.finish(id, finish)
    }

    fn append_event(&self, run: &RunId, event: &NewEvent) -> Result<u64> {
        event.validate()?;
        if !self.has(RUNS, &key(run))? {
            return Err(not_found(run));
        }
        let seq = rules::next_seq(self.last_event(run)?)?;
        self.put_event(&Event { run: run.clone(), seq, content: event.clone() })?;
        Ok(seq)
    }

    fn run(&self, id: &RunId) -> Result<Option<Arc<Run>>> {
        Ok(self.find_run(id)?.map(Arc::new))
    }

    fn events(&self, run: &RunId, page: &PageRequest) -> Result<Page<Arc<Event>>> {
        let mut span = Span::under(&key(run));
        if let Some(seq) = page.position::<u64>(List::Events)? {
            span = span.after(&keys::event(run.as_str(), seq));
        }
        let (found, more) = self.page(EVENTS, span, Order::Forwards, page.limit(), |key, body| {
            decode::<Event>(EVENTS, key, body).map(Arc::new)
        })?;
        Page::of(List::Events, found, more, |event| event.seq)
    }

    fn runs(&self, filter: &RunFilter, page: &PageRequest) -> Result<Page<Arc<Run>>> {
        let position = page.position(List::Runs)?;
        filter.validate()?;
        let span = span_of(&list_of(filter), filter, position.as_ref())?;
        self.page_of_runs(List::Runs, span, page, |run| filter.matches(run))
    }

    fn children(&self, id: &RunId, page: &PageRequest) -> Result<Page<Arc<Run>>> {
        let position = page.position(List::Children)?;
        let list = keys::run_list(RunList::Parent, Some(id.as_str()));
        let span = span_of(&list, &RunFilter::default(), position.as_ref())?;
        self.page_of_runs(List::Children, span, page, |_| true)
    }

    fn ancestors(&self, id: &RunId) -> Result<Vec<Arc<Run>>> {
        audit::ancestors(id, |id| self.run(id))
    }

    fn last_run_of(&self, skills: &[SkillId]) -> Result<Vec<Arc<Run>>> {
        let mut last = Vec::new();
        for skill in rules::distinct("skills", skills)? {
            let list = keys::run_list(RunList::Skill, Some(skill.as_str()));
            let newest = self.list_runs(Span::under(&list), Order::Backwards, 1, |_| true)?;
            last.extend(newest.into_iter().map(|(_, run)| run));
        }
        Ok(last)
    }

    fn summary(&self, filter: &RunFilter, group_by: GroupBy, page: &PageRequest) -> Result<Page<SummaryRow>> {
        page.position::<Option<String>>(List::Summary)?;
        filter.validate()?;
        let mut summing = Summing::new(filter, group_by);
        self.every(RUN_LISTS, span_of(&list_of(filter), filter, None)?, position, |(_, id)| {
            summing.add(&self.listed_run(&id)?);
            Ok(())
        })?;
        summing.page(page)
    }

    fn abandon_stale(&self, before: DateTime<Utc>, now: DateTime<Utc>, max: usize) -> Result<Vec<RunId>> {
        rules::check_max(max)?;
        let nanos = time::nanos("before", before)?;
        time::nanos("now", now)?;
        let list = keys::run_list(RunList::Status, Some(RunStatus::Running.as_str()));
        let span = Span::under(&list).before(&list.clone().signed(nanos));
        let stale = self.list_runs(span, Order::Forwards, max, |run| audit::is_stale(run, before))?;
        let finish = Finish::new(RunOutcome::Abandoned, now);
        let abandon = |((_, id), _): (Position, Arc<Run>)| self.finish(&id, &finish).map(|()| id);
        stale.into_iter().map(abandon).collect()
    }

    fn purge_before(&self, before: DateTime<Utc>, dry_run: bool) -> Result<PurgeReport> {
        time::nanos("before", before)?;
        let needed = audit::needed(self.running()?, |id| self.run(id))?;
        let mut report = PurgeReport::default();
        let read = |key: &[u8], body: &[u8]| {
            let run: Run = decode(RUNS, key, body)?;
            Ok(audit::is_purgeable(&run, before).then_some(run))
        };
        self.every(RUNS, Span::all(), read, |purgeable| {
            let Some(run) = purgeable else { return Ok(()) };
            if needed.contains(&run.id) {
                report.kept += 1;
                return Ok(());
            }
            report.runs += 1;
            report.events += if dry_run { self.last_event(&run.id)? } else { self.delete_run(&run)? };
            Ok(())
        })?;
        Ok(report)
    }
}
