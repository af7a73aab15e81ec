//! The seams of a saboteur: those of the tiny engine, bent in one place.

use std::cell::Cell;
use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use store_api::budget::Charging;
use store_api::page::{self, MAX_PAGE};
use store_api::*;

use super::{Fault, Sabotaged, everything, swallow};

pub(super) type Time = DateTime<Utc>;

/// A transaction of a saboteur.
pub(super) struct Bent<'a> {
    pub(super) store: &'a Sabotaged,
    pub(super) tx: &'a dyn EngineTx,
    /// The store as it was before this writer waited for its turn.
    pub(super) old: &'a dyn EngineTx,
    /// Whether something was written here: then what is old is no longer what a careless engine has in hand.
    pub(super) touched: Cell<bool>,
}

const NANO: TimeDelta = TimeDelta::nanoseconds(1);

fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Conflict { .. })
}

fn to_millis(time: Time) -> Time {
    time.trunc_subsecs(3)
}

impl Bent<'_> {
    fn is(&self, fault: Fault) -> bool {
        self.store.is(fault)
    }

    /// What an engine sees that reads before it locks.
    fn before(&self) -> &dyn EngineTx {
        if self.touched.replace(true) { self.tx } else { self.old }
    }

    fn catalog<D: Definition>(&self) -> &dyn Catalog<D> {
        D::catalog(self.tx)
    }

    /// A document on its way in.
    fn bend<D: Definition>(&self, doc: &D) -> Result<D> {
        let mut value = serde_json::to_value(doc).map_err(|e| Error::backend("encoding", e))?;
        if self.is(Fault::UnknownDropped)
            && let Some(map) = value.as_object_mut()
        {
            map.retain(|key, _| D::FIELDS.contains(&key.as_str()));
        }
        if self.is(Fault::BodyTrimmed) {
            for field in ["body", "prompt"] {
                if let Some(text) = value.get_mut(field) {
                    *text = text.as_str().unwrap_or_default().trim().into();
                }
            }
        }
        let mut doc: D = serde_json::from_value(value).map_err(|e| Error::backend("decoding", e))?;
        if self.is(Fault::NanosTruncated)
            && let Some(schedule) = doc.schedule_mut()
        {
            schedule.next_run_at = schedule.next_run_at.map(to_millis);
        }
        Ok(doc)
    }

    fn bends_documents(&self) -> bool {
        [Fault::UnknownDropped, Fault::BodyTrimmed, Fault::NanosTruncated].iter().any(|fault| self.is(*fault))
    }

    /// A version on its way out.
    fn bend_version<D: Definition>(&self, version: Arc<Version<D>>) -> Result<Arc<Version<D>>> {
        if self.is(Fault::SnapshotFollowsSave)
            && let Some(stored) = self.catalog::<D>().get(version.snapshot.id())?
        {
            let mut version = Version::clone(&version);
            version.content.snapshot = rules::without_run_state(&*stored.doc).into_owned();
            return Ok(Arc::new(version));
        }
        Ok(version)
    }

    fn remember_name<D: Definition>(&self, doc: &D) {
        let key = (D::KIND, doc.owner().clone(), doc.name().to_string());
        self.store.memory.lock().names.insert(key, doc.id().as_ref().to_owned());
    }

    /// Writes a version under a number of the saboteur's own choice.
    fn put_version<D: Definition>(&self, new: &NewVersion<D>, seq: u64) -> Result<Arc<Version<D>>> {
        let content =
            NewVersion { snapshot: rules::without_run_state(&new.snapshot).into_owned(), ..new.clone() };
        let version = Version { seq, content };
        self.tx.put(D::version_record(version.clone()))?;
        Ok(Arc::new(version))
    }

    /// A page with its order or its end bent.
    fn bend_page<T>(&self, mut page: Page<T>) -> Page<T> {
        if self.is(Fault::PagesUnsorted) {
            page.items.reverse();
        }
        if self.is(Fault::BoundaryDropped) && page.next.is_some() {
            page.items.pop();
        }
        page
    }

    /// The ledger of an account as `tx` has it.
    fn ledger(tx: &dyn EngineTx, account: &Account) -> Result<Ledger> {
        let mut records = everything(tx)?.into_iter();
        let found = records.find_map(|record| match record {
            Record::Account(record) if record.account == *account => Some(record.ledger),
            _ => None,
        });
        Ok(found.unwrap_or_default())
    }

    fn put_ledger(&self, account: &Account, ledger: Ledger) -> Result<()> {
        self.tx.put(Record::Account(AccountRecord { account: account.clone(), ledger }))
    }

    /// Whether this is a snapshot that reads what was committed after it began.
    fn sees_later(&self) -> bool {
        self.is(Fault::SnapshotSeesLater) && std::ptr::addr_eq(self.tx, self.old)
    }

    fn is_hidden(&self, id: &RunId) -> bool {
        self.store.memory.lock().hidden.contains(id)
    }
}

