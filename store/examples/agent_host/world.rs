//! What happens around the host in the simulated week: messages, webhooks, people who edit, a host that is lost.
//!
//! Everything here may be asked for again after a crash and happens once: runs and versions have ids that say which.

use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveTime, TimeDelta, Utc, Weekday};
use serde_json::json;
use store::{
    Account, Agent, Amount, ChannelId, Charge, Definition, DigestKey, Entity, Error, Expect, Finish,
    IdempotencyKey, MeterName, NewRun, NewVersion, PrincipalId, Result, RunId, RunOutcome, Seams, Secret,
    Skill, StoreExt, Stored, VersionId, Window, page,
};
use store_files::sync::{Options, RENAMED};
use store_files::{sync_agents, sync_skills};

use crate::flags::Flags;
use crate::host::{Host, payer, value};
use crate::runs::{Job, Payer, Target};
use crate::schedule;

/// Messages that people send in a week: day, time (UTC), and the skill they ask for.
const MESSAGES: &[(Weekday, &str, &str)] = &[
    (Weekday::Mon, "09:20", "count-words"),
    (Weekday::Tue, "11:05", "check-links"),
    (Weekday::Tue, "16:40", "list-code-blocks"),
    (Weekday::Wed, "08:15", "table-of-contents"),
    (Weekday::Thu, "10:30", "check-links"),
    (Weekday::Thu, "10:45", "count-words"),
    (Weekday::Fri, "13:00", "count-words"),
    (Weekday::Fri, "13:10", "table-of-contents"),
];

/// How many messages one person may send in any seven days.
pub(crate) const MESSAGES_A_WEEK: u64 = 7;

/// Who sends them, and where.
const SENDER: &str = "ana";
const CHANNEL: &str = "docs";

/// When a changed page calls the webhooks, on working days.
const CALLS: &[&str] = &["08:10", "10:10", "13:10", "15:10"];

/// The key for digests of webhook secrets. A real host keeps a random one outside of the store.
fn digest_key() -> Result<DigestKey> {
    DigestKey::new("sample", *b"thirty-two bytes, known to all..")
}

/// The secret of an agent's webhook. A real one is random and known to the caller alone.
fn secret(agent: &str) -> Result<Secret> {
    Secret::new(format!("the sample secret of {agent}"))
}

/// The account on which messages are counted.
pub(crate) fn messages_account() -> Result<Account> {
    let window = Window::sliding(Duration::from_secs(7 * 24 * 3600), 168)?;
    Ok(Account::new(PrincipalId::new(SENDER)?, MeterName::new("messages")?, window))
}

impl Host {
    /// What happens before the first tick: files into the store, webhooks set up, and a run that another host began
    /// and will never finish.
    pub(crate) fn first_day(&self, say: &mut dyn FnMut(String) -> Result<()>, flags: &Flags) -> Result<()> {
        let next = |cron: &str, zone: &str| schedule::next(cron, zone, self.start);
        let options = Options {
            owner: self.owner.clone(),
            saved_by: self.owner.clone(),
            now: self.start,
            next: Some(&next),
        };
        let skills = sync_skills(&*self.store, &flags.skills, &options)?;
        say(format!("skills: {skills}"))?;
        let agents = sync_agents(&*self.store, &flags.agents, &options)?;
        say(format!("agents: {agents}"))?;
        let key = digest_key()?;
        for agent in self.definitions::<Agent>(&*self.store)? {
            if agent.webhook.is_none() && agent.extra.get(&format!("{RENAMED}webhook")) == Some(&true.into())
            {
                let digest = key.digest(&secret(agent.name.as_str())?);
                self.store.agents().update(&agent.id, &mut |agent| {
                    agent.webhook = Some(digest.clone());
                    Ok(())
                })?;
            }
        }
        let lost = RunId::new(format!("lost before {}", self.start.to_rfc3339()))?;
        if self.store.audit().run(&lost)?.is_none() {
            let began = self.start - TimeDelta::hours(5);
            self.store.audit().start_run(&NewRun::new(lost, PrincipalId::new("other-host")?, began))?;
        }
        Ok(())
    }

    /// Messages and calls that came after `from`, up to `now`.
    pub(crate) fn arrivals(&self, from: DateTime<Utc>, now: DateTime<Utc>) -> Result<()> {
        let mut day = from.date_naive();
        while day <= now.date_naive() {
            let at = |text: &str| text.parse::<NaiveTime>().ok().map(|time| day.and_time(time).and_utc());
            let came = |at: &DateTime<Utc>| from < *at && *at <= now;
            for (_, text, skill) in MESSAGES.iter().filter(|(weekday, ..)| *weekday == day.weekday()) {
                if at(text).as_ref().is_some_and(came) {
                    self.message(skill, at(text).unwrap_or(now))?;
                }
            }
            let works = !matches!(day.weekday(), Weekday::Sat | Weekday::Sun);
            for at in CALLS.iter().filter_map(|text| at(text)).filter(|at| works && came(at)) {
                for agent in self.definitions::<Agent>(&*self.store)? {
                    if agent.webhook.is_some() {
                        self.call(secret(agent.name.as_str())?, at)?;
                    }
                }
                self.call(secret("somebody who guesses")?, at)?;
            }
            let Some(tomorrow) = day.succ_opt() else { break };
            day = tomorrow;
        }
        Ok(())
    }

