//! The smallest engine that keeps the contract: read this before you write one of your own.
//!
//! The whole store is one value, [`State`], made of ordinary maps. A reader takes a reference to the current value
//! and works on it in peace, however long it takes. A writer takes the only pen, works on a copy, and puts the copy
//! in the place of the current value when its work is done. That one idea gives atomicity, isolation and rollback:
//! work that fails or panics drops its copy, and nobody has ever seen it.
//!
//! What is missing is what makes an engine useful: it forgets everything when it is dropped, copies the whole state
//! for each write, and finds names and due times by looking at every row. What is not missing is any rule, because
//! rules are not an engine's to write: each of them is a function or a method in `store-api`, called here at the
//! moment that the contract says. An engine with files and indexes has the same calls in the same order.
//!
//! The pattern of every write is: check everything first, write after. A refusal then changes nothing by itself,
//! and needs no undo.

use std::cell::{Ref, RefCell, RefMut};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use store_api::budget::{AccountKey, ChargeKey, Charged, Charging};
use store_api::*;

type Time = DateTime<Utc>;

/// How long a writer waits for the one before it, unless the store was opened to wait otherwise.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// A store in plain maps.
#[derive(Debug)]
pub struct TinyStore {
    identity: Identity,
    /// What readers see; `None` once the store is closed. Held only to look at it or to replace it.
    current: Mutex<Option<Arc<State>>>,
    /// Held by the one writer, from before it reads until its copy is in place.
    pen: Mutex<()>,
    wait: Duration,
}

impl Default for TinyStore {
    fn default() -> Self {
        TinyStore::new(DEFAULT_WAIT)
    }
}

impl TinyStore {
    /// An empty store, whose writers wait for each other as long as `wait`.
    pub fn new(wait: Duration) -> Self {
        TinyStore {
            identity: Identity::new(),
            current: Mutex::new(Some(Arc::default())),
            pen: Mutex::new(()),
            wait,
        }
    }

    fn current(&self) -> Result<Arc<State>> {
        self.current.lock().clone().ok_or(Error::Closed)
    }
}

impl Transactional for TinyStore {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read<R>(&self, work: impl FnOnce(&dyn EngineTx) -> Result<R>) -> Result<R> {
        work(&Tx::on(self.current()?))
    }

    fn write<R>(&self, work: impl FnOnce(&dyn EngineTx) -> Result<R>) -> Result<R> {
        let busy = || Error::Busy { waited: self.wait, holder: "another writer".into() };
        let _pen = self.pen.try_lock_for(self.wait).ok_or_else(busy)?;
        let tx = Tx::on(self.current()?);
        let result = work(&tx)?;
        *self.current.lock() = Some(tx.state.into_inner());
        Ok(result)
    }

    fn info(&self) -> EngineInfo {
        EngineInfo {
            engine: "tiny".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            durability: Durability::Memory,
            multi_process: false,
            path: None,
            schema: 1,
        }
    }

    /// There is one copy of everything and no index beside it, so there is nothing that could disagree.
    fn verify(&self) -> Result<Verification> {
        let mut found = Verification::default();
        Tx::on(self.current()?).export(&mut |record| found.check(Ok(record)).map(drop))?;
        Ok(found)
    }

    fn backup(&self, _to: &Path) -> Result<()> {
        Err(Error::Unsupported { operation: "a backup of a store without a file".into() })
    }

    fn close(&self) -> Result<()> {
        let busy =
            || Error::Busy { waited: Duration::ZERO, holder: "an open transaction or snapshot".into() };
        let _pen = self.pen.try_lock().ok_or_else(busy)?;
        let mut current = self.current.lock();
        // Whoever still reads the current state holds a reference to it beside ours.
        if current.as_ref().is_some_and(|state| Arc::strong_count(state) > 1) {
            return Err(busy());
        }
        *current = None;
        Ok(())
    }
}

/// Everything that is stored.
#[derive(Debug, Clone, Default)]
struct State {
    /// The last number that was given as a revision or a lease token.
    counter: u64,
    skills: BTreeMap<SkillId, DefinitionRow<Skill>>,
    agents: BTreeMap<AgentId, DefinitionRow<Agent>>,
    accounts: BTreeMap<AccountKey, AccountRow>,
    runs: BTreeMap<RunId, RunRow>,
    checkpoints: BTreeMap<RunId, Interrupted>,
}

/// A definition, its versions, and the last number that any version of it had: pruning must not bring one back.
#[derive(Debug, Clone)]
struct DefinitionRow<D> {
    /// The document as a host reads it, with its run state.
    stored: Stored<D>,
    last_seq: u64,
    versions: BTreeMap<u64, Arc<Version<D>>>,
}

#[derive(Debug, Clone)]
struct AccountRow {
    account: Account,
    ledger: Ledger,
    charges: BTreeMap<ChargeKey, Charged>,
}

#[derive(Debug, Clone)]
struct RunRow {
    run: Arc<Run>,
    /// The event with seq 1 comes first, and none is ever removed alone.
    events: Vec<Arc<Event>>,
}

