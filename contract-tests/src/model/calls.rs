//! One call at a time: what an operation means now, asked of the store and of the model.

use serde::Serialize;
use serde_json::{Value, json};
use store_api::{
    Agent, Charge, Checkpoint, Finish, NewEvent, NewRun, NewVersion, Reservation, Result, RunOutcome,
    Schedule, Seams, Skill, Tokens,
};

use super::lists::{Kept, Listing, value};
use super::op::{AuditOp, BudgetOp, Call, CatalogOp, CheckpointOp, Edit, Flaw, NewVersionOf, Of, Start};
use super::world::{Answer, Refusal, Shelved, World};
use super::{Check, audit, budget, catalog, checkpoint, differs, pool};

/// Whether a call writes nothing, whatever is stored.
pub(super) fn is_read(call: &Call) -> bool {
    match call {
        Call::Catalog(_, op) => {
            use CatalogOp::{ByName, ByWebhook, Get, Latest, Version};
            matches!(op, Get(_) | ByName { .. } | ByWebhook(_) | Version(_) | Latest(_))
        }
        Call::Budget(op) => matches!(op, BudgetOp::Usage { .. } | BudgetOp::Reservations { .. }),
        Call::Audit(op) => matches!(op, AuditOp::Run(_) | AuditOp::Ancestors(_) | AuditOp::LastRunOf(_)),
        Call::Checkpoint(op) => matches!(op, CheckpointOp::Load(_)),
        Call::List(..) | Call::FirstPage(..) | Call::NextPage(_) | Call::WrongCursor(_) => true,
    }
}

/// Makes a call of the store and of the model, and compares the answers.
pub(super) fn call(seams: &dyn Seams, world: &mut World, kept: &mut Option<Kept>, call: &Call) -> Check {
    match call {
        Call::Catalog(Of::Skills, CatalogOp::ByWebhook(_)) => Ok(()),
        Call::Catalog(Of::Skills, op) => on_catalog::<Skill>(seams, world, op),
        Call::Catalog(Of::Agents, CatalogOp::ByWebhook(webhook)) => {
            let digest = pool::webhook(*webhook);
            let found = catalog::find::<Agent>(world, |agent| agent.webhook.as_ref() == Some(&digest));
            same(call, seams.agents().by_webhook(&digest), found)
        }
        Call::Catalog(Of::Agents, op) => on_catalog::<Agent>(seams, world, op),
        Call::Budget(op) => on_budget(seams, world, op),
        Call::Audit(op) => on_audit(seams, world, op),
        Call::Checkpoint(op) => on_checkpoint(seams, world, op),
        Call::List(list, size) => Listing::of(world, list).whole(seams, world, *size),
        Call::FirstPage(list, size) => {
            *kept = Listing::of(world, list).first(seams, world, *size)?;
            Ok(())
        }
        Call::NextPage(size) => {
            if let Some(cursor) = kept.take() {
                *kept = cursor.next(seams, world, *size)?;
            }
            Ok(())
        }
        Call::WrongCursor(list) => Listing::of(world, list).with_wrong_cursor(seams),
    }
}

/// Compares an answer of the store with the model's, errors with their kinds and details.
fn same(
    call: &impl std::fmt::Debug,
    real: Result<impl Serialize>,
    foreseen: Answer<impl Serialize>,
) -> Check {
    let real: Answer<Value> = real.map(value).map_err(Refusal::from);
    let foreseen: Answer<Value> = foreseen.map(value);
    if real == foreseen { Ok(()) } else { Err(differs(&format!("{call:?}"), &real, &foreseen)) }
}

fn new_version<D: Shelved>(world: &World, of: &NewVersionOf) -> NewVersion<D> {
    NewVersion {
        id: pool::version_id(of.id),
        snapshot: D::make(world, &of.doc),
        label: pool::body(of.doc.body),
        saved_by: pool::principal(of.doc.owner),
        saved_at: world.when(of.saved_at),
        summary: String::new(),
        pinned: of.pinned,
        extra: pool::extra(of.doc.name),
    }
}

