//! What a sequence is made of. Operations name records by small numbers, so that they collide, and times by what
//! is near them (a window's end, a lease's end), so that edges are hit to the nanosecond; the driver looks up what
//! that means when the operation runs. A sequence therefore stays meaningful when operations are taken out of it,
//! and a failing one shrinks to a few lines.

use proptest::prelude::*;

/// A point in time.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    /// The clock of the sequence.
    Now,
    /// So many nanoseconds after (or before) the clock.
    Near(i64),
    /// One of the moments at which something changes (counted through and around), or a nanosecond beside it.
    Edge(u8, i8),
    /// Inside a leap second, which no store takes.
    Leap,
    /// After the last nanosecond that an `i64` can say.
    TooLate,
}

/// Which catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Skills,
    Agents,
}

/// What a save expects.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    Any,
    Absent,
    /// The revision that is stored now, if anything is.
    Current,
    /// A revision or token that was given at some time, to some record.
    Old(u8),
}

/// A lease token.
#[derive(Debug, Clone, Copy)]
pub(super) enum Token {
    /// The one of the lease that is on the record.
    Current,
    /// One that was given at some time.
    Old(u8),
}

/// A schedule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) cron: u8,
    pub(super) zone: u8,
    pub(super) next: Option<When>,
    pub(super) last: Option<When>,
    /// Whether the saved copy claims to hold a lease, which a store must ignore.
    pub(super) lease: bool,
}

/// What is wrong with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    Nul,
    Shadow,
}

/// A document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doc {
    pub(super) id: u8,
    pub(super) owner: u8,
    pub(super) name: u8,
    pub(super) body: u8,
    pub(super) tag: Option<u8>,
    pub(super) visibility: u8,
    pub(super) shared: Option<u8>,
    pub(super) exposed: bool,
    pub(super) schedule: Option<Times>,
    pub(super) channel: Option<u8>,
    pub(super) webhook: Option<u8>,
    pub(super) flaw: Option<Flaw>,
}

/// What an edit does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Edit {
    Body(u8),
    Name(u8),
    Cron(u8, Option<When>),
    Unschedule,
    Nul,
    Id(u8),
    /// Changes the body, then gives up with an error.
    GiveUp(u8),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct NewVersionOf {
    pub(super) id: u8,
    pub(super) doc: Doc,
    pub(super) pinned: bool,
    pub(super) saved_at: When,
}

/// An operation on a catalog. Ids are of definitions.
#[derive(Debug, Clone, Copy)]
pub(super) enum CatalogOp {
    Get(u8),
    ByName { owner: u8, name: u8 },
    ByWebhook(u8),
    Save(Doc, Expected),
    Update(u8, Edit),
    Delete(u8, Expected),
    Append(NewVersionOf),
    Publish(NewVersionOf, Expected),
    Version(u8),
    Latest(u8),
    Restore(u8, Expected),
    Pin(u8, bool),
    Prune(u8, u8),
    Mark(u8, When, Option<When>),
    Reschedule(u8, Option<When>),
    ClaimDue { now: When, worker: u8, lease: u8, max: u8 },
    FinishClaim { id: u8, token: Token, now: When, ran_at: When, next: Option<When> },
    RenewClaim { id: u8, token: Token, now: When, lease: u8 },
    ReleaseClaim { id: u8, token: Token, now: When },
}

/// An operation on budgets. Amounts are numbers in a pool.
#[derive(Debug, Clone, Copy)]
pub(super) enum BudgetOp {
    Usage { account: u8, now: When },
    Add { account: u8, amount: u8, key: Option<u8>, now: When },
    Admit { account: u8, amount: u8, key: Option<u8>, limit: u8, now: When },
    Reserve { account: u8, id: u8, amount: u8, expires: When, limit: u8, now: When },
    Settle { account: u8, id: u8, amount: u8, now: When },
    Release { account: u8, id: u8, now: When },
    Reservations { account: u8, now: When },
    Reset(u8),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) id: u8,
    pub(super) parent: Option<u8>,
    pub(super) skill: Option<u8>,
    pub(super) agent: Option<u8>,
    pub(super) caller: u8,
    pub(super) channel: Option<u8>,
    pub(super) at: When,
    pub(super) flaw: Option<Flaw>,
}