    /// Somebody asks for a skill on a channel. Whoever listens there and has the skill runs it.
    fn message(&self, skill: &str, at: DateTime<Utc>) -> Result<()> {
        let run = RunId::new(format!("message of {}", at.to_rfc3339()))?;
        if self.store.audit().run(&run)?.is_some() {
            return Ok(());
        }
        let channel = ChannelId::new(CHANNEL)?;
        let input = json!({"from": SENDER, "asks": skill});
        let begun = self.store.transact(|tx| {
            let charge = Charge::new(messages_account()?, Amount::from_units(1)?);
            let charge = charge.with_key(IdempotencyKey::new(run.as_str())?);
            let refused = match tx.budgets().admit(&charge, Amount::from_units(MESSAGES_A_WEEK)?, at) {
                Ok(_) => None,
                Err(error @ Error::LimitExceeded { .. }) => {
                    Some(format!("too many messages this week: {error}"))
                }
                Err(error) => return Err(error),
            };
            let listener = match refused {
                None => {
                    listener(tx, &channel, skill)?.ok_or_else(|| format!("nobody on {CHANNEL} can {skill}"))
                }
                Some(reason) => Err(reason),
            };
            match listener {
                Ok((agent, skill)) => {
                    let job = Job {
                        run: run.clone(),
                        payer: payer(&agent)?,
                        target: Target::Agent(agent.id.clone(), vec![skill.id.clone()]),
                        parent: None,
                        channel: Some(channel.clone()),
                        input: input.clone(),
                        held: None,
                    };
                    self.begin(tx, &job, at)?;
                    Ok(Some(job))
                }
                Err(reason) => {
                    let mut start = NewRun::new(run.clone(), PrincipalId::new(SENDER)?, at);
                    start.channel = Some(channel.clone());
                    start.input = input.clone();
                    tx.audit().start_run(&start)?;
                    let mut finish = Finish::new(RunOutcome::Cancelled, at);
                    finish.error = Some(reason);
                    tx.audit().finish_run(&run, &finish)?;
                    Ok(None)
                }
            }
        })?;
        begun.map_or(Ok(()), |job| self.drive(&job).map(drop))
    }

    /// Somebody calls with a secret: the agent that it belongs to runs all its skills. A secret of nobody's is
    /// turned away without a word, and without a trace in the audit.
    fn call(&self, secret: Secret, at: DateTime<Utc>) -> Result<()> {
        let Some(agent) = self.store.agents().by_webhook(&digest_key()?.digest(&secret))? else {
            return Ok(());
        };
        let run = RunId::new(format!("call of {} for {}", at.to_rfc3339(), agent.id))?;
        if self.store.audit().run(&run)?.is_some() {
            return Ok(());
        }
        let job = Job {
            run,
            payer: payer(&agent)?,
            target: Target::Agent(agent.id.clone(), agent.skills.clone()),
            parent: None,
            channel: None,
            input: json!({"from": "webhook"}),
            held: None,
        };
        self.store.transact(|tx| self.begin(tx, &job, at))?;
        self.drive(&job).map(drop)
    }

    /// What people do with the definitions: on the first tick they try what nothing else would ever run; on the
    /// fifth day somebody edits a skill, on the sixth they take it back, on the seventh they tidy up.
    pub(crate) fn people(&self, from: DateTime<Utc>, now: DateTime<Utc>) -> Result<()> {
        if from == self.start {
            self.try_out(now)?;
        }
        let noon_of = |day: i64| self.start + TimeDelta::hours(24 * (day - 1) + 12);
        let happens = |at: DateTime<Utc>| from < at && at <= now;
        let Some(skill) = self.edited_skill(&*self.store)? else { return Ok(()) };
        if happens(noon_of(5)) {
            let mut doc = Skill::clone(&skill.doc);
            doc.body.push_str("\n## Since this week\n\nAnchors in other pages are checked too.\n");
            self.once("edit", doc, &skill, "added a section", noon_of(5))?;
        }
        if happens(noon_of(6)) {
            self.take_back(&skill, noon_of(6))?;
        }
        if happens(noon_of(7)) {
            self.store.transact(|tx| {
                if let Some(first) =
                    tx.skills().versions(&skill.id, &page::PageRequest::default())?.items.last()
                {
                    tx.skills().pin_version(&first.id, true)?;
                }
                tx.skills().prune_versions(&skill.id, 1).map(drop)
            })?;
        }
        Ok(())
    }

