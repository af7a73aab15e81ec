//! A stream of records of any length, for tests and measurements that need a store with much in it.

use std::sync::Arc;

use serde_json::{Value, json};
use store::*;

/// How many records one round makes: a skill with versions, an account, a run with events, a checkpoint.
const ROUND: u64 = 100;

/// How many versions a skill has, and a run's events fill the rest of the round.
const VERSIONS: u64 = 20;
const EVENTS: u64 = ROUND - VERSIONS - 4;

/// About `count` records of every kind, in the order of an export: never less than one round of them. Each
/// document or payload weighs about 200 bytes, and has fields that no version knows.
pub(crate) fn records(count: u64) -> impl Iterator<Item = Result<Record>> {
    let rounds = count.div_ceil(ROUND).max(1);
    let counter = Record::Counter(Counter { last: 2 * rounds });
    std::iter::once(Ok(counter))
        .chain((0..rounds).flat_map(skill))
        .chain((0..rounds).map(account))
        .chain((0..rounds).flat_map(run))
        .chain((0..rounds).map(checkpoint))
}

fn name(of: &str, number: u64) -> String {
    format!("{of}-{number:08}")
}

/// Text that does not compress to nothing.
fn text(number: u64) -> String {
    let words = (0..10).map(|at| format!("{:x}", json::checksum(&[&number.to_be_bytes(), &[at]])));
    words.collect::<Vec<_>>().join(" ")
}

fn extra(number: u64) -> json::Extra {
    [("x-new".to_owned(), json!({ "kept": 0.1, "number": number }))].into_iter().collect()
}

fn skill(number: u64) -> Vec<Result<Record>> {
    let doc = || -> Result<Skill> {
        let owner = PrincipalId::new("ana")?;
        let id = SkillId::new(name("skill", number))?;
        let doc = Skill::new(id, owner, Name::new(name("skill", number))?);
        Ok(Skill { body: text(number), extra: extra(number), ..doc })
    };
    let version = |seq: u64| -> Result<Record> {
        let id = VersionId::new(format!("{}-{seq}", name("version", number)))?;
        let at = time::from_nanos(i64::try_from(seq).unwrap_or(0));
        let content = NewVersion::new(id, doc()?, PrincipalId::new("ana")?, at);
        Ok(Record::SkillVersion(Version { seq, content }))
    };
    let definition = doc().map(|doc| {
        let record =
            DefinitionRecord { doc: Arc::new(doc), revision: Revision(number + 1), last_seq: VERSIONS };
        Record::Skill(record)
    });
    std::iter::once(definition).chain((1..=VERSIONS).map(version)).collect()
}

fn account(number: u64) -> Result<Record> {
    let caller = PrincipalId::new(name("caller", number))?;
    let account = Account::new(caller, MeterName::new("usd")?, Window::default());
    Ok(Record::Account(AccountRecord { account, ledger: Ledger::default() }))
}

fn run(number: u64) -> Vec<Result<Record>> {
    let started = || -> Result<Record> {
        let new =
            NewRun::new(RunId::new(name("run", number))?, PrincipalId::new("ana")?, time::from_nanos(7));
        Ok(Record::Run(Run::started(NewRun { extra: extra(number), ..new })))
    };
    let event = |seq: u64| -> Result<Record> {
        let payload = json!({ "text": text(seq), "of": number, "nothing": Value::Null });
        let content = NewEvent { kind: "step".into(), at: time::from_nanos(8), payload };
        Ok(Record::Event(Event { run: RunId::new(name("run", number))?, seq, content }))
    };
    std::iter::once(started()).chain((1..=EVENTS).map(event)).collect()
}

fn checkpoint(number: u64) -> Result<Record> {
    let run = RunId::new(name("run", number))?;
    let state = json!({ "text": text(number) });
    let checkpoint = Checkpoint::new(run, 3, state, time::from_nanos(9));
    Ok(Record::Checkpoint(CheckpointRecord { checkpoint: Arc::new(checkpoint), lease: None }))
}
