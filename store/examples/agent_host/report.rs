//! What the week was like, from what the store says and nothing else.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::Value;
use store::{
    Account, Agent, Amount, Definition, GroupBy, PageRequest, PurgeReport, Result, Run, RunFilter, RunId,
    RunStatus, Seams, Skill, StoreExt, Stored, SummaryRow, page,
};

use crate::host::{DEFAULT_WEEKLY, Host, parse, payer};
use crate::table::{bar, line, table, title};
use crate::work::Sheet;
use crate::world::{MESSAGES_A_WEEK, messages_account};

/// How many findings of one skill are named; the rest are counted.
const FINDINGS: usize = 5;

/// The report, from one view of the store.
pub(crate) fn report(host: &Host) -> Result<String> {
    host.store.view(|seams| {
        let end = host.end_of_week()?;
        let names = Names::read(host, seams)?;
        let filter = RunFilter { from: Some(host.start), to: Some(end), ..RunFilter::default() };
        let runs: Result<Vec<_>> = page::all(500, |page| seams.audit().runs(&filter, page)).collect();
        let week = Week { host, seams, names, filter, runs: runs?, end };
        let mut text = String::new();
        let span = (host.start.format("%A %-d %B"), end.format("%A %-d %B %Y"));
        line(&mut text, format_args!("The week of {}: {} to {}", host.owner, span.0, span.1));
        let rule = "═".repeat(text.trim_end().chars().count());
        line(&mut text, format_args!("{rule}"));
        for section in [
            definitions,
            days,
            by_skill,
            by_caller,
            budgets,
            findings,
            requests,
            clocks,
            versions,
            one_call,
            housekeeping,
        ] {
            section(&week, &mut text)?;
        }
        Ok(text)
    })
}

struct Week<'a> {
    host: &'a Host,
    seams: &'a dyn Seams,
    names: Names,
    filter: RunFilter,
    /// Newest first.
    runs: Vec<std::sync::Arc<Run>>,
    end: DateTime<Utc>,
}

/// The definitions, and their names by id.
struct Names {
    skills: Vec<Stored<Skill>>,
    agents: Vec<Stored<Agent>>,
    by_id: BTreeMap<String, String>,
}

impl Names {
    fn read(host: &Host, seams: &dyn Seams) -> Result<Names> {
        let (skills, agents) = (host.definitions::<Skill>(seams)?, host.definitions::<Agent>(seams)?);
        let by_id = skills.iter().map(|skill| (skill.id.to_string(), skill.name.to_string()));
        let by_id =
            by_id.chain(agents.iter().map(|agent| (agent.id.to_string(), agent.name.to_string()))).collect();
        Ok(Names { skills, agents, by_id })
    }

    fn of<'a>(&'a self, id: &'a str) -> &'a str {
        self.by_id.get(id).map_or(id, String::as_str)
    }
}

impl Week<'_> {
    fn summary(&self, group_by: GroupBy) -> Result<Vec<SummaryRow>> {
        page::all(100, |page| self.seams.audit().summary(&self.filter, group_by, page)).collect()
    }

    /// Runs, outcomes, time, tokens and money, one row for each group.
    fn sums(&self, head: &str, group_by: GroupBy, without: &str) -> Result<String> {
        let mut rows: Vec<Vec<String>> = Vec::new();
        for row in self.summary(group_by)? {
            let group = row.group.as_deref().map_or(without, |id| self.names.of(id)).to_owned();
            let status = |status| row.by_status.get(&status).copied().unwrap_or_default();
            rows.push(vec![
                group,
                row.runs.to_string(),
                status(RunStatus::Succeeded).to_string(),
                dash(status(RunStatus::Failed)),
                dash(status(RunStatus::Cancelled)),
                format!("{}s", row.duration_nanos / 1_000_000_000),
                row.tokens.input.to_string(),
                row.tokens.output.to_string(),
                dollars(row.cost),
            ]);
        }
        rows.sort();
        Ok(table(
            &[head, "runs", "done", "failed", "refused", "time", "tokens in", "out", "cost"],
            &[],
            &rows,
        ))
    }
}