/// Hands calls on as they are.
macro_rules! pass {
    (catalog of $d:ident => $(fn $method:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        $(fn $method(&self, $($arg: $type),*) -> Result<$out> {
            self.catalog::<$d>().$method($($arg),*)
        })*
    };
    ($seam:ident => $(fn $method:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        $(fn $method(&self, $($arg: $type),*) -> Result<$out> {
            self.tx.$seam().$method($($arg),*)
        })*
    };
}

impl Seams for Bent<'_> {
    fn skills(&self) -> &dyn SkillStore {
        self
    }
    fn agents(&self) -> &dyn AgentStore {
        self
    }
    fn budgets(&self) -> &dyn BudgetStore {
        self
    }
    fn audit(&self) -> &dyn AuditStore {
        self
    }
    fn checkpoints(&self) -> &dyn CheckpointStore {
        self
    }
}

impl<D: Definition> Catalog<D> for Bent<'_> {
    pass! { catalog of D =>
        fn get(id: &D::Id) -> Option<Stored<D>>;
        fn delete(id: &D::Id, expect: Expect) -> ();
        fn restore(version: &VersionId, expect: Expect) -> Stored<D>;
        fn pin_version(version: &VersionId, pinned: bool) -> ();
        fn prune_versions(id: &D::Id, keep: usize) -> u64;
        fn reschedule(id: &D::Id, next: Option<Time>) -> ();
        fn renew_claim(id: &D::Id, token: LeaseToken, now: Time, lease: Duration) -> Lease;
        fn release_claim(id: &D::Id, token: LeaseToken, now: Time) -> ();
    }

    fn by_name(&self, owner: &PrincipalId, name: &Name) -> Result<Option<Stored<D>>> {
        let found = self.catalog::<D>().by_name(owner, name)?;
        if found.is_none() && self.is(Fault::OldNameKept) {
            let key = (D::KIND, owner.clone(), name.to_string());
            let id = self.store.memory.lock().names.get(&key).cloned();
            return id.map_or(Ok(None), |id| self.catalog::<D>().get(&D::Id::try_from(id)?));
        }
        Ok(found)
    }

    fn list(&self, filter: &DefinitionFilter, page: &PageRequest) -> Result<Page<Stored<D>>> {
        Ok(self.bend_page(self.catalog::<D>().list(filter, page)?))
    }

    fn save(&self, doc: &D, expect: Expect) -> Result<Revision> {
        let catalog = self.catalog::<D>();
        let bent;
        let doc = if self.bends_documents() && doc.validate().is_ok() {
            bent = self.bend(doc)?;
            &bent
        } else {
            doc
        };
        let saved = catalog.save(doc, expect);
        let saved = match self.store.fault {
            Some(Fault::StaleSaveWins) => swallow(saved, is_conflict, || catalog.save(doc, Expect::Any)),
            // An old revision is one of a definition that was deleted since: nothing newer than it was compared.
            Some(Fault::RevisionReused) => swallow(saved, is_conflict, || {
                let versions = catalog.latest(doc.id())?;
                match versions {
                    None => catalog.save(doc, Expect::Any),
                    Some(_) => catalog.save(doc, expect),
                }
            }),
            _ => saved,
        }?;
        self.remember_name(doc);
        Ok(saved)
    }

    fn update(&self, id: &D::Id, edit: Edit<'_, D>) -> Result<Stored<D>> {
        let catalog = self.catalog::<D>();
        if !self.is(Fault::RefusedEditStored) {
            let stored = catalog.update(id, edit)?;
            self.remember_name(&*stored.doc);
            return Ok(stored);
        }
        let mut failed = None;
        let stored = catalog.update(id, &mut |doc| {
            failed = edit(doc).err();
            Ok(())
        })?;
        failed.map_or(Ok(stored), Err)
    }

    fn append_version(&self, version: &NewVersion<D>) -> Result<Arc<Version<D>>> {
        let catalog = self.catalog::<D>();
        let id = version.snapshot.id();
        let newest = |catalog: &dyn Catalog<D>| Ok(catalog.latest(id)?.map_or(0, |version| version.seq));
        let can_append = || Ok(catalog.get(id)?.is_some() && version.validate().is_ok());
        match self.store.fault {
            Some(Fault::SeqFromNewest) if can_append()? => self.put_version(version, newest(catalog)? + 1),
            Some(Fault::UnguardedMax) if can_append()? => {
                self.put_version(version, newest(D::catalog(self.before()))? + 1)
            }
            Some(Fault::ReadErrorSwallowed) if can_append()? => {
                let mut memory = self.store.memory.lock();
                memory.appends += 1;
                let failed = memory.appends.is_multiple_of(3);
                drop(memory);
                if failed { self.put_version(version, 1) } else { catalog.append_version(version) }
            }
            Some(Fault::VersionIdSwallowed) => {
                let is_taken = |error: &Error| matches!(error, Error::AlreadyExists { .. });
                swallow(catalog.append_version(version), is_taken, || {
                    Ok(Arc::new(Version { seq: newest(catalog)?, content: version.clone() }))
                })
            }
            _ => catalog.append_version(version),
        }
    }

    fn versions(&self, id: &D::Id, page: &PageRequest) -> Result<Page<Arc<Version<D>>>> {
        let found = self.catalog::<D>().versions(id, page)?;
        let items = found.items.into_iter().map(|version| self.bend_version(version));
        let mut items: Vec<_> = items.collect::<Result<_>>()?;
        if self.is(Fault::VersionsByTime) {
            items.sort_by_key(|version| Reverse(version.saved_at));
        }
        Ok(self.bend_page(Page { items, next: found.next }))
    }

    fn version(&self, id: &VersionId) -> Result<Option<Arc<Version<D>>>> {
        self.catalog::<D>().version(id)?.map(|version| self.bend_version(version)).transpose()
    }

    fn latest(&self, id: &D::Id) -> Result<Option<Arc<Version<D>>>> {
        self.catalog::<D>().latest(id)?.map(|version| self.bend_version(version)).transpose()
    }

    fn publish(&self, version: &NewVersion<D>, expect: Expect) -> Result<Published<D>> {
        self.catalog::<D>().publish(version, expect)
    }

    fn due(&self, now: Time, page: &PageRequest) -> Result<Page<Stored<D>>> {
        let mut found = self.catalog::<D>().due(now, page)?;
        if self.is(Fault::DueNotMoved) {
            let memory = self.store.memory.lock();
            for (_, id, _) in memory.due.iter().filter(|(kind, _, at)| *kind == D::KIND && *at <= now) {
                found.items.extend(self.catalog::<D>().get(&D::Id::try_from(id.clone())?)?);
            }
        }
        Ok(self.bend_page(found))
    }

    fn mark_scheduled_run(&self, id: &D::Id, ran_at: Time, next: Option<Time>) -> Result<()> {
        let catalog = self.catalog::<D>();
        let stored = catalog.get(id)?;
        match (self.store.fault, stored) {
            (Some(Fault::MarkOfNothing), None) => return Ok(()),
            (Some(Fault::LastRunForgotten), _) => return catalog.reschedule(id, next),
            (Some(Fault::DueNotMoved), Some(stored)) => {
                if let Some(at) = stored.schedule().and_then(|schedule| schedule.next_run_at) {
                    self.store.memory.lock().due.push((D::KIND, id.as_ref().to_owned(), at));
                }
            }
            (Some(Fault::MarkTouchesRevision), Some(stored)) => drop(catalog.save(&stored.doc, Expect::Any)?),
            (Some(Fault::MarkDropsUnknown), Some(stored)) => {
                let value = serde_json::to_value(&*stored.doc).map_err(|e| Error::backend("encoding", e))?;
                let known = value.as_object().into_iter().flatten();
                let known = known.filter(|(key, _)| D::FIELDS.contains(&key.as_str()));
                let known = known.map(|(key, value)| (key.clone(), value.clone())).collect();
                let doc: D = serde_json::from_value(serde_json::Value::Object(known))
                    .map_err(|e| Error::backend("decoding", e))?;
                catalog.save(&doc, Expect::Any)?;
            }
            (Some(Fault::MarkIsGetChangeSave), Some(_)) => {
                if let Some(before) = D::catalog(self.before()).get(id)? {
                    catalog.save(&before.doc, Expect::Any)?;
                }
            }
            _ => {}
        }
        catalog.mark_scheduled_run(id, ran_at, next)
    }

    fn claim_due(&self, now: Time, worker: &WorkerId, lease: Duration, max: usize) -> Result<Vec<Claim<D>>> {
        let catalog = self.catalog::<D>();
        let claims = catalog.claim_due(now, worker, lease, max)?;
        if self.is(Fault::ClaimNotStored) {
            claims
                .iter()
                .try_for_each(|claim| catalog.release_claim(claim.stored.id(), claim.lease.token, now))?;
        }
        Ok(claims)
    }

    fn finish_claim(
        &self,
        id: &D::Id,
        token: LeaseToken,
        now: Time,
        ran_at: Time,
        next: Option<Time>,
    ) -> Result<()> {
        let catalog = self.catalog::<D>();
        let now = if self.is(Fault::LeaseEndOffByOne) { now - NANO } else { now };
        let finished = catalog.finish_claim(id, token, now, ran_at, next);
        if self.is(Fault::LateHolderAccepted) {
            let is_lost = |error: &Error| matches!(error, Error::LeaseLost { .. });
            return swallow(finished, is_lost, || catalog.mark_scheduled_run(id, ran_at, next));
        }
        finished
    }
}