impl State {
    /// The next number of the store-wide counter.
    fn next_number(&mut self) -> Result<u64> {
        self.counter = rules::next_seq(self.counter)?;
        Ok(self.counter)
    }

    /// Version ids are unique in the whole store, over skills and agents.
    fn check_version_id(&self, id: &VersionId) -> Result<()> {
        fn has<D: Kept>(state: &State, id: &VersionId) -> bool {
            find_version::<D>(state, id).is_some()
        }
        if has::<Skill>(self, id) || has::<Agent>(self, id) {
            return Err(Error::already_exists(Entity::Version, "id", id.as_str()));
        }
        Ok(())
    }
}

/// A kind of definition, and where the state keeps it.
trait Kept: Definition {
    fn rows(state: &State) -> &BTreeMap<Self::Id, DefinitionRow<Self>>;
    fn rows_mut(state: &mut State) -> &mut BTreeMap<Self::Id, DefinitionRow<Self>>;

    fn missing(id: &Self::Id) -> Error {
        Error::not_found(Self::KIND.entity(), id.as_ref())
    }
}

impl Kept for Skill {
    fn rows(state: &State) -> &BTreeMap<SkillId, DefinitionRow<Skill>> {
        &state.skills
    }
    fn rows_mut(state: &mut State) -> &mut BTreeMap<SkillId, DefinitionRow<Skill>> {
        &mut state.skills
    }
}

impl Kept for Agent {
    fn rows(state: &State) -> &BTreeMap<AgentId, DefinitionRow<Agent>> {
        &state.agents
    }
    fn rows_mut(state: &mut State) -> &mut BTreeMap<AgentId, DefinitionRow<Agent>> {
        &mut state.agents
    }
}

/// A transaction or a snapshot. The state is shared until the first write copies it.
struct Tx {
    state: RefCell<Arc<State>>,
}

impl Tx {
    fn on(state: Arc<State>) -> Self {
        Tx { state: RefCell::new(state) }
    }

    fn look(&self) -> Ref<'_, State> {
        Ref::map(self.state.borrow(), |state| &**state)
    }

    fn change(&self) -> RefMut<'_, State> {
        RefMut::map(self.state.borrow_mut(), Arc::make_mut)
    }
}

impl Seams for Tx {
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

/// The page of `items` after a position, in the order of their positions.
fn page<K, T>(
    list: List,
    request: &PageRequest,
    after: Option<K>,
    items: impl IntoIterator<Item = (K, T)>,
) -> Result<Page<T>>
where
    K: Ord + Serialize + DeserializeOwned,
{
    let mut found: Vec<(K, T)> =
        items.into_iter().filter(|(at, _)| after.as_ref().is_none_or(|after| at > after)).collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found.truncate(request.limit() + 1);
    Page::cut(list, request, found)
}

// Definitions: documents, versions, schedules.

fn find_version<'a, D: Kept>(state: &'a State, id: &VersionId) -> Option<&'a Arc<Version<D>>> {
    D::rows(state).values().flat_map(|row| row.versions.values()).find(|version| version.id == *id)
}

fn stored<D: Kept>(state: &State, id: &D::Id) -> Option<Stored<D>> {
    D::rows(state).get(id).map(|row| row.stored.clone())
}

/// The checks of a save that look at what is stored.
fn check_save<D: Kept>(state: &State, doc: &D, expect: Expect) -> Result<()> {
    let revision = D::rows(state).get(doc.id()).map(|row| row.stored.revision);
    rules::check_expect::<D>(doc.id(), revision, expect)?;
    check_unique(state, doc)
}

/// No other definition of the kind has the name of this owner, or the webhook.
fn check_unique<D: Kept>(state: &State, doc: &D) -> Result<()> {
    let others = || D::rows(state).values().map(|row| &row.stored).filter(|other| other.id() != doc.id());
    if others().any(|other| (other.owner(), other.name()) == (doc.owner(), doc.name())) {
        return Err(Error::already_exists(D::KIND.entity(), "name", doc.name().as_str()));
    }
    if let Some(webhook) = doc.webhook()
        && others().any(|other| other.webhook() == Some(webhook))
    {
        return Err(Error::already_exists(D::KIND.entity(), "webhook", webhook.to_string()));
    }
    Ok(())
}

/// Stores a document that was checked, under a new revision, with the run state that it comes to.
fn write_doc<D: Kept>(state: &mut State, doc: &D) -> Result<Stored<D>> {
    let revision = Revision(state.next_number()?);
    let rows = D::rows_mut(state);
    let before = rows.get(doc.id()).map(|row| &*row.stored.doc);
    let run_state = rules::run_state_after_save(before, doc).unwrap_or_default();
    let stored = Stored { doc: Arc::new(rules::assemble(doc.clone(), run_state)), revision };
    match rows.get_mut(doc.id()) {
        Some(row) => row.stored = stored.clone(),
        None => {
            let row = DefinitionRow { stored: stored.clone(), last_seq: 0, versions: BTreeMap::new() };
            rows.insert(doc.id().clone(), row);
        }
    }
    Ok(stored)
}