fn definitions(week: &Week<'_>, text: &mut String) -> Result<()> {
    fn row<D: Definition>(week: &Week<'_>, doc: &Stored<D>, kind: &str) -> Result<Vec<String>> {
        let versions = D::catalog(week.seams).versions(doc.id(), &PageRequest::default())?.items;
        let schedule = doc.schedule();
        Ok(vec![
            doc.name().to_string(),
            kind.to_owned(),
            versions.first().map_or_else(|| "–".to_owned(), |version| format!("v{}", version.seq)),
            schedule.map_or("–", |s| s.cron.as_str()).to_owned(),
            schedule.and_then(|s| s.last_run_at).map_or_else(|| "–".to_owned(), moment),
            schedule.and_then(|s| s.next_run_at).map_or_else(|| "–".to_owned(), moment),
        ])
    }
    title(text, "What is here");
    let skills = week.names.skills.iter().map(|doc| row(week, doc, "skill"));
    let agents = week.names.agents.iter().map(|doc| row(week, doc, "agent"));
    let rows: Result<Vec<_>> = skills.chain(agents).collect();
    text.push_str(&table(
        &["name", "kind", "at", "schedule", "last ran (UTC)", "next"],
        &[1, 2, 3, 4, 5],
        &rows?,
    ));
    Ok(())
}

fn days(week: &Week<'_>, text: &mut String) -> Result<()> {
    title(text, "Day by day");
    let rows = week.summary(GroupBy::Day)?;
    let most = rows.iter().map(|row| row.runs).max().unwrap_or(0);
    for row in rows {
        let day = row.group.as_deref().and_then(|day| day.parse::<chrono::NaiveDate>().ok());
        let day = day.map_or_else(String::new, |day| day.format("%a %e %b").to_string());
        let bar = bar(row.runs, most, 40);
        let noun = if row.runs == 1 { "run" } else { "runs" };
        line(text, format_args!("  {day}  {bar} {:>3} {noun:<4} {:>7}", row.runs, dollars(row.cost)));
    }
    Ok(())
}

fn by_skill(week: &Week<'_>, text: &mut String) -> Result<()> {
    title(text, "By skill");
    text.push_str(&week.sums("skill", GroupBy::Skill, "(agents themselves)")?);
    Ok(())
}

fn by_caller(week: &Week<'_>, text: &mut String) -> Result<()> {
    title(text, "By who pays");
    text.push_str(&week.sums("caller", GroupBy::Caller, "–")?);
    let total = week.summary(GroupBy::Nothing)?.pop().unwrap_or_default();
    line(text, format_args!("  Together {} runs and {}.", total.runs, dollars(total.cost)));
    Ok(())
}

fn budgets(week: &Week<'_>, text: &mut String) -> Result<()> {
    title(text, "Weekly budgets");
    let mut limits = vec![(messages_account()?, Amount::from_units(MESSAGES_A_WEEK)?)];
    for agent in &week.names.agents {
        let payer = payer(agent)?;
        limits.push((payer.account()?, payer.weekly));
    }
    for usage in page::all(100, |page| week.seams.budgets().accounts(week.end, page)) {
        let usage = usage?;
        let limit = limits.iter().find(|(account, _)| *account == usage.account);
        let limit = limit.map_or_else(|| DEFAULT_WEEKLY.parse(), |(_, limit)| Ok(*limit))?;
        let used = usage.usage.used;
        let percent = used.micros().saturating_mul(100) / limit.micros().max(1);
        let Account { caller, meter } = &usage.account;
        let bar = bar(used.micros(), limit.micros(), 30);
        let (used, limit) = match meter.name.as_str() {
            "usd" => (dollars(used), dollars(limit)),
            _ => (used.to_string(), limit.to_string()),
        };
        let name = format!("{caller} ({})", meter.name);
        line(text, format_args!("  {name:<20} {bar} {percent:>3}%  {used} of {limit}"));
    }
    Ok(())
}