impl AgentStore for Bent<'_> {
    pass! { agents =>
        fn by_webhook(digest: &SecretDigest) -> Option<Stored<Agent>>;
        fn by_channel(channel: &ChannelId, page: &PageRequest) -> Page<Stored<Agent>>;
    }
}

impl Bent<'_> {
    fn bend_charge(&self, charge: &Charge) -> Charge {
        match self.store.fault {
            Some(Fault::KeyChargedTwice) => Charge { key: None, ..charge.clone() },
            _ => charge.clone(),
        }
    }

    fn bend_usage(&self, account: &Account, now: Time) -> Result<Usage> {
        let budgets = self.tx.budgets();
        let window = &account.meter.window;
        match (self.store.fault, window.kind()) {
            (Some(Fault::WindowOffByOne), WindowKind::Rollover) => budgets.usage(account, now - NANO),
            (Some(Fault::BucketDroppedEarly), WindowKind::Sliding { buckets }) => {
                budgets.usage(account, now + window.length() / buckets)
            }
            (Some(Fault::LastWindowReported), _) => {
                let usage = budgets.usage(account, now)?;
                let last = Self::ledger(self.tx, account)?.buckets.last().map(|(_, used)| *used);
                let ended = usage.since.is_none();
                Ok(if ended { Usage { used: last.unwrap_or_default(), ..usage } } else { usage })
            }
            (Some(Fault::HoldNeverLapses), _) => {
                let usage = budgets.usage(account, now)?;
                let holds = Self::ledger(self.tx, account)?.holds;
                let held = holds.values().fold(Amount::ZERO, |sum, hold| sum.saturating_add(hold.amount));
                Ok(Usage { held, ..usage })
            }
            _ => budgets.usage(account, now),
        }
    }
}