fn edit<D: Shelved>(world: &World, edit: &Edit, doc: &mut D) {
    match *edit {
        Edit::Body(body) | Edit::GiveUp(body) => doc.set_body(pool::body(body)),
        Edit::Name(name) => doc.set_name(pool::name(name)),
        Edit::Cron(cron, next) => {
            let next = world.maybe(next);
            doc.set_schedule(Some(Schedule::new(pool::CRONS[usize::from(cron)], "", next)));
        }
        Edit::Unschedule => doc.set_schedule(None),
        Edit::Nul => doc.set_body("\0".into()),
        Edit::Id(id) => doc.set_id(id),
    }
}

fn on_catalog<D: Shelved>(seams: &dyn Seams, world: &mut World, op: &CatalogOp) -> Check {
    let store = D::catalog(seams);
    let make_id = |id: u8| D::Id::try_from(pool::IDS[usize::from(id)].to_owned()).unwrap();
    let text = |id: u8| pool::IDS[usize::from(id)];
    match *op {
        CatalogOp::Get(id) => same(op, store.get(&make_id(id)), catalog::get::<D>(world, text(id))),
        CatalogOp::ByName { owner, name } => {
            let (owner, name) = (pool::principal(owner), pool::name(name));
            let found = catalog::find::<D>(world, |doc| *doc.owner() == owner && *doc.name() == name);
            same(op, store.by_name(&owner, &name), found)
        }
        CatalogOp::ByWebhook(_) => Ok(()),
        CatalogOp::Save(doc, expect) => {
            let expect = world.expect(expect, catalog::revision::<D>(world, text(doc.id)));
            let doc = D::make(world, &doc);
            same(op, store.save(&doc, expect), catalog::save(world, &doc, expect))
        }
        CatalogOp::Update(id, change) => {
            let before = world.clone();
            let gives_up = matches!(change, Edit::GiveUp(_));
            let real = store.update(&make_id(id), &mut |doc: &mut D| {
                edit(&before, &change, doc);
                if gives_up { Err(store_api::Error::invalid("edit", "gives up")) } else { Ok(()) }
            });
            let foreseen = catalog::update::<D>(world, text(id), |doc| {
                edit(&before, &change, doc);
                if gives_up { Err(Refusal::InvalidInput) } else { Ok(()) }
            });
            same(op, real, foreseen)
        }
        CatalogOp::Delete(id, expect) => {
            let expect = world.expect(expect, catalog::revision::<D>(world, text(id)));
            same(op, store.delete(&make_id(id), expect), catalog::delete::<D>(world, text(id), expect))
        }
        CatalogOp::Append(version) => {
            let version = new_version::<D>(world, &version);
            same(op, store.append_version(&version), catalog::append(world, &version))
        }
        CatalogOp::Publish(version, expect) => {
            let expect = world.expect(expect, catalog::revision::<D>(world, text(version.doc.id)));
            let version = new_version::<D>(world, &version);
            same(op, store.publish(&version, expect), catalog::publish(world, &version, expect))
        }
        CatalogOp::Version(id) => {
            let id = pool::version_id(id);
            same(op, store.version(&id), catalog::version::<D>(world, id.as_str()))
        }
        CatalogOp::Latest(id) => {
            let newest = catalog::versions::<D>(world, text(id)).into_iter().next();
            same(op, store.latest(&make_id(id)), Ok(newest))
        }
        CatalogOp::Restore(id, expect) => {
            let id = pool::version_id(id);
            let of = catalog::version::<D>(world, id.as_str()).unwrap_or_default();
            let stored = of.and_then(|version| catalog::revision::<D>(world, version.snapshot.id().as_ref()));
            let expect = world.expect(expect, stored);
            same(op, store.restore(&id, expect), catalog::restore::<D>(world, id.as_str(), expect))
        }
        CatalogOp::Pin(id, pinned) => {
            let id = pool::version_id(id);
            same(op, store.pin_version(&id, pinned), catalog::pin::<D>(world, id.as_str(), pinned))
        }
        CatalogOp::Prune(id, keep) => {
            let keep = usize::from(keep);
            same(op, store.prune_versions(&make_id(id), keep), catalog::prune::<D>(world, text(id), keep))
        }
        CatalogOp::Mark(id, ran, next) => {
            let (ran, next) = (world.when(ran), world.maybe(next));
            let foreseen = catalog::mark::<D>(world, text(id), ran, next);
            same(op, store.mark_scheduled_run(&make_id(id), ran, next), foreseen)
        }
        CatalogOp::Reschedule(id, next) => {
            let next = world.maybe(next);
            let foreseen = catalog::reschedule::<D>(world, text(id), next);
            same(op, store.reschedule(&make_id(id), next), foreseen)
        }
        CatalogOp::ClaimDue { now, worker, lease, max } => {
            let (now, worker) = (world.when(now), pool::worker(worker));
            let (lease, max) = (pool::lease(lease), pool::max(max));
            let foreseen = catalog::claim_due::<D>(world, now, &worker, lease, max);
            same(op, store.claim_due(now, &worker, lease, max), foreseen)
        }
        CatalogOp::FinishClaim { id, token, now, ran_at, next } => {
            let token = world.token(token, catalog::token::<D>(world, text(id)));
            let (now, ran, next) = (world.when(now), world.when(ran_at), world.maybe(next));
            let foreseen = catalog::finish_claim::<D>(world, text(id), token.0, now, ran, next);
            same(op, store.finish_claim(&make_id(id), token, now, ran, next), foreseen)
        }
        CatalogOp::RenewClaim { id, token, now, lease } => {
            let token = world.token(token, catalog::token::<D>(world, text(id)));
            let (now, lease) = (world.when(now), pool::lease(lease));
            let foreseen = catalog::renew_claim::<D>(world, text(id), token.0, now, lease);
            same(op, store.renew_claim(&make_id(id), token, now, lease), foreseen)
        }
        CatalogOp::ReleaseClaim { id, token, now } => {
            let token = world.token(token, catalog::token::<D>(world, text(id)));
            let now = world.when(now);
            let foreseen = catalog::release_claim::<D>(world, text(id), token.0, now);
            same(op, store.release_claim(&make_id(id), token, now), foreseen)
        }
    }
}