fn findings(week: &Week<'_>, text: &mut String) -> Result<()> {
    title(text, "What the skills found, each the last time it was done");
    let ids: Vec<_> = week.names.skills.iter().take(page::MAX_PAGE).map(|skill| skill.id.clone()).collect();
    for last in week.seams.audit().last_run_of(&ids)? {
        // The last run may be one that there was no money for.
        let earlier = || week.runs.iter().find(|run| run.skill == last.skill && done(run).is_some());
        let Some(run) = done(&last).map(|_| &last).or_else(earlier) else { continue };
        let sheet: Sheet = parse(done(run).cloned().unwrap_or_default())?;
        let counts: Vec<_> =
            sheet.counts.iter().filter(|(_, n)| **n > 0).map(|(k, n)| format!("{n} {k}")).collect();
        let name = run.skill.as_ref().map_or("–", |id| week.names.of(id.as_str()));
        line(text, format_args!("  {name}: {}", counts.join(", ")));
        for finding in sheet.findings.iter().take(FINDINGS) {
            line(text, format_args!("    {}:{}  {}", finding.page, finding.line, finding.text));
        }
        let more = sheet.findings.len().saturating_sub(FINDINGS) + sheet.more;
        if more > 0 {
            line(text, format_args!("    … and {more} more"));
        }
    }
    Ok(())
}

/// What a run that was done gave.
fn done(run: &Run) -> Option<&Value> {
    run.finish.as_ref().filter(|_| run.status == RunStatus::Succeeded).map(|finish| &finish.output)
}

fn requests(week: &Week<'_>, text: &mut String) -> Result<()> {
    title(text, "Who asked");
    let asked = |run: &&std::sync::Arc<Run>| run.parent.is_none() && run.channel.is_some();
    for run in week.runs.iter().rev().filter(asked) {
        let what = run.input.get("asks").and_then(Value::as_str).unwrap_or("something");
        let who = run.agent.as_ref().map_or("nobody", |id| week.names.of(id.as_str()));
        let end = match run.finish.as_ref().and_then(|finish| finish.error.as_deref()) {
            Some(error) => error.to_owned(),
            None => format!("{who} did"),
        };
        let channel = run.channel.as_ref().map_or("–", |channel| channel.as_str());
        line(text, format_args!("  {}  #{channel} {what:<18} {end}", moment(run.started_at)));
    }
    let calls: Vec<_> =
        week.runs.iter().filter(|run| run.input.get("from").is_some_and(|f| f == "webhook")).collect();
    let calls: Vec<_> = calls.into_iter().filter(|run| run.parent.is_none()).collect();
    let failed = calls.iter().filter(|run| run.status == RunStatus::Failed).count();
    line(
        text,
        format_args!("  Webhooks were called {} times; {failed} calls met an empty budget.", calls.len()),
    );
    if let Some(first) = calls.iter().rev().find(|run| run.status == RunStatus::Failed) {
        let error = first.finish.as_ref().and_then(|finish| finish.error.as_deref()).unwrap_or_default();
        line(text, format_args!("  The first was that of {}: {error}.", moment(first.started_at)));
    }
    Ok(())
}

/// The runs of the daily skill, by its own clock and by ours: the week in which the clocks change shows.
fn clocks(week: &Week<'_>, text: &mut String) -> Result<()> {
    let scheduled = |skill: &&Stored<Skill>| {
        let due = |run: &std::sync::Arc<Run>| {
            run.skill.as_ref() == Some(&skill.id) && run.input.get("due").is_some()
        };
        week.runs.iter().filter(|run| due(run)).count()
    };
    let Some(skill) = week.names.skills.iter().max_by_key(scheduled).filter(|s| scheduled(s) > 0) else {
        return Ok(());
    };
    let Some(schedule) = &skill.schedule else { return Ok(()) };
    let zone: Tz = schedule.time_zone.parse().unwrap_or(Tz::UTC);
    title(text, &format!("The clock of {} ({:?} in {zone})", skill.name, schedule.cron));
    let runs = week.runs.iter().rev().filter(|run| run.skill.as_ref() == Some(&skill.id));
    let mut times = Vec::new();
    for due in runs.filter_map(|run| run.input.get("due")?.as_str()?.parse::<DateTime<Utc>>().ok()) {
        let local = due.with_timezone(&zone);
        times.push(format!("{} = {}", local.format("%a %H:%M %Z"), due.format("%H:%MZ")));
    }
    for four in times.chunks(4) {
        line(text, format_args!("  {}", four.join("   ")));
    }
    Ok(())
}