/// Appends a version whose id was checked to a definition that is there.
fn write_version<D: Kept>(state: &mut State, version: &NewVersion<D>) -> Result<Arc<Version<D>>> {
    let id = version.snapshot.id();
    let row = D::rows_mut(state).get_mut(id).ok_or_else(|| D::missing(id))?;
    let seq = rules::next_seq(row.last_seq)?;
    let snapshot = rules::without_run_state(&version.snapshot).into_owned();
    let version = Arc::new(Version { seq, content: NewVersion { snapshot, ..version.clone() } });
    row.last_seq = seq;
    row.versions.insert(seq, Arc::clone(&version));
    Ok(version)
}

/// The run state of a definition that is there and has a schedule.
fn run_state<D: Kept>(state: &State, id: &D::Id) -> Result<RunState> {
    let row = D::rows(state).get(id).ok_or_else(|| D::missing(id))?;
    let schedule = row.stored.schedule().ok_or_else(|| Error::not_found(Entity::Schedule, id.as_ref()))?;
    Ok(schedule.run_state())
}

/// Moves the run state and nothing else (law MARK-2).
fn set_run_state<D: Kept>(state: &mut State, id: &D::Id, new: RunState) -> Result<()> {
    let row = D::rows_mut(state).get_mut(id).ok_or_else(|| D::missing(id))?;
    row.stored.doc = Arc::new(rules::assemble(D::clone(&row.stored.doc), new));
    Ok(())
}

/// What is due at `now`, keyed by the order of due lists.
fn due<D: Kept>(state: &State, now: Time) -> impl Iterator<Item = ((Time, D::Id), &Stored<D>)> {
    D::rows(state).iter().filter_map(move |(id, row)| {
        let next = row.stored.schedule()?.next_run_at.filter(|next| *next <= now)?;
        Some(((next, id.clone()), &row.stored))
    })
}

impl<D: Kept> Catalog<D> for Tx {
    fn get(&self, id: &D::Id) -> Result<Option<Stored<D>>> {
        Ok(stored(&self.look(), id))
    }

    fn by_name(&self, owner: &PrincipalId, name: &Name) -> Result<Option<Stored<D>>> {
        let state = self.look();
        let mut all = D::rows(&state).values().map(|row| &row.stored);
        Ok(all.find(|doc| (doc.owner(), doc.name()) == (owner, name)).cloned())
    }

    fn list(&self, filter: &DefinitionFilter, request: &PageRequest) -> Result<Page<Stored<D>>> {
        let list = D::KIND.list();
        let after = request.position(list)?;
        let state = self.look();
        let found = D::rows(&state).iter().filter(|(_, row)| filter.matches(&*row.stored.doc));
        page(list, request, after, found.map(|(id, row)| (id.clone(), row.stored.clone())))
    }

    fn save(&self, doc: &D, expect: Expect) -> Result<Revision> {
        doc.validate()?;
        let mut state = self.change();
        check_save(&state, doc, expect)?;
        Ok(write_doc(&mut state, doc)?.revision)
    }

    fn update(&self, id: &D::Id, edit: &mut dyn FnMut(&mut D) -> Result<()>) -> Result<Stored<D>> {
        // The borrow of the state ends before the host's closure runs.
        let before = stored::<D>(&self.look(), id).ok_or_else(|| D::missing(id))?;
        let mut doc = D::clone(&before.doc);
        edit(&mut doc)?;
        rules::check_edit(id, &doc)?;
        doc.validate()?;
        let mut state = self.change();
        check_save(&state, &doc, Expect::Revision(before.revision))?;
        write_doc(&mut state, &doc)
    }

    fn delete(&self, id: &D::Id, expect: Expect) -> Result<()> {
        let mut state = self.change();
        let revision = D::rows(&state).get(id).map(|row| row.stored.revision);
        rules::check_delete::<D>(id, revision, expect)?;
        D::rows_mut(&mut state).remove(id);
        Ok(())
    }

    fn append_version(&self, version: &NewVersion<D>) -> Result<Arc<Version<D>>> {
        version.validate()?;
        let mut state = self.change();
        let id = version.snapshot.id();
        D::rows(&state).get(id).ok_or_else(|| D::missing(id))?;
        state.check_version_id(&version.id)?;
        write_version(&mut state, version)
    }

    fn versions(&self, id: &D::Id, request: &PageRequest) -> Result<Page<Arc<Version<D>>>> {
        let list = D::KIND.versions();
        let after = request.position(list)?;
        let state = self.look();
        let versions = D::rows(&state).get(id).map(|row| &row.versions).into_iter().flatten();
        page(list, request, after, versions.map(|(seq, version)| (Reverse(*seq), Arc::clone(version))))
    }