/// An operation on the audit.
#[derive(Debug, Clone, Copy)]
pub(super) enum AuditOp {
    Start(Start),
    Finish {
        id: u8,
        outcome: u8,
        at: When,
        tokens: u8,
        cost: u8,
    },
    /// The same finish again as the run has, if it has one.
    FinishAgain(u8),
    Event {
        run: u8,
        at: When,
        payload: u8,
    },
    Run(u8),
    Ancestors(u8),
    LastRunOf([u8; 3]),
    Abandon {
        before: When,
        now: When,
        max: u8,
    },
    Purge {
        before: When,
        dry_run: bool,
    },
}

/// An operation on checkpoints.
#[derive(Debug, Clone, Copy)]
pub(super) enum CheckpointOp {
    Save { run: u8, iteration: u8, state: u8, at: When },
    Load(u8),
    Delete(u8),
    Claim { run: u8, now: When, worker: u8, lease: u8 },
    ClaimInterrupted { now: When, worker: u8, lease: u8, max: u8 },
    Renew { run: u8, token: Token, now: When, lease: u8 },
    Release { run: u8, token: Token, now: When },
}

/// One of the lists.
#[derive(Debug, Clone, Copy)]
pub(super) enum ListOf {
    Definitions(Of, DefinitionsFilter),
    Versions(Of, u8),
    Due(Of, When),
    Channel(u8),
    Accounts(When),
    Runs(RunsFilter),
    Children(u8),
    Events(u8),
    Summary(RunsFilter, u8),
    Interrupted,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DefinitionsFilter {
    pub(super) owner: Option<u8>,
    pub(super) visible_to: Option<u8>,
    pub(super) exposed: Option<bool>,
    pub(super) tag: Option<u8>,
    pub(super) scheduled: Option<bool>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RunsFilter {
    pub(super) skill: Option<u8>,
    pub(super) agent: Option<u8>,
    pub(super) caller: Option<u8>,
    pub(super) channel: Option<u8>,
    pub(super) status: Option<u8>,
    pub(super) from: Option<When>,
    pub(super) to: Option<When>,
    pub(super) top_level: bool,
}

/// One call of a seam.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call {
    Catalog(Of, CatalogOp),
    Budget(BudgetOp),
    Audit(AuditOp),
    Checkpoint(CheckpointOp),
    /// A whole list, page by page.
    List(ListOf, u8),
    /// The first page of a list; its cursor is kept for a later [`Call::NextPage`].
    FirstPage(ListOf, u8),
    /// The page after the kept cursor, whatever was written meanwhile.
    NextPage(u8),
    /// A list with a cursor of another list.
    WrongCursor(ListOf),
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Commit,
    /// The work gives an error of its own.
    Fail,
    Panic,
    /// A call gives an error that is no refusal; the work swallows it and ends well.
    Doom,
}

/// One step of a sequence.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Call(Call),
    /// Sets the clock.
    Tick(When),
    Transaction(Vec<Call>, End),
    /// Calls in a snapshot; with `write` it ends with a write, which is refused.
    Snapshot(Vec<Call>, bool),
    Reopen,
    /// Exports everything, imports it into a new store, and goes on there.
    Move,
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        8 => Just(When::Now),
        3 => prop_oneof![Just(1), Just(-1), Just(10), Just(-10), Just(1_000_000_000)].prop_map(When::Near),
        8 => (any::<u8>(), -1i8..=1).prop_map(|(edge, by)| When::Edge(edge, by)),
    ]
}

/// Mostly a good time, now and then one that no store takes.
fn any_when() -> impl Strategy<Value = When> {
    prop_oneof![40 => when(), 1 => Just(When::Leap), 1 => Just(When::TooLate)]
}

fn of() -> impl Strategy<Value = Of> {
    prop_oneof![Just(Of::Skills), Just(Of::Agents)]
}

fn expected() -> impl Strategy<Value = Expected> {
    prop_oneof![
        4 => Just(Expected::Any),
        2 => Just(Expected::Absent),
        3 => Just(Expected::Current),
        2 => any::<u8>().prop_map(Expected::Old),
    ]
}

fn token() -> impl Strategy<Value = Token> {
    prop_oneof![3 => Just(Token::Current), 2 => any::<u8>().prop_map(Token::Old)]
}

fn times() -> BoxedStrategy<Times> {
    (0u8..2, 0u8..2, option(any_when()), option(when()), prop::bool::weighted(0.2))
        .prop_map(|(cron, zone, next, last, lease)| Times { cron, zone, next, last, lease })
        .boxed()
}