fn on_budget(seams: &dyn Seams, world: &mut World, op: &BudgetOp) -> Check {
    let store = seams.budgets();
    let charge = |account, amount, key: Option<u8>| Charge { account, amount, key: key.map(pool::key) };
    match *op {
        BudgetOp::Usage { account, now } => {
            let ((of, account), now) = (pool::account(account), world.when(now));
            same(op, store.usage(&account, now), budget::usage(world, of, now))
        }
        BudgetOp::Add { account, amount, key, now } => {
            let ((of, account), now) = (pool::account(account), world.when(now));
            let charge = charge(account, pool::amount(amount), key);
            let key = charge.key.as_ref().map(|key| key.as_str());
            let foreseen = budget::charge(world, of, charge.amount.micros(), key, None, now);
            same(op, store.add(&charge, now), foreseen)
        }
        BudgetOp::Admit { account, amount, key, limit, now } => {
            let ((of, account), now) = (pool::account(account), world.when(now));
            let (charge, limit) = (charge(account, pool::amount(amount), key), pool::amount(limit));
            let key = charge.key.as_ref().map(|key| key.as_str());
            let foreseen = budget::charge(world, of, charge.amount.micros(), key, Some(limit.micros()), now);
            same(op, store.admit(&charge, limit, now), foreseen)
        }
        BudgetOp::Reserve { account, id, amount, expires, limit, now } => {
            let ((of, account), now) = (pool::account(account), world.when(now));
            let (id, estimate, limit) = (pool::reservation(id), pool::amount(amount), pool::amount(limit));
            let hold = Reservation { id, account, estimate, expires_at: world.when(expires) };
            let foreseen = budget::reserve(world, of, &hold, limit.micros(), now);
            same(op, store.reserve(&hold, limit, now), foreseen)
        }
        BudgetOp::Settle { account, id, amount, now } => {
            let ((of, account), now) = (pool::account(account), world.when(now));
            let (id, actual) = (pool::reservation(id), pool::amount(amount));
            let foreseen = budget::settle(world, of, id.as_str(), actual.micros(), now);
            same(op, store.settle(&account, &id, actual, now), foreseen)
        }
        BudgetOp::Release { account, id, now } => {
            let ((of, account), now, id) = (pool::account(account), world.when(now), pool::reservation(id));
            let foreseen = budget::release(world, of, id.as_str(), now);
            same(op, store.release(&account, &id, now), foreseen)
        }
        BudgetOp::Reservations { account, now } => {
            let ((of, account), now) = (pool::account(account), world.when(now));
            let real = store.reservations(&account, now).map(|all| {
                let shown = |hold: Reservation| {
                    assert_eq!(hold.account, account);
                    (hold.id.to_string(), hold.estimate, hold.expires_at)
                };
                all.into_iter().map(shown).collect::<Vec<_>>()
            });
            same(op, real, budget::standing(world, of, now))
        }
        BudgetOp::Reset(account) => {
            let (of, account) = pool::account(account);
            same(op, store.reset(&account), budget::reset(world, of))
        }
    }
}