    fn version(&self, id: &VersionId) -> Result<Option<Arc<Version<D>>>> {
        Ok(find_version(&self.look(), id).cloned())
    }

    fn latest(&self, id: &D::Id) -> Result<Option<Arc<Version<D>>>> {
        let state = self.look();
        let newest = D::rows(&state).get(id).and_then(|row| row.versions.values().next_back());
        Ok(newest.cloned())
    }

    fn restore(&self, version: &VersionId, expect: Expect) -> Result<Stored<D>> {
        let mut state = self.change();
        let missing = || Error::not_found(Entity::Version, version.as_str());
        let version = find_version::<D>(&state, version).cloned().ok_or_else(missing)?;
        check_save(&state, &version.snapshot, expect)?;
        write_doc(&mut state, &version.snapshot)
    }

    fn pin_version(&self, id: &VersionId, pinned: bool) -> Result<()> {
        let mut state = self.change();
        let missing = || Error::not_found(Entity::Version, id.as_str());
        let mut all = D::rows_mut(&mut state).values_mut().flat_map(|row| row.versions.values_mut());
        let version = all.find(|version| version.id == *id).ok_or_else(missing)?;
        Arc::make_mut(version).content.pinned = pinned;
        Ok(())
    }

    fn prune_versions(&self, id: &D::Id, keep: usize) -> Result<u64> {
        let mut state = self.change();
        let row = D::rows_mut(&mut state).get_mut(id).ok_or_else(|| D::missing(id))?;
        let newest_first = row.versions.iter().rev().map(|(seq, version)| (*seq, version.pinned));
        let gone = rules::prunable(newest_first, keep);
        row.versions.retain(|seq, _| !gone.contains(seq));
        Ok(gone.len() as u64)
    }

    fn publish(&self, version: &NewVersion<D>, expect: Expect) -> Result<Published<D>> {
        version.validate()?;
        let mut state = self.change();
        check_save(&state, &version.snapshot, expect)?;
        state.check_version_id(&version.id)?;
        let revision = write_doc(&mut state, &version.snapshot)?.revision;
        Ok(Published { revision, version: write_version(&mut state, version)? })
    }

    fn due(&self, now: Time, request: &PageRequest) -> Result<Page<Stored<D>>> {
        let list = D::KIND.due();
        let after = request.position(list)?;
        time::nanos("now", now)?;
        page(list, request, after, due::<D>(&self.look(), now).map(|(at, stored)| (at, stored.clone())))
    }

    fn mark_scheduled_run(&self, id: &D::Id, ran_at: Time, next: Option<Time>) -> Result<()> {
        check_times(&[("ran_at", Some(ran_at)), ("next_run_at", next)])?;
        let mut state = self.change();
        run_state::<D>(&state, id)?;
        set_run_state::<D>(&mut state, id, RunState::marked(ran_at, next))
    }

    fn reschedule(&self, id: &D::Id, next: Option<Time>) -> Result<()> {
        check_times(&[("next_run_at", next)])?;
        let mut state = self.change();
        let before = run_state::<D>(&state, id)?;
        set_run_state::<D>(&mut state, id, before.rescheduled(next))
    }

    fn claim_due(&self, now: Time, worker: &WorkerId, length: Duration, max: usize) -> Result<Vec<Claim<D>>> {
        rules::check_max(max)?;
        lease::end(now, length)?;
        let mut state = self.change();
        let free = |stored: &Stored<D>| {
            lease::claimable(stored.schedule().and_then(|schedule| schedule.lease.as_ref()), now)
        };
        let mut ids: Vec<(Time, D::Id)> =
            due::<D>(&state, now).filter(|(_, stored)| free(stored)).map(|(at, _)| at).collect();
        ids.sort();
        ids.truncate(max);
        let claim = |(due_at, id): (Time, D::Id)| {
            let lease = Lease::grant(worker, LeaseToken(state.next_number()?), now, length)?;
            let before = run_state::<D>(&state, &id)?;
            set_run_state::<D>(&mut state, &id, RunState { lease: Some(lease.clone()), ..before })?;
            let stored = stored::<D>(&state, &id).ok_or_else(|| D::missing(&id))?;
            Ok(Claim { stored, due_at, lease })
        };
        ids.into_iter().map(claim).collect()
    }

    fn finish_claim(
        &self,
        id: &D::Id,
        token: LeaseToken,
        now: Time,
        ran_at: Time,
        next: Option<Time>,
    ) -> Result<()> {
        check_times(&[("now", Some(now)), ("ran_at", Some(ran_at)), ("next_run_at", next)])?;
        let mut state = self.change();
        let before = run_state::<D>(&state, id)?;
        lease::held(D::KIND.entity(), id.as_ref(), before.lease.as_ref(), token, now)?;
        set_run_state::<D>(&mut state, id, RunState::marked(ran_at, next))
    }