impl BudgetStore for Bent<'_> {
    pass! { budgets =>
        fn reserve(reservation: &Reservation, limit: Amount, now: Time) -> Usage;
        fn settle(account: &Account, id: &ReservationId, actual: Amount, now: Time) -> Usage;
        fn release(account: &Account, id: &ReservationId, now: Time) -> Usage;
        fn reservations(account: &Account, now: Time) -> Vec<Reservation>;
        fn reset(account: &Account) -> ();
    }

    fn usage(&self, account: &Account, now: Time) -> Result<Usage> {
        self.bend_usage(account, now)
    }

    fn add(&self, charge: &Charge, now: Time) -> Result<Usage> {
        let charge = &self.bend_charge(charge);
        let Charge { account, amount, .. } = charge;
        let budgets = self.tx.budgets();
        let window = &account.meter.window;
        match self.store.fault {
            Some(Fault::OverflowSaturates) => {
                let is_too_much = |error: &Error| matches!(error, Error::InvalidInput { .. });
                swallow(budgets.add(charge, now), is_too_much, || {
                    Ok(Usage { used: Amount::MAX, ..budgets.usage(account, now)? })
                })
            }
            Some(Fault::AddIsGetChangePut) if charge.key.is_none() => {
                let mut ledger = Self::ledger(self.before(), account)?;
                match ledger.charge(window, *amount, None, None, now)? {
                    Charging::Made { usage, .. } | Charging::Replayed(usage) => {
                        self.put_ledger(account, ledger)?;
                        Ok(usage)
                    }
                }
            }
            Some(Fault::WindowInThePast) => {
                let mut ledger = Self::ledger(self.tx, account)?;
                let at = time::nanos("now", now)?;
                if ledger.buckets.last().is_some_and(|(begin, _)| at < *begin) {
                    ledger.buckets = vec![(at, *amount)];
                    self.put_ledger(account, ledger)?;
                    return budgets.usage(account, now);
                }
                budgets.add(charge, now)
            }
            _ => budgets.add(charge, now),
        }
    }

    fn admit(&self, charge: &Charge, limit: Amount, now: Time) -> Result<Usage> {
        let charge = &self.bend_charge(charge);
        if self.is(Fault::LimitCheckedEarly) {
            let before = self.before().budgets().usage(&charge.account, now)?;
            let fits = before.total().checked_add(charge.amount).is_some_and(|sum| sum <= limit);
            if fits {
                return self.tx.budgets().add(charge, now);
            }
        }
        self.tx.budgets().admit(charge, limit, now)
    }

    fn accounts(&self, now: Time, page: &PageRequest) -> Result<Page<AccountUsage>> {
        let mut found = self.tx.budgets().accounts(now, page)?;
        for item in &mut found.items {
            item.usage = self.bend_usage(&item.account, now)?;
        }
        Ok(self.bend_page(found))
    }
}