fn option<S: Strategy>(inner: S) -> impl Strategy<Value = Option<S::Value>>
where
    S::Value: Clone + std::fmt::Debug,
{
    prop::option::weighted(0.6, inner)
}

fn flaw() -> impl Strategy<Value = Option<Flaw>> {
    prop_oneof![30 => Just(None), 1 => Just(Some(Flaw::Nul)), 1 => Just(Some(Flaw::Shadow))]
}

fn doc() -> BoxedStrategy<Doc> {
    let identity = (0u8..4, 0u8..2, 0u8..4, any::<u8>());
    let seen = (option(0u8..2), 0u8..3, option(0u8..3), any::<bool>());
    let rest =
        (prop::option::weighted(0.7, times()), option(0u8..2), prop::option::weighted(0.3, 0u8..2), flaw());
    (identity, seen, rest)
        .prop_map(
            |(
                (id, owner, name, body),
                (tag, visibility, shared, exposed),
                (schedule, channel, webhook, flaw),
            )| Doc {
                id,
                owner,
                name,
                body,
                tag,
                visibility,
                shared,
                exposed,
                schedule,
                channel,
                webhook,
                flaw,
            },
        )
        .boxed()
}

fn edit() -> BoxedStrategy<Edit> {
    prop_oneof![
        3 => any::<u8>().prop_map(Edit::Body),
        2 => (0u8..4).prop_map(Edit::Name),
        2 => (0u8..2, option(any_when())).prop_map(|(cron, next)| Edit::Cron(cron, next)),
        1 => Just(Edit::Unschedule),
        1 => Just(Edit::Nul),
        1 => (0u8..4).prop_map(Edit::Id),
        1 => any::<u8>().prop_map(Edit::GiveUp),
    ]
    .boxed()
}

fn version() -> BoxedStrategy<NewVersionOf> {
    (0u8..8, doc(), any::<bool>(), any_when())
        .prop_map(|(id, doc, pinned, saved_at)| NewVersionOf { id, doc, pinned, saved_at })
        .boxed()
}

fn id() -> std::ops::Range<u8> {
    0..4
}

fn catalog() -> BoxedStrategy<CatalogOp> {
    use CatalogOp::*;
    prop_oneof![
        2 => id().prop_map(Get),
        1 => (0u8..2, 0u8..4).prop_map(|(owner, name)| ByName { owner, name }),
        1 => (0u8..2).prop_map(ByWebhook),
        8 => (doc(), expected()).prop_map(|(doc, expect)| Save(doc, expect)),
        3 => (id(), edit()).prop_map(|(id, edit)| Update(id, edit)),
        2 => (id(), expected()).prop_map(|(id, expect)| Delete(id, expect)),
        5 => version().prop_map(Append),
        4 => (version(), expected()).prop_map(|(version, expect)| Publish(version, expect)),
        1 => (0u8..8).prop_map(Version),
        1 => id().prop_map(Latest),
        2 => (0u8..8, expected()).prop_map(|(id, expect)| Restore(id, expect)),
        1 => (0u8..8, any::<bool>()).prop_map(|(id, pinned)| Pin(id, pinned)),
        1 => (id(), 0u8..4).prop_map(|(id, keep)| Prune(id, keep)),
        17 => claims(),
    ]
    .boxed()
}

/// What moves the run state of a schedule, and the saves that make one.
fn claims() -> BoxedStrategy<CatalogOp> {
    use CatalogOp::*;
    prop_oneof![
        2 => (doc(), expected()).prop_map(|(doc, expect)| Save(doc, expect)),
        3 => (id(), any_when(), option(any_when())).prop_map(|(id, ran, next)| Mark(id, ran, next)),
        2 => (id(), option(any_when())).prop_map(|(id, next)| Reschedule(id, next)),
        5 => (any_when(), 0u8..2, any::<u8>(), any::<u8>())
            .prop_map(|(now, worker, lease, max)| ClaimDue { now, worker, lease, max }),
        4 => (id(), token(), any_when(), any_when(), option(any_when()))
            .prop_map(|(id, token, now, ran_at, next)| FinishClaim { id, token, now, ran_at, next }),
        2 => (id(), token(), any_when(), any::<u8>())
            .prop_map(|(id, token, now, lease)| RenewClaim { id, token, now, lease }),
        2 => (id(), token(), any_when()).prop_map(|(id, token, now)| ReleaseClaim { id, token, now }),
    ]
    .boxed()
}