    fn renew_claim(&self, id: &D::Id, token: LeaseToken, now: Time, length: Duration) -> Result<Lease> {
        lease::end(now, length)?;
        let mut state = self.change();
        let before = run_state::<D>(&state, id)?;
        let lease = lease::held(D::KIND.entity(), id.as_ref(), before.lease.as_ref(), token, now)?
            .renewed(now, length)?;
        set_run_state::<D>(&mut state, id, RunState { lease: Some(lease.clone()), ..before })?;
        Ok(lease)
    }

    fn release_claim(&self, id: &D::Id, token: LeaseToken, now: Time) -> Result<()> {
        check_times(&[("now", Some(now))])?;
        let mut state = self.change();
        let before = run_state::<D>(&state, id)?;
        lease::held(D::KIND.entity(), id.as_ref(), before.lease.as_ref(), token, now)?;
        set_run_state::<D>(&mut state, id, RunState { lease: None, ..before })
    }
}

fn check_times(times: &[(&'static str, Option<Time>)]) -> Result<()> {
    for (field, time) in times {
        if let Some(time) = time {
            time::nanos(field, *time)?;
        }
    }
    Ok(())
}

impl AgentStore for Tx {
    fn by_webhook(&self, digest: &SecretDigest) -> Result<Option<Stored<Agent>>> {
        let state = self.look();
        let mut all = state.agents.values().map(|row| &row.stored);
        Ok(all.find(|agent| agent.webhook.as_ref() == Some(digest)).cloned())
    }

    fn by_channel(&self, channel: &ChannelId, request: &PageRequest) -> Result<Page<Stored<Agent>>> {
        let after = request.position(List::ChannelAgents)?;
        let state = self.look();
        let found = state.agents.iter().filter(|(_, row)| row.stored.channel_filter.contains(channel));
        page(List::ChannelAgents, request, after, found.map(|(id, row)| (id.clone(), row.stored.clone())))
    }
}

// Budgets: an engine loads the ledger, asks it, and stores it.

fn ledger(state: &State, account: &Account) -> Ledger {
    state.accounts.get(&account.key()).map(|row| row.ledger.clone()).unwrap_or_default()
}

fn account_row<'a>(state: &'a mut State, account: &Account) -> &'a mut AccountRow {
    state.accounts.entry(account.key()).or_insert_with(|| AccountRow {
        account: account.clone(),
        ledger: Ledger::default(),
        charges: BTreeMap::new(),
    })
}

impl Tx {
    /// Asks the ledger to charge, and stores what it says. `prior` is what was charged under the key before.
    fn charge(
        &self,
        account: &Account,
        key: Option<&ChargeKey>,
        ask: impl FnOnce(&mut Ledger, Option<Charged>) -> Result<Charging>,
    ) -> Result<Usage> {
        let mut state = self.change();
        let mut changed = ledger(&state, account);
        let prior = state.accounts.get(&account.key()).zip(key).and_then(|(row, key)| row.charges.get(key));
        match ask(&mut changed, prior.copied())? {
            Charging::Replayed(usage) => Ok(usage),
            Charging::Made { usage, charged, forget } => {
                let row = account_row(&mut state, account);
                row.ledger = changed;
                row.charges.retain(|_, charge| charge.expires_at > forget);
                row.charges.extend(key.map(|key| (key.clone(), charged)));
                Ok(usage)
            }
        }
    }

    fn charge_within(&self, charge: &Charge, limit: Option<Amount>, now: Time) -> Result<Usage> {
        let Charge { account, amount, key } = charge;
        let key = key.clone().map(ChargeKey::Key);
        self.charge(account, key.as_ref(), |ledger, prior| {
            ledger.charge(&account.meter.window, *amount, key.as_ref().map(|key| (key, prior)), limit, now)
        })
    }
}

impl BudgetStore for Tx {
    fn usage(&self, account: &Account, now: Time) -> Result<Usage> {
        ledger(&self.look(), account).usage(&account.meter.window, now)
    }

    fn add(&self, charge: &Charge, now: Time) -> Result<Usage> {
        self.charge_within(charge, None, now)
    }

    fn admit(&self, charge: &Charge, limit: Amount, now: Time) -> Result<Usage> {
        self.charge_within(charge, Some(limit), now)
    }

    fn reserve(&self, reservation: &Reservation, limit: Amount, now: Time) -> Result<Usage> {
        let mut state = self.change();
        let mut changed = ledger(&state, &reservation.account);
        let usage = changed.reserve(reservation, limit, now)?;
        account_row(&mut state, &reservation.account).ledger = changed;
        Ok(usage)
    }

    fn settle(&self, account: &Account, id: &ReservationId, actual: Amount, now: Time) -> Result<Usage> {
        let key = ChargeKey::Reservation(id.clone());
        self.charge(account, Some(&key), |ledger, prior| {
            ledger.settle(&account.meter.window, id, prior, actual, now)
        })
    }

    fn release(&self, account: &Account, id: &ReservationId, now: Time) -> Result<Usage> {
        let mut state = self.change();
        let mut changed = ledger(&state, account);
        let usage = changed.release(&account.meter.window, id, now)?;
        account_row(&mut state, account).ledger = changed;
        Ok(usage)
    }

