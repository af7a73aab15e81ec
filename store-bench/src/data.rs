//! The data: made from numbers, so that it is the same for everybody and every run.

use chrono::{DateTime, Utc};
use store_api::{
    Account, AccountRecord, Amount, Charge, Counter, DefinitionRecord, Ledger, MeterName, Name, NewVersion,
    PrincipalId, Record, Revision, Schedule, Skill, SkillId, Tag, Version, VersionId, Window, time,
};

use crate::subject::Result;

/// How large a definition's document is, as JSON.
pub(crate) const DOCUMENT_BYTES: usize = 2_048;

/// How many skills the small population has; each has a schedule.
pub(crate) const SKILLS: u64 = 1_000;
/// How many of them have a history.
pub(crate) const WITH_VERSIONS: u64 = 64;
/// How long it is.
pub(crate) const VERSIONS: u64 = 100;
/// How many accounts there are.
pub(crate) const ACCOUNTS: u64 = 64;

const PROSE: &str = "Read the open issues of the last week, group them by label and say in three sentences \
                     what changed.\nNever close one.\n- Ask before you post; cite each issue by its number.\n";

/// A moment, in seconds after where the data begins.
pub(crate) fn at(seconds: u64) -> DateTime<Utc> {
    time::from_nanos(
        1_700_000_000_000_000_000_i64.saturating_add_unsigned(seconds.saturating_mul(1_000_000_000)),
    )
}

pub(crate) fn skill_id(n: u64) -> Result<SkillId> {
    Ok(SkillId::new(format!("skill-{n:08}"))?)
}

pub(crate) fn owner() -> Result<PrincipalId> {
    Ok(PrincipalId::new("ana@example.org")?)
}

pub(crate) fn name(n: u64) -> Result<Name> {
    Ok(Name::new(format!("weekly report {n:08}"))?)
}

/// As long as a UUID, and rising as those of version 7 do.
pub(crate) fn version_id(n: u64) -> Result<VersionId> {
    Ok(VersionId::new(format!("version-{n:028}"))?)
}

/// A skill whose document is about `bytes` long.
pub(crate) fn skill(n: u64, bytes: usize) -> Result<Skill> {
    let mut skill = Skill::new(skill_id(n)?, owner()?, name(n)?);
    skill.description = format!("Writes weekly report {n} from the issues of one repository");
    skill.tags = ["reports", "weekly"].into_iter().map(Tag::new).collect::<store_api::Result<_>>()?;
    skill.tools = ["read_file", "list_issues", "post_message"].map(str::to_owned).into();
    skill.schedule = Some(Schedule::new("0 7 * * 1", "Europe/Berlin", Some(at(3_600 + n))));
    let without = serde_json::to_string(&skill)?.len();
    skill.body = PROSE.chars().cycle().take(bytes.saturating_sub(without)).collect();
    Ok(skill)
}

/// The `n`-th version of all, one of skill `of`.
pub(crate) fn version(n: u64, of: u64, bytes: usize) -> Result<NewVersion<Skill>> {
    let mut version = NewVersion::new(version_id(n)?, skill(of, bytes)?, owner()?, at(n));
    version.summary = "Shorter, and with the issue's number".into();
    Ok(version)
}

pub(crate) fn charge(account: u64) -> Result<Charge> {
    let caller = PrincipalId::new(format!("caller-{account:04}"))?;
    let account = Account::new(caller, MeterName::new("usd")?, Window::default());
    Ok(Charge::new(account, Amount::from_micros(1_250)?))
}

/// The records of the small population, in the order of an export.
pub(crate) fn small() -> Result<Vec<Record>> {
    let mut records = vec![Record::Counter(Counter { last: SKILLS })];
    for n in 0..SKILLS {
        let history = if n < WITH_VERSIONS { VERSIONS } else { 0 };
        let doc = skill(n, DOCUMENT_BYTES)?.into();
        records.push(Record::Skill(DefinitionRecord { doc, revision: Revision(n + 1), last_seq: history }));
        for seq in 1..=history {
            let mut content = version(n * VERSIONS + seq, n, DOCUMENT_BYTES)?;
            content.snapshot.schedule.as_mut().ok_or("has a schedule")?.next_run_at = None;
            records.push(Record::SkillVersion(Version { seq, content }));
        }
    }
    for n in 0..ACCOUNTS {
        records
            .push(Record::Account(AccountRecord { account: charge(n)?.account, ledger: Ledger::default() }));
    }
    Ok(records)
}