fn budget() -> BoxedStrategy<BudgetOp> {
    use BudgetOp::*;
    let key = || prop::option::weighted(0.4, 0u8..3);
    let account = || 0u8..5;
    prop_oneof![
        2 => (account(), any_when()).prop_map(|(account, now)| Usage { account, now }),
        8 => (account(), any::<u8>(), key(), any_when())
            .prop_map(|(account, amount, key, now)| Add { account, amount, key, now }),
        5 => (account(), any::<u8>(), key(), any::<u8>(), any_when())
            .prop_map(|(account, amount, key, limit, now)| Admit { account, amount, key, limit, now }),
        5 => (account(), 0u8..3, any::<u8>(), any_when(), any::<u8>(), any_when()).prop_map(
            |(account, id, amount, expires, limit, now)| Reserve { account, id, amount, expires, limit, now }
        ),
        3 => (account(), 0u8..3, any::<u8>(), any_when())
            .prop_map(|(account, id, amount, now)| Settle { account, id, amount, now }),
        2 => (account(), 0u8..3, any_when()).prop_map(|(account, id, now)| Release { account, id, now }),
        1 => (account(), any_when()).prop_map(|(account, now)| Reservations { account, now }),
        1 => account().prop_map(Reset),
    ]
    .boxed()
}

fn start() -> BoxedStrategy<Start> {
    (0u8..7, option(0u8..7), option(0u8..3), option(0u8..2), 0u8..2, option(0u8..2), any_when(), flaw())
        .prop_map(|(id, parent, skill, agent, caller, channel, at, flaw)| Start {
            id,
            parent,
            skill,
            agent,
            caller,
            channel,
            at,
            flaw,
        })
        .boxed()
}

fn audit() -> BoxedStrategy<AuditOp> {
    use AuditOp::*;
    prop_oneof![
        8 => start().prop_map(Start),
        5 => (0u8..7, 0u8..4, any_when(), any::<u8>(), any::<u8>())
            .prop_map(|(id, outcome, at, tokens, cost)| Finish { id, outcome, at, tokens, cost }),
        1 => (0u8..7).prop_map(FinishAgain),
        5 => (0u8..7, any_when(), any::<u8>()).prop_map(|(run, at, payload)| Event { run, at, payload }),
        1 => (0u8..7).prop_map(Run),
        2 => (0u8..7).prop_map(Ancestors),
        1 => prop::array::uniform3(0u8..3).prop_map(LastRunOf),
        1 => (any_when(), any_when(), any::<u8>()).prop_map(|(before, now, max)| Abandon { before, now, max }),
        2 => (any_when(), any::<bool>()).prop_map(|(before, dry_run)| Purge { before, dry_run }),
    ]
    .boxed()
}

fn checkpoint() -> BoxedStrategy<CheckpointOp> {
    use CheckpointOp::*;
    prop_oneof![
        6 => (0u8..4, 0u8..6, any::<u8>(), any_when())
            .prop_map(|(run, iteration, state, at)| Save { run, iteration, state, at }),
        1 => (0u8..4).prop_map(Load),
        1 => (0u8..4).prop_map(Delete),
        3 => (0u8..4, any_when(), 0u8..2, any::<u8>())
            .prop_map(|(run, now, worker, lease)| Claim { run, now, worker, lease }),
        2 => (any_when(), 0u8..2, any::<u8>(), any::<u8>())
            .prop_map(|(now, worker, lease, max)| ClaimInterrupted { now, worker, lease, max }),
        2 => (0u8..4, token(), any_when(), any::<u8>())
            .prop_map(|(run, token, now, lease)| Renew { run, token, now, lease }),
        1 => (0u8..4, token(), any_when()).prop_map(|(run, token, now)| Release { run, token, now }),
    ]
    .boxed()
}

fn definitions_filter() -> BoxedStrategy<DefinitionsFilter> {
    let rare = || prop::option::weighted(0.3, any::<bool>());
    let one = || prop::option::weighted(0.3, 0u8..3);
    (one(), one(), rare(), one(), rare())
        .prop_map(|(owner, visible_to, exposed, tag, scheduled)| DefinitionsFilter {
            owner,
            visible_to,
            exposed,
            tag,
            scheduled,
        })
        .boxed()
}