    fn reservations(&self, account: &Account, now: Time) -> Result<Vec<Reservation>> {
        ledger(&self.look(), account).reservations(account, now)
    }

    fn accounts(&self, now: Time, request: &PageRequest) -> Result<Page<AccountUsage>> {
        let after = request.position(List::Accounts)?;
        time::nanos("now", now)?;
        let state = self.look();
        let found =
            page(List::Accounts, request, after, state.accounts.iter().map(|(k, row)| (k.clone(), row)))?;
        let usage = |row: &AccountRow| {
            let usage = row.ledger.usage(&row.account.meter.window, now)?;
            Ok(AccountUsage { account: row.account.clone(), usage })
        };
        Ok(Page { items: found.items.into_iter().map(usage).collect::<Result<_>>()?, next: found.next })
    }

    fn reset(&self, account: &Account) -> Result<()> {
        let gone = self.change().accounts.remove(&account.key());
        gone.map(drop).ok_or_else(|| Error::not_found(Entity::Account, account.to_string()))
    }
}

// Audit.

/// The order of lists of runs: newest first, by start, then id.
type NewestFirst = Reverse<(Time, RunId)>;

fn newest_first(run: &Arc<Run>) -> (NewestFirst, Arc<Run>) {
    (Reverse((run.started_at, run.id.clone())), Arc::clone(run))
}

impl State {
    fn run(&self, id: &RunId) -> Option<Arc<Run>> {
        self.runs.get(id).map(|row| Arc::clone(&row.run))
    }

    fn all_runs(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.runs.values().map(|row| &row.run)
    }

    fn running(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.all_runs().filter(|run| run.status == RunStatus::Running)
    }

    fn run_row(&mut self, id: &RunId) -> Result<&mut RunRow> {
        self.runs.get_mut(id).ok_or_else(|| Error::not_found(Entity::Run, id.as_str()))
    }

    fn finish(&mut self, id: &RunId, finish: &Finish) -> Result<Arc<Run>> {
        let row = self.run_row(id)?;
        if let Some(finished) = row.run.finished(finish)? {
            row.run = Arc::new(finished);
        }
        Ok(Arc::clone(&row.run))
    }
}

impl AuditStore for Tx {
    fn start_run(&self, run: &NewRun) -> Result<Arc<Run>> {
        run.validate()?;
        let mut state = self.change();
        if state.runs.contains_key(&run.id) {
            return Err(Error::already_exists(Entity::Run, "id", run.id.as_str()));
        }
        let started = Arc::new(Run::started(run.clone()));
        state.runs.insert(run.id.clone(), RunRow { run: Arc::clone(&started), events: Vec::new() });
        Ok(started)
    }

    fn finish_run(&self, id: &RunId, finish: &Finish) -> Result<Arc<Run>> {
        finish.validate()?;
        self.change().finish(id, finish)
    }

    fn append_event(&self, run: &RunId, event: &NewEvent) -> Result<u64> {
        event.validate()?;
        let mut state = self.change();
        let events = &mut state.run_row(run)?.events;
        let seq = rules::next_seq(events.len() as u64)?;
        events.push(Arc::new(Event { run: run.clone(), seq, content: event.clone() }));
        Ok(seq)
    }

    fn run(&self, id: &RunId) -> Result<Option<Arc<Run>>> {
        Ok(self.look().run(id))
    }

    fn events(&self, run: &RunId, request: &PageRequest) -> Result<Page<Arc<Event>>> {
        let after = request.position(List::Events)?;
        let state = self.look();
        let events = state.runs.get(run).map(|row| &row.events).into_iter().flatten();
        page(List::Events, request, after, events.map(|event| (event.seq, Arc::clone(event))))
    }

    fn runs(&self, filter: &RunFilter, request: &PageRequest) -> Result<Page<Arc<Run>>> {
        let after = request.position(List::Runs)?;
        filter.validate()?;
        let state = self.look();
        let found = state.all_runs().filter(|run| filter.matches(run));
        page(List::Runs, request, after, found.map(newest_first))
    }

    fn children(&self, id: &RunId, request: &PageRequest) -> Result<Page<Arc<Run>>> {
        let after = request.position(List::Children)?;
        let state = self.look();
        let found = state.all_runs().filter(|run| run.parent.as_ref() == Some(id));
        page(List::Children, request, after, found.map(newest_first))
    }

    fn ancestors(&self, id: &RunId) -> Result<Vec<Arc<Run>>> {
        let state = self.look();
        audit::ancestors(id, |id| Ok(state.run(id)))
    }

    fn last_run_of(&self, skills: &[SkillId]) -> Result<Vec<Arc<Run>>> {
        let skills = rules::distinct("skills", skills)?;
        let state = self.look();
        let mut newest: HashMap<&SkillId, &Arc<Run>> = HashMap::new();
        for run in state.all_runs() {
            if let Some(skill) = &run.skill {
                let best = newest.entry(skill).or_insert(run);
                *best = std::cmp::max_by_key(*best, run, |run| (run.started_at, run.id.clone()));
            }
        }
        Ok(skills.iter().filter_map(|skill| newest.get(skill).map(|run| Arc::clone(run))).collect())
    }