fn new_run(world: &World, start: &Start) -> NewRun {
    NewRun {
        id: pool::run_id(start.id),
        parent: start.parent.map(pool::run_id),
        skill: start.skill.map(pool::skill_id),
        agent: start.agent.map(pool::agent_id),
        caller: pool::principal(start.caller),
        channel: start.channel.map(pool::channel),
        started_at: world.when(start.at),
        input: json!({ "text": pool::body(start.id) }),
        // A run has a field "id" of its own, so the same flaws serve.
        extra: pool::run_extra(start.id, start.flaw.filter(|flaw| matches!(flaw, Flaw::Nul | Flaw::Shadow))),
    }
}

fn outcome(index: u8) -> RunOutcome {
    use RunOutcome::{Abandoned, Cancelled, Failed, Succeeded};
    [Succeeded, Failed, Cancelled, Abandoned][usize::from(index)]
}

fn on_audit(seams: &dyn Seams, world: &mut World, op: &AuditOp) -> Check {
    let store = seams.audit();
    match *op {
        AuditOp::Start(start) => {
            let run = new_run(world, &start);
            same(op, store.start_run(&run), audit::start(world, &run))
        }
        AuditOp::Finish { id, outcome: how, at, tokens, cost } => {
            let finish = Finish {
                output: json!(pool::body(tokens)),
                error: (how == 1).then(|| pool::body(cost)),
                tokens: Tokens {
                    input: if tokens % 8 == 0 { u64::MAX } else { tokens.into() },
                    output: cost.into(),
                },
                cost: pool::amount(cost),
                extra: pool::extra(cost),
                ..Finish::new(outcome(how), world.when(at))
            };
            let id = pool::run_id(id);
            same(op, store.finish_run(&id, &finish), audit::finish(world, id.as_str(), &finish))
        }
        AuditOp::FinishAgain(id) => {
            let id = pool::run_id(id);
            let finish = world.runs.get(id.as_str()).and_then(|run| run.finish.clone());
            let Some(finish) = finish else { return Ok(()) };
            same(op, store.finish_run(&id, &finish), audit::finish(world, id.as_str(), &finish))
        }
        AuditOp::Event { run, at, payload } => {
            let run = pool::run_id(run);
            let event = NewEvent {
                kind: format!("kind {payload}"),
                at: world.when(at),
                payload: Value::Object(pool::extra(payload)),
            };
            same(op, store.append_event(&run, &event), audit::append(world, run.as_str(), &event))
        }
        AuditOp::Run(id) => {
            let id = pool::run_id(id);
            same(op, store.run(&id), Ok(world.runs.get(id.as_str()).map(|run| run.shown())))
        }
        AuditOp::Ancestors(id) => {
            let id = pool::run_id(id);
            same(op, store.ancestors(&id), audit::ancestors(world, id.as_str()))
        }
        AuditOp::LastRunOf(skills) => {
            let texts = skills.map(|skill| pool::IDS[usize::from(skill)]);
            same(op, store.last_run_of(&skills.map(pool::skill_id)), Ok(audit::last_run_of(world, &texts)))
        }
        AuditOp::Abandon { before, now, max } => {
            let (before, now, max) = (world.when(before), world.when(now), pool::max(max));
            same(op, store.abandon_stale(before, now, max), audit::abandon(world, before, now, max))
        }
        AuditOp::Purge { before, dry_run } => {
            let before = world.when(before);
            same(op, store.purge_before(before, dry_run), audit::purge(world, before, dry_run))
        }
    }
}