impl AuditStore for Bent<'_> {
    pass! { audit =>
        fn last_run_of(skills: &[SkillId]) -> Vec<Arc<Run>>;
        fn summary(filter: &RunFilter, group_by: GroupBy, page: &PageRequest) -> Page<SummaryRow>;
        fn abandon_stale(before: Time, now: Time, max: usize) -> Vec<RunId>;
    }

    fn start_run(&self, run: &NewRun) -> Result<Arc<Run>> {
        let mut run = run.clone();
        if self.is(Fault::NanosTruncated) {
            run.started_at = to_millis(run.started_at);
        }
        let started = self.tx.audit().start_run(&run)?;
        self.store.memory.lock().started.push(run);
        Ok(started)
    }

    fn finish_run(&self, id: &RunId, finish: &Finish) -> Result<()> {
        let finished = self.tx.audit().finish_run(id, finish);
        if !self.is(Fault::LastFinishWins) {
            return finished;
        }
        swallow(finished, is_conflict, || {
            let first = self.tx.audit().run(id)?.ok_or_else(|| Error::not_found(Entity::Run, id.as_str()))?;
            let status = finish.outcome.into();
            let run = Run { status, finish: Some(finish.clone()), start: first.start.clone() };
            self.tx.put(Record::Run(run))
        })
    }

    fn append_event(&self, run: &RunId, event: &NewEvent) -> Result<u64> {
        let known = self.tx.audit().run(run)?.is_some() && event.validate().is_ok();
        if self.is(Fault::EventSeqFromOldCount) && known {
            let before = self.before();
            let all = page::all(MAX_PAGE, |page| before.audit().events(run, page));
            let last = all.last().transpose()?.map_or(0, |event| event.seq);
            let event = Event { run: run.clone(), seq: last + 1, content: event.clone() };
            self.tx.put(Record::Event(event))?;
            return Ok(last + 1);
        }
        self.tx.audit().append_event(run, event)
    }

    fn run(&self, id: &RunId) -> Result<Option<Arc<Run>>> {
        if self.is_hidden(id) {
            return Ok(None);
        }
        if self.sees_later() {
            return self.store.inner.read(|later| later.audit().run(id));
        }
        self.tx.audit().run(id)
    }

    fn events(&self, run: &RunId, page: &PageRequest) -> Result<Page<Arc<Event>>> {
        Ok(self.bend_page(self.tx.audit().events(run, page)?))
    }

    fn runs(&self, filter: &RunFilter, page: &PageRequest) -> Result<Page<Arc<Run>>> {
        let mut found = match self.sees_later() {
            true => self.store.inner.read(|later| later.audit().runs(filter, page))?,
            false => self.tx.audit().runs(filter, page)?,
        };
        found.items.retain(|run| !self.is_hidden(&run.id));
        Ok(self.bend_page(found))
    }

    fn children(&self, id: &RunId, page: &PageRequest) -> Result<Page<Arc<Run>>> {
        Ok(self.bend_page(self.tx.audit().children(id, page)?))
    }

    fn ancestors(&self, id: &RunId) -> Result<Vec<Arc<Run>>> {
        let mut found = self.tx.audit().ancestors(id)?;
        found.retain(|run| !self.is_hidden(&run.id));
        if self.is(Fault::CycleWalked) {
            // A walk that never ends could not be tested; this one ends late.
            while let Some(parent) = found.last().and_then(|run| run.parent.clone()) {
                match self.tx.audit().run(&parent)? {
                    Some(run) if found.len() < 5_000 => found.push(run),
                    _ => break,
                }
            }
        }
        Ok(found)
    }

    fn purge_before(&self, before: Time, dry_run: bool) -> Result<PurgeReport> {
        let report = self.tx.audit().purge_before(before, dry_run)?;
        if self.is(Fault::ParentPurged) && !dry_run {
            let filter = RunFilter::default();
            for run in page::all(MAX_PAGE, |page| self.tx.audit().runs(&filter, page)) {
                let run = run?;
                if audit::is_purgeable(&run, before) {
                    self.store.memory.lock().hidden.insert(run.id.clone());
                }
            }
        }
        Ok(report)
    }
}

