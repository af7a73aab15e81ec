//! The smallest engine that keeps the contract: read this before you write one of your own.
//!
//! The whole store is one value, `State`, made of ordinary maps. A reader takes a reference to the current value
//! and works on it in peace, however long it takes. A writer takes the only pen, works on a copy, and puts the copy
//! in the place of the current value when its work is done. That one idea gives atomicity, isolation and rollback:
//! work that fails or panics drops its copy, and nobody has ever seen it.
//!
//! What is missing is what makes an engine useful: it forgets everything when it is dropped, copies the whole state
//! for each write, and finds names and due times by looking at every row. What is not missing is any rule, because
//! rules are not an engine's to write: each of them is a function or a method in `store-api`, called here at the
//! moment that the contract says. An engine with files and indexes has the same calls in the same order.
//!
//! This file is the store and its transaction; the rooms behind it are the seams, one each, and the record stream.
//!
//! The pattern of every write is: check everything first, write after. A refusal then changes nothing by itself,
//! and needs no undo.

mod audit;
mod budgets;
mod checkpoints;
mod definitions;
mod records;

use std::cell::{Ref, RefCell, RefMut};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use store_api::budget::{AccountKey, ChargeKey, Charged};
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

    fn write_by_itself<R>(&self, work: impl FnOnce(&dyn EngineTx) -> Result<R>) -> Result<R> {
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
            definitions::find_version::<D>(state, id).is_some()
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
    K: Ord + Clone + Serialize + DeserializeOwned,
{
    let mut found: Vec<(K, T)> =
        items.into_iter().filter(|(at, _)| after.as_ref().is_none_or(|after| at > after)).collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found.truncate(request.limit() + 1);
    let position = |(at, _): &(K, T)| at.clone();
    Ok(Page::cut(list, request, found, position)?.map(|(_, item)| item))
}

fn check_times(times: &[(&'static str, Option<Time>)]) -> Result<()> {
    for (field, time) in times {
        if let Some(time) = time {
            time::nanos(field, *time)?;
        }
    }
    Ok(())
}