fn on_checkpoint(seams: &dyn Seams, world: &mut World, op: &CheckpointOp) -> Check {
    let store = seams.checkpoints();
    match *op {
        CheckpointOp::Save { run, iteration, state, at } => {
            let checkpoint = Checkpoint {
                run: pool::run_id(run),
                meta: pool::extra(state),
                iteration: [0, 1, 2, 3, i64::MAX as u64, 1 << 63][usize::from(iteration)],
                state: json!([pool::body(state)]),
                updated_at: world.when(at),
                extra: pool::extra(state.wrapping_add(1)),
            };
            same(op, store.save(&checkpoint), checkpoint::save(world, &checkpoint))
        }
        CheckpointOp::Load(run) => {
            let run = pool::run_id(run);
            same(op, store.load(&run), Ok(world.checkpoints.get(run.as_str()).map(|saved| &saved.saved)))
        }
        CheckpointOp::Delete(run) => {
            let run = pool::run_id(run);
            same(op, store.delete(&run), checkpoint::delete(world, run.as_str()))
        }
        CheckpointOp::Claim { run, now, worker, lease } => {
            let (run, now) = (pool::run_id(run), world.when(now));
            let (worker, lease) = (pool::worker(worker), pool::lease(lease));
            let foreseen = checkpoint::claim(world, run.as_str(), now, &worker, lease);
            same(op, store.claim(&run, now, &worker, lease), foreseen)
        }
        CheckpointOp::ClaimInterrupted { now, worker, lease, max } => {
            let (now, worker) = (world.when(now), pool::worker(worker));
            let (lease, max) = (pool::lease(lease), pool::max(max));
            let foreseen = checkpoint::claim_interrupted(world, now, &worker, lease, max);
            same(op, store.claim_interrupted(now, &worker, lease, max), foreseen)
        }
        CheckpointOp::Renew { run, token, now, lease } => {
            let (run, now, lease) = (pool::run_id(run), world.when(now), pool::lease(lease));
            let token = world.token(token, checkpoint::token(world, run.as_str()));
            let foreseen = checkpoint::renew(world, run.as_str(), token.0, now, lease);
            same(op, store.renew_claim(&run, token, now, lease), foreseen)
        }
        CheckpointOp::Release { run, token, now } => {
            let (run, now) = (pool::run_id(run), world.when(now));
            let token = world.token(token, checkpoint::token(world, run.as_str()));
            let foreseen = checkpoint::release(world, run.as_str(), token.0, now);
            same(op, store.release_claim(&run, token, now), foreseen)
        }
    }
}

/// Compares everything that can be looked up, after the lists.
pub(super) fn look_up_everything(seams: &dyn Seams, world: &mut World) -> Check {
    let now = super::op::When::Now;
    let mut calls = Vec::new();
    for of in [Of::Skills, Of::Agents] {
        let ids = 0..pool::IDS.len() as u8;
        calls.extend(
            ids.flat_map(|id| [CatalogOp::Get(id), CatalogOp::Latest(id)]).map(|op| Call::Catalog(of, op)),
        );
        let names = 0..pool::NAMES.len() as u8;
        let named = names.flat_map(|name| [0, 1].map(|owner| CatalogOp::ByName { owner, name }));
        calls.extend(named.map(|op| Call::Catalog(of, op)));
        calls.extend((0..pool::VERSIONS.len() as u8).map(|id| Call::Catalog(of, CatalogOp::Version(id))));
    }
    calls.extend([0, 1].map(|webhook| Call::Catalog(Of::Agents, CatalogOp::ByWebhook(webhook))));
    calls.extend((0..pool::ACCOUNTS.len() as u8).flat_map(|account| {
        [BudgetOp::Usage { account, now }, BudgetOp::Reservations { account, now }].map(Call::Budget)
    }));
    calls.extend((0..pool::RUNS.len() as u8).flat_map(|run| {
        [
            Call::Audit(AuditOp::Run(run)),
            Call::Audit(AuditOp::Ancestors(run)),
            Call::Checkpoint(CheckpointOp::Load(run)),
        ]
    }));
    calls.push(Call::Audit(AuditOp::LastRunOf([0, 1, 2])));
    calls.iter().try_for_each(|one| call(seams, world, &mut None, one))
}