impl CheckpointStore for Bent<'_> {
    pass! { checkpoints =>
        fn load(run: &RunId) -> Option<Arc<Checkpoint>>;
        fn interrupted(page: &PageRequest) -> Page<Interrupted>;
        fn claim(run: &RunId, now: Time, worker: &WorkerId, lease: Duration) -> Lease;
        fn claim_interrupted(now: Time, worker: &WorkerId, lease: Duration, max: usize) -> Vec<Interrupted>;
        fn renew_claim(run: &RunId, token: LeaseToken, now: Time, lease: Duration) -> Lease;
        fn release_claim(run: &RunId, token: LeaseToken, now: Time) -> ();
    }

    fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        let checkpoints = self.tx.checkpoints();
        let saved = checkpoints.save(checkpoint);
        if self.is(Fault::StaleCheckpointWins) {
            return swallow(saved, is_conflict, || {
                checkpoints.delete(&checkpoint.run)?;
                checkpoints.save(checkpoint)
            });
        }
        saved
    }

    fn delete(&self, run: &RunId) -> Result<()> {
        if self.is(Fault::DeletedStillInterrupted) && self.tx.checkpoints().load(run)?.is_some() {
            return Ok(());
        }
        self.tx.checkpoints().delete(run)
    }
}

impl EngineTx for Bent<'_> {
    fn export(&self, sink: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
        for mut record in everything(self.tx)? {
            if self.is(Fault::LastSeqNotExported) {
                match &mut record {
                    Record::Skill(skill) => {
                        let newest = self.tx.skills().latest(&skill.doc.id)?;
                        skill.last_seq = newest.map_or(0, |version| version.seq);
                    }
                    Record::Agent(agent) => {
                        let newest = self.tx.agents().latest(&agent.doc.id)?;
                        agent.last_seq = newest.map_or(0, |version| version.seq);
                    }
                    _ => {}
                }
            }
            if self.is(Fault::ChargesNotExported) && matches!(record, Record::Charge(_)) {
                continue;
            }
            sink(record)?;
        }
        Ok(())
    }

    fn is_empty(&self) -> Result<bool> {
        self.tx.is_empty()
    }

    fn put(&self, record: Record) -> Result<()> {
        self.tx.put(record)
    }
}
