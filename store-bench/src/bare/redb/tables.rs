//! The tables.

use redb::{TableDefinition, WriteTransaction};
use store_api::NewRun;

use crate::subject::Result;

type Text = &'static str;
type Json = &'static [u8];

pub(super) const COUNTER: TableDefinition<'_, (), u64> = TableDefinition::new("counter");

/// Skills, without their run state.
pub(super) const SKILLS: TableDefinition<'_, Text, Json> = TableDefinition::new("skills");
/// By owner and name.
pub(super) const NAMES: TableDefinition<'_, (Text, Text), Text> = TableDefinition::new("names");
pub(super) const LAST_SEQS: TableDefinition<'_, Text, u64> = TableDefinition::new("last_seqs");
/// next_run_at, last_run_at.
pub(super) type Times = (Option<i64>, Option<i64>);
pub(super) const TIMES: TableDefinition<'_, Text, Times> = TableDefinition::new("times");
/// Worker, until, token.
pub(super) const LEASES: TableDefinition<'_, Text, (Text, i64, u64)> = TableDefinition::new("leases");
/// By next_run_at.
pub(super) const DUE: TableDefinition<'_, (i64, Text), ()> = TableDefinition::new("due");

pub(super) const VERSIONS: TableDefinition<'_, (Text, u64), Json> = TableDefinition::new("versions");
pub(super) const VERSION_IDS: TableDefinition<'_, Text, (Text, u64)> = TableDefinition::new("version_ids");

pub(super) const ACCOUNTS: TableDefinition<'_, (Text, Text, Text), Json> = TableDefinition::new("accounts");

/// When it started, and how.
pub(super) const RUNS: TableDefinition<'_, Text, (i64, Json)> = TableDefinition::new("runs");
pub(super) const FINISHES: TableDefinition<'_, Text, Json> = TableDefinition::new("finishes");
/// Which list, of whom, when, which run.
pub(super) type Listed = (u8, Text, i64, Text);
pub(super) const RUN_LISTS: TableDefinition<'_, Listed, ()> = TableDefinition::new("run_lists");
pub(super) const EVENTS: TableDefinition<'_, (Text, u64), Json> = TableDefinition::new("events");

/// How far it is, and the document.
pub(super) const CHECKPOINTS: TableDefinition<'_, Text, (u64, Json)> = TableDefinition::new("checkpoints");

/// The lists of [`RUN_LISTS`].
pub(super) const BY_SKILL: u8 = 2;
pub(super) const BY_STATUS: u8 = 6;

/// The lists that a run stands in, but for that of its status.
pub(super) fn lists(run: &NewRun) -> impl Iterator<Item = (u8, &str)> {
    let skill = run.skill.as_ref().map(|skill| (BY_SKILL, skill.as_str()));
    let agent = run.agent.as_ref().map(|agent| (3, agent.as_str()));
    let channel = run.channel.as_ref().map(|channel| (5, channel.as_str()));
    let always =
        [(0, ""), (1, run.parent.as_ref().map_or("", |parent| parent.as_str())), (4, run.caller.as_str())];
    always.into_iter().chain([skill, agent, channel].into_iter().flatten())
}

pub(super) fn create(tx: &WriteTransaction) -> Result<()> {
    tx.open_table(COUNTER)?;
    tx.open_table(SKILLS)?;
    tx.open_table(NAMES)?;
    tx.open_table(LAST_SEQS)?;
    tx.open_table(TIMES)?;
    tx.open_table(LEASES)?;
    tx.open_table(DUE)?;
    tx.open_table(VERSIONS)?;
    tx.open_table(VERSION_IDS)?;
    tx.open_table(ACCOUNTS)?;
    tx.open_table(RUNS)?;
    tx.open_table(FINISHES)?;
    tx.open_table(RUN_LISTS)?;
    tx.open_table(EVENTS)?;
    tx.open_table(CHECKPOINTS)?;
    Ok(())
}