    /// The skill that somebody edits.
    pub(crate) fn edited_skill(&self, seams: &dyn Seams) -> Result<Option<Stored<Skill>>> {
        let skills = self.definitions::<Skill>(seams)?;
        let at = skills.iter().position(|skill| skill.name.as_str() == "check-links").unwrap_or(0);
        Ok(skills.into_iter().nth(at))
    }

    fn version_id(&self, what: &str) -> Result<VersionId> {
        VersionId::new(format!("{what} in the week of {}", self.start.to_rfc3339()))
    }

    /// Publishes a version, if it was not published before.
    fn once(
        &self,
        label: &str,
        doc: Skill,
        read: &Stored<Skill>,
        summary: &str,
        at: DateTime<Utc>,
    ) -> Result<()> {
        let id = self.version_id(label)?;
        if self.store.skills().version(&id)?.is_some() {
            return Ok(());
        }
        let mut version = NewVersion::new(id, doc, PrincipalId::new(SENDER)?, at);
        label.clone_into(&mut version.label);
        summary.clone_into(&mut version.summary);
        self.store.skills().publish(&version, Expect::Revision(read.revision)).map(drop)
    }

    /// Restores the version before the newest one, and records that as a version of its own.
    fn take_back(&self, skill: &Stored<Skill>, at: DateTime<Utc>) -> Result<()> {
        let id = self.version_id("restore")?;
        self.store.transact(|tx| {
            if tx.skills().version(&id)?.is_some() {
                return Ok(());
            }
            let newest = tx.skills().versions(&skill.id, &page::PageRequest::default())?.items;
            let before = newest.get(1).ok_or_else(|| Error::not_found(Entity::Version, "before the edit"))?;
            let restored = tx.skills().restore(&before.id, Expect::Revision(skill.revision))?;
            let mut version =
                NewVersion::new(id.clone(), Skill::clone(&restored.doc), PrincipalId::new(SENDER)?, at);
            version.label = "restore".to_owned();
            version.summary = format!("as in version {} again", before.seq);
            tx.skills().append_version(&version).map(drop)
        })
    }

    /// Runs each skill once that has no schedule and that no agent names.
    fn try_out(&self, now: DateTime<Utc>) -> Result<()> {
        let agents = self.definitions::<Agent>(&*self.store)?;
        for skill in self.definitions::<Skill>(&*self.store)? {
            if skill.schedule.is_some() || agents.iter().any(|agent| agent.skills.contains(&skill.id)) {
                continue;
            }
            let run = RunId::new(format!("trial of {} in {}", skill.id, self.start.to_rfc3339()))?;
            if self.store.audit().run(&run)?.is_some() {
                continue;
            }
            let payer =
                Payer { caller: self.owner.clone(), weekly: crate::host::DEFAULT_WEEKLY.parse()?, rate: 1 };
            let target = Target::Skill(skill.id.clone());
            let job =
                Job { run, target, parent: None, payer, channel: None, input: json!("a trial"), held: None };
            self.store.transact(|tx| self.begin(tx, &job, now))?;
            self.drive(&job)?;
        }
        Ok(())
    }

    /// The week ends: what nobody will finish is closed, and what a purge would remove is counted.
    pub(crate) fn close_week(&self) -> Result<()> {
        let (id, end) = (self.closing()?, self.end_of_week()?);
        self.store.transact(|tx| {
            tx.audit().start_run(&NewRun::new(id.clone(), PrincipalId::new("host")?, end))?;
            let abandoned = tx.audit().abandon_stale(end - TimeDelta::days(1), end, 100)?;
            let purge = tx.audit().purge_before(end - TimeDelta::days(3), true)?;
            let mut finish = Finish::new(RunOutcome::Succeeded, end);
            finish.output = json!({"abandoned": abandoned.len(), "purge": value(&purge)?});
            tx.audit().finish_run(&id, &finish)
        })
    }
}

/// Who listens on a channel and has a skill of that name; one that works on a schedule only comes last.
fn listener(
    tx: &dyn Seams,
    channel: &ChannelId,
    skill: &str,
) -> Result<Option<(Stored<Agent>, Stored<Skill>)>> {
    let found: Result<Vec<_>> = page::all(100, |page| tx.agents().by_channel(channel, page)).collect();
    let mut agents = found?;
    agents.sort_by_key(|agent| (agent.schedule.is_some(), agent.name.clone()));
    for agent in agents {
        for id in &agent.skills {
            if let Some(found) = tx.skills().get(id)?.filter(|found| found.name().as_str() == skill) {
                return Ok(Some((agent, found)));
            }
        }
    }
    Ok(None)
}