fn runs_filter() -> BoxedStrategy<RunsFilter> {
    let rare = || prop::option::weighted(0.25, 0u8..2);
    let edge = || prop::option::weighted(0.25, any_when());
    let status = prop::option::weighted(0.25, 0u8..5);
    (rare(), rare(), rare(), rare(), status, edge(), edge(), prop::bool::weighted(0.2))
        .prop_map(|(skill, agent, caller, channel, status, from, to, top_level)| RunsFilter {
            skill,
            agent,
            caller,
            channel,
            status,
            from,
            to,
            top_level,
        })
        .boxed()
}

fn list() -> BoxedStrategy<ListOf> {
    use ListOf::*;
    prop_oneof![
        2 => (of(), definitions_filter()).prop_map(|(of, filter)| Definitions(of, filter)),
        2 => (of(), id()).prop_map(|(of, id)| Versions(of, id)),
        3 => (of(), any_when()).prop_map(|(of, now)| Due(of, now)),
        1 => (0u8..2).prop_map(Channel),
        1 => when().prop_map(Accounts),
        3 => runs_filter().prop_map(Runs),
        1 => (0u8..7).prop_map(Children),
        1 => (0u8..7).prop_map(Events),
        2 => (runs_filter(), 0u8..7).prop_map(|(filter, by)| Summary(filter, by)),
        1 => Just(Interrupted),
    ]
    .boxed()
}

/// What a sequence is mostly about. A sequence about everything seldom goes deep anywhere.
#[derive(Debug, Clone, Copy)]
enum Focus {
    Everything,
    Catalog,
    Schedules,
    Budgets,
    Audit,
    Checkpoints,
}

fn call(focus: Focus) -> BoxedStrategy<Call> {
    let any = prop_oneof![
        14 => (of(), catalog()).prop_map(|(of, op)| Call::Catalog(of, op)),
        9 => budget().prop_map(Call::Budget),
        8 => audit().prop_map(Call::Audit),
        5 => checkpoint().prop_map(Call::Checkpoint),
        4 => (list(), 1u8..5).prop_map(|(list, size)| Call::List(list, size)),
        2 => (list(), 1u8..4).prop_map(|(list, size)| Call::FirstPage(list, size)),
        3 => (1u8..4).prop_map(Call::NextPage),
        1 => list().prop_map(Call::WrongCursor),
    ]
    .boxed();
    let mostly = match focus {
        Focus::Everything => return any,
        Focus::Catalog => (of(), catalog()).prop_map(|(of, op)| Call::Catalog(of, op)).boxed(),
        Focus::Schedules => claims().prop_map(|op| Call::Catalog(Of::Skills, op)).boxed(),
        Focus::Budgets => budget().prop_map(Call::Budget).boxed(),
        Focus::Audit => audit().prop_map(Call::Audit).boxed(),
        Focus::Checkpoints => checkpoint().prop_map(Call::Checkpoint).boxed(),
    };
    prop_oneof![3 => mostly, 1 => any].boxed()
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Commit),
        2 => Just(End::Fail),
        1 => Just(End::Panic),
        1 => Just(End::Doom),
    ]
}

fn op(focus: Focus) -> BoxedStrategy<Op> {
    let call = || call(focus);
    prop_oneof![
        40 => call().prop_map(Op::Call),
        6 => when().prop_map(Op::Tick),
        5 => (prop::collection::vec(call(), 1..6), end()).prop_map(|(calls, end)| Op::Transaction(calls, end)),
        2 => (prop::collection::vec(call(), 1..4), any::<bool>())
            .prop_map(|(calls, write)| Op::Snapshot(calls, write)),
        1 => Just(Op::Reopen),
        1 => Just(Op::Move),
    ]
    .boxed()
}

/// Any operation.
pub(super) fn any_op() -> impl Strategy<Value = Op> {
    op(Focus::Everything)
}

/// Sequences of up to `max` operations.
pub(super) fn sequence(max: usize) -> impl Strategy<Value = Vec<Op>> {
    let about = |focus| prop::collection::vec(op(focus), 1..=max);
    prop_oneof![
        2 => about(Focus::Everything),
        2 => about(Focus::Catalog),
        1 => about(Focus::Schedules),
        2 => about(Focus::Budgets),
        1 => about(Focus::Audit),
        1 => about(Focus::Checkpoints),
    ]
}