    fn summary(
        &self,
        filter: &RunFilter,
        group_by: GroupBy,
        request: &PageRequest,
    ) -> Result<Page<SummaryRow>> {
        let mut summing = audit::Summing::new(filter, group_by);
        filter.validate()?;
        self.look().all_runs().for_each(|run| summing.add(run));
        summing.page(request)
    }

    fn abandon_stale(&self, before: Time, now: Time, max: usize) -> Result<Vec<RunId>> {
        rules::check_max(max)?;
        check_times(&[("before", Some(before)), ("now", Some(now))])?;
        let mut state = self.change();
        let stale = state.running().filter(|run| run.started_at < before);
        let mut stale: Vec<(Time, RunId)> = stale.map(|run| (run.started_at, run.id.clone())).collect();
        stale.sort();
        stale.truncate(max);
        let ids: Vec<RunId> = stale.into_iter().map(|(_, id)| id).collect();
        for id in &ids {
            state.finish(id, &Finish::new(RunOutcome::Abandoned, now))?;
        }
        Ok(ids)
    }

    fn purge_before(&self, before: Time, dry_run: bool) -> Result<PurgeReport> {
        check_times(&[("before", Some(before))])?;
        let mut state = self.change();
        let needed = audit::needed(state.running().cloned(), |id| Ok(state.run(id)))?;
        let old = state.runs.iter().filter(|(_, row)| audit::is_purgeable(&row.run, before));
        let (kept, gone): (Vec<_>, Vec<_>) = old.partition(|(id, _)| needed.contains(*id));
        let report = PurgeReport {
            runs: gone.len() as u64,
            events: gone.iter().map(|(_, row)| row.events.len() as u64).sum(),
            kept: kept.len() as u64,
        };
        if !dry_run {
            state.runs.retain(|id, row| !audit::is_purgeable(&row.run, before) || needed.contains(id));
        }
        Ok(report)
    }
}

// Checkpoints.

impl State {
    fn checkpoint(&mut self, run: &RunId) -> Result<&mut Interrupted> {
        self.checkpoints.get_mut(run).ok_or_else(|| Error::not_found(Entity::Checkpoint, run.as_str()))
    }
}

impl CheckpointStore for Tx {
    fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint.validate()?;
        let mut state = self.change();
        let stored = state.checkpoints.get(&checkpoint.run);
        if let Some(stored) = stored {
            checkpoint.may_replace(stored.checkpoint.iteration)?;
        }
        let lease = stored.and_then(|stored| stored.lease.clone());
        let saved = Interrupted { checkpoint: Arc::new(checkpoint.clone()), lease };
        state.checkpoints.insert(checkpoint.run.clone(), saved);
        Ok(())
    }

    fn load(&self, run: &RunId) -> Result<Option<Arc<Checkpoint>>> {
        Ok(self.look().checkpoints.get(run).map(|stored| Arc::clone(&stored.checkpoint)))
    }

    fn delete(&self, run: &RunId) -> Result<()> {
        let gone = self.change().checkpoints.remove(run);
        gone.map(drop).ok_or_else(|| Error::not_found(Entity::Checkpoint, run.as_str()))
    }

    fn interrupted(&self, request: &PageRequest) -> Result<Page<Interrupted>> {
        let after = request.position(List::Interrupted)?;
        let state = self.look();
        let all = state.checkpoints.iter().map(|(run, stored)| (run.clone(), stored.clone()));
        page(List::Interrupted, request, after, all)
    }

    fn claim(&self, run: &RunId, now: Time, worker: &WorkerId, length: Duration) -> Result<Lease> {
        lease::end(now, length)?;
        let mut state = self.change();
        let stored = state.checkpoint(run)?;
        if !lease::claimable(stored.lease.as_ref(), now) {
            return Err(Error::conflict(Entity::Checkpoint, run.as_str(), "another worker holds it"));
        }
        let lease = Lease::grant(worker, LeaseToken(state.next_number()?), now, length)?;
        state.checkpoint(run)?.lease = Some(lease.clone());
        Ok(lease)
    }

    fn claim_interrupted(
        &self,
        now: Time,
        worker: &WorkerId,
        length: Duration,
        max: usize,
    ) -> Result<Vec<Interrupted>> {
        rules::check_max(max)?;
        lease::end(now, length)?;
        let mut state = self.change();
        let free = state.checkpoints.iter().filter(|(_, at)| lease::claimable(at.lease.as_ref(), now));
        let free: Vec<RunId> = free.take(max).map(|(run, _)| run.clone()).collect();
        let claim = |run: RunId| {
            let lease = Lease::grant(worker, LeaseToken(state.next_number()?), now, length)?;
            let stored = state.checkpoint(&run)?;
            stored.lease = Some(lease);
            Ok(stored.clone())
        };
        free.into_iter().map(claim).collect()
    }

    fn renew_claim(&self, run: &RunId, token: LeaseToken, now: Time, length: Duration) -> Result<Lease> {
        lease::end(now, length)?;
        let mut state = self.change();
        let stored = state.checkpoint(run)?;
        let held = lease::held(Entity::Checkpoint, run.as_str(), stored.lease.as_ref(), token, now)?;
        let lease = held.renewed(now, length)?;
        stored.lease = Some(lease.clone());
        Ok(lease)
    }

    fn release_claim(&self, run: &RunId, token: LeaseToken, now: Time) -> Result<()> {
        check_times(&[("now", Some(now))])?;
        let mut state = self.change();
        let stored = state.checkpoint(run)?;
        lease::held(Entity::Checkpoint, run.as_str(), stored.lease.as_ref(), token, now)?;
        stored.lease = None;
        Ok(())
    }
}

