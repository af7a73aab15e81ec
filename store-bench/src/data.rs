//! The data: made from numbers, so that it is the same for everybody and every run.

use chrono::{DateTime, Utc};
use serde_json::json;
use store_api::{
    Account, Amount, Charge, Checkpoint, Finish, MeterName, Name, NewEvent, NewRun, NewVersion, PrincipalId,
    RunId, RunOutcome, Schedule, Skill, SkillId, Tag, Tokens, VersionId, Window, WorkerId, time,
};

use crate::subject::Result;

/// How large a definition's document is, as JSON.
pub(crate) const DOCUMENT_BYTES: usize = 2_048;

/// How many accounts there are.
pub(crate) const ACCOUNTS: u64 = 64;

const PROSE: &str = "Read the open issues of the last week, group them by label and say in three sentences \
                     what changed.\nNever close one.\n- Ask before you post; cite each issue by its number.\n";

const BEGINNING: i64 = 1_700_000_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// A moment, in seconds after where the data begins.
pub(crate) fn at(seconds: u64) -> DateTime<Utc> {
    time::from_nanos(BEGINNING.saturating_add_unsigned(seconds.saturating_mul(SECOND)))
}

/// A text of that many bytes.
pub(crate) fn prose(bytes: usize) -> String {
    PROSE.chars().cycle().take(bytes).collect()
}

/// Numbers that follow each other, thrown about below `limit`.
pub(crate) fn scatter(n: u64, limit: u64) -> u64 {
    (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % limit
}

pub(crate) fn skill_id(n: u64) -> Result<SkillId> {
    Ok(SkillId::new(format!("skill-{n:08}"))?)
}

/// The ids of the first skills.
pub(crate) fn skill_ids(count: u64) -> Result<Vec<SkillId>> {
    (0..count).map(skill_id).collect()
}

pub(crate) fn owner() -> Result<PrincipalId> {
    Ok(PrincipalId::new("ana@example.org")?)
}

pub(crate) fn name(n: u64) -> Result<Name> {
    Ok(Name::new(format!("weekly report {n:08}"))?)
}

pub(crate) fn worker(n: usize) -> Result<WorkerId> {
    Ok(WorkerId::new(format!("worker-{n}"))?)
}

/// As long as a UUID, and rising as those of version 7 do.
pub(crate) fn version_id(n: u64) -> Result<VersionId> {
    Ok(VersionId::new(format!("version-{n:028}"))?)
}

/// A skill whose document is about `bytes` long, due once a week.
pub(crate) fn skill(n: u64, bytes: usize) -> Result<Skill> {
    let mut skill = Skill::new(skill_id(n)?, owner()?, name(n)?);
    skill.description = format!("Writes weekly report {n} from the issues of one repository");
    skill.tags = ["reports", "weekly"].into_iter().map(Tag::new).collect::<store_api::Result<_>>()?;
    skill.tools = ["read_file", "list_issues", "post_message"].map(str::to_owned).into();
    skill.schedule = Some(Schedule::new("0 7 * * 1", "Europe/Berlin", Some(at(n))));
    let without = serde_json::to_string(&skill)?.len();
    skill.body = prose(bytes.saturating_sub(without));
    Ok(skill)
}

/// The `n`-th version of all, one of skill `of`.
pub(crate) fn version(n: u64, of: u64, bytes: usize) -> Result<NewVersion<Skill>> {
    let mut snapshot = skill(of, bytes)?;
    if let Some(schedule) = &mut snapshot.schedule {
        schedule.next_run_at = None;
    }
    let mut version = NewVersion::new(version_id(n)?, snapshot, owner()?, at(n));
    version.summary = "Shorter, and with the issue's number".into();
    Ok(version)
}

fn caller(n: u64) -> Result<PrincipalId> {
    Ok(PrincipalId::new(format!("caller-{:08}", n))?)
}

pub(crate) fn charge(account: u64) -> Result<Charge> {
    let account = Account::new(caller(account)?, MeterName::new("usd")?, Window::default());
    Ok(Charge::new(account, Amount::from_micros(1_250)?))
}

pub(crate) fn charges() -> Result<Vec<Charge>> {
    (0..ACCOUNTS).map(charge).collect()
}

pub(crate) fn run_id(n: u64) -> Result<RunId> {
    Ok(RunId::new(format!("run-{n:010}"))?)
}

/// The `n`-th run, of skill `of`.
pub(crate) fn run(id: RunId, n: u64, of: u64) -> Result<NewRun> {
    let mut run = NewRun::new(id, caller(n % ACCOUNTS)?, at(n));
    run.skill = Some(skill_id(of)?);
    run.input = json!({"repository": "example/reports", "week": n % 53, "ask": prose(100)});
    Ok(run)
}

pub(crate) fn finish(n: u64) -> Result<Finish> {
    let outcome = if n.is_multiple_of(16) { RunOutcome::Failed } else { RunOutcome::Succeeded };
    let mut finish = Finish::new(outcome, at(n + 30));
    finish.output = json!({"posted": true, "issues": n % 40});
    finish.tokens = Tokens { input: 2_000 + n % 1_000, output: 300 };
    finish.cost = Amount::from_micros(1_250)?;
    Ok(finish)
}

/// An event of about 300 bytes.
pub(crate) fn event(n: u64) -> NewEvent {
    let payload = json!({"tool": "list_issues", "arguments": {"page": n % 10}, "result": prose(220)});
    NewEvent { kind: "tool_call".into(), at: at(n), payload }
}

/// A checkpoint whose state is `bytes` long.
pub(crate) fn checkpoint(run: RunId, iteration: u64, bytes: usize) -> Checkpoint {
    let messages: Vec<_> =
        (0..bytes.div_ceil(512)).map(|_| json!({"role": "assistant", "content": prose(470)})).collect();
    Checkpoint::new(run, iteration, json!({ "messages": messages }), at(iteration))
}