fn versions(week: &Week<'_>, text: &mut String) -> Result<()> {
    let Some(skill) = week.host.edited_skill(week.seams)? else { return Ok(()) };
    title(text, &format!("Versions of {}", skill.name));
    let versions = week.seams.skills().versions(&skill.id, &PageRequest::default())?.items;
    for version in &versions {
        let pin = if version.pinned { ", pinned" } else { "" };
        let (at, by) = (moment(version.saved_at), &version.saved_by);
        line(
            text,
            format_args!("  v{}  {at}  {by}: {} ({}{pin})", version.seq, version.summary, version.label),
        );
    }
    let appended = versions.first().map_or(0, |newest| newest.seq);
    let pruned = appended.saturating_sub(versions.len() as u64);
    line(text, format_args!("  Of {appended} versions {pruned} was pruned. No number comes back."));
    Ok(())
}

/// The newest run of a skill that an agent called, with its family and its events.
fn one_call(week: &Week<'_>, text: &mut String) -> Result<()> {
    let Some(run) = week.runs.iter().find(|run| run.parent.is_some() && run.status == RunStatus::Succeeded)
    else {
        return Ok(());
    };
    let name = |run: &Run| {
        let id = run.skill.as_ref().map(|id| id.as_str()).or(run.agent.as_ref().map(|id| id.as_str()));
        id.map_or("–", |id| week.names.of(id)).to_owned()
    };
    let family: Vec<_> = week.seams.audit().ancestors(&run.id)?.iter().map(|run| name(run)).collect();
    title(text, &format!("One run in full: {}, called by {}", name(run), family.join(", called by ")));
    for event in week.seams.audit().events(&run.id, &PageRequest::default())?.items {
        line(
            text,
            format_args!(
                "  {}  {}  {} {}",
                event.seq,
                event.at.format("%H:%M:%S"),
                event.kind,
                event.payload
            ),
        );
    }
    Ok(())
}

fn housekeeping(week: &Week<'_>, text: &mut String) -> Result<()> {
    title(text, "Housekeeping");
    let closing: RunId = week.host.closing()?;
    let Some(run) = week.seams.audit().run(&closing)? else { return Ok(()) };
    let output = run.finish.as_ref().map(|finish| finish.output.clone()).unwrap_or_default();
    let abandoned = output.get("abandoned").and_then(Value::as_u64).unwrap_or_default();
    let purge: PurgeReport = parse(output.get("purge").cloned().unwrap_or_default())?;
    line(text, format_args!("  {abandoned} run that its host never finished was closed as abandoned."));
    line(
        text,
        format_args!(
            "  A purge of what ended more than three days ago would remove {} runs with {} events.",
            purge.runs, purge.events
        ),
    );
    let left = week.seams.checkpoints().interrupted(&PageRequest::default())?.items.len();
    line(text, format_args!("  {left} checkpoints are left."));
    Ok(())
}

/// A number, or a dash for none.
fn dash(count: u64) -> String {
    if count == 0 { "–".to_owned() } else { count.to_string() }
}

/// Dollars and cents, to the nearest.
fn dollars(amount: Amount) -> String {
    let cents = (amount.micros() + 5_000) / 10_000;
    format!("${}.{:02}", cents / 100, cents % 100)
}

fn moment(at: DateTime<Utc>) -> String {
    at.format("%a %e %b %H:%M").to_string()
}