// The record stream. The stream that comes in was checked; what is left is what only an engine can know.

impl EngineTx for Tx {
    fn export(&self, sink: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
        let state = self.look();
        sink(Record::Counter(Counter { last: state.counter }))?;
        export_definitions::<Skill>(&state, sink)?;
        export_definitions::<Agent>(&state, sink)?;
        for AccountRow { account, ledger, charges } in state.accounts.values() {
            sink(Record::Account(AccountRecord { account: account.clone(), ledger: ledger.clone() }))?;
            for (key, charged) in charges {
                let (account, key) = (account.clone(), key.clone());
                sink(Record::Charge(ChargeRecord { account, key, charged: *charged }))?;
            }
        }
        for row in state.runs.values() {
            sink(Record::Run(Run::clone(&row.run)))?;
            row.events.iter().try_for_each(|event| sink(Record::Event(Event::clone(event))))?;
        }
        for Interrupted { checkpoint, lease } in state.checkpoints.values() {
            let (checkpoint, lease) = (Arc::clone(checkpoint), lease.clone());
            sink(Record::Checkpoint(CheckpointRecord { checkpoint, lease }))?;
        }
        Ok(())
    }

    fn is_empty(&self) -> Result<bool> {
        let State { counter: _, skills, agents, accounts, runs, checkpoints } = &*self.look();
        let definitions = skills.len() + agents.len();
        Ok(definitions + accounts.len() + runs.len() + checkpoints.len() == 0)
    }

    fn put(&self, record: Record) -> Result<()> {
        let mut state = self.change();
        match record {
            Record::Counter(counter) => state.counter = counter.last,
            Record::Skill(record) => put_definition(&mut state, record)?,
            Record::SkillVersion(version) => put_version(&mut state, version)?,
            Record::Agent(record) => put_definition(&mut state, record)?,
            Record::AgentVersion(version) => put_version(&mut state, version)?,
            Record::Account(AccountRecord { account, ledger }) => {
                account_row(&mut state, &account).ledger = ledger;
            }
            Record::Charge(ChargeRecord { account, key, charged }) => {
                account_row(&mut state, &account).charges.insert(key, charged);
            }
            Record::Run(run) => {
                let row = RunRow { run: Arc::new(run), events: Vec::new() };
                state.runs.insert(row.run.id.clone(), row);
            }
            Record::Event(event) => state.run_row(&event.run)?.events.push(Arc::new(event)),
            Record::Checkpoint(CheckpointRecord { checkpoint, lease }) => {
                state.checkpoints.insert(checkpoint.run.clone(), Interrupted { checkpoint, lease });
            }
            other => {
                let operation = format!("a record of type {}", other.type_name());
                return Err(Error::Unsupported { operation: operation.into() });
            }
        }
        Ok(())
    }
}

fn export_definitions<D: Kept>(state: &State, sink: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
    for DefinitionRow { stored: Stored { doc, revision }, last_seq, versions } in D::rows(state).values() {
        let record = DefinitionRecord { doc: Arc::clone(doc), revision: *revision, last_seq: *last_seq };
        sink(D::record(record))?;
        versions.values().try_for_each(|version| sink(D::version_record(Version::clone(version))))?;
    }
    Ok(())
}

fn put_definition<D: Kept>(state: &mut State, record: DefinitionRecord<D>) -> Result<()> {
    let DefinitionRecord { doc, revision, last_seq } = record;
    check_unique(state, &*doc)?;
    let id = doc.id().clone();
    let row = DefinitionRow { stored: Stored { doc, revision }, last_seq, versions: BTreeMap::new() };
    D::rows_mut(state).insert(id, row);
    Ok(())
}

fn put_version<D: Kept>(state: &mut State, version: Version<D>) -> Result<()> {
    state.check_version_id(&version.id)?;
    let id = version.snapshot.id().clone();
    let row = D::rows_mut(state).get_mut(&id).ok_or_else(|| D::missing(&id))?;
    row.versions.insert(version.seq, Arc::new(version));
    Ok(())
}
