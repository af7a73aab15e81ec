//! All lists, as the model has them and as a store pages them.

use serde::Serialize;
use serde_json::Value;
use store_api::{
    Agent, ChannelId, Cursor, DefinitionFilter, GroupBy, List, Page, PageRequest, RunFilter, RunId,
    RunStatus, Seams, Skill, SkillId,
};

use super::op::{ListOf, Of};
use super::pool;
use super::world::{Answer, Nanos, Shelved, Time, World, check_times, nanos};
use super::{Check, audit, budget, catalog, differs};

/// A list with all its arguments.
#[derive(Debug, Clone)]
pub(super) enum Listing {
    Skills(DefinitionFilter),
    Agents(DefinitionFilter),
    SkillVersions(u8),
    AgentVersions(u8),
    DueSkills(Time),
    DueAgents(Time),
    Channel(ChannelId),
    Accounts(Time),
    Runs(RunFilter),
    Children(RunId),
    Events(RunId),
    Summary(RunFilter, GroupBy),
    Interrupted,
}

/// Where an item stands in the order of its list.
type Place = (Nanos, Vec<String>);

/// A list in the model, in order.
type Items = Vec<(Place, Value)>;

/// A cursor that was kept, with the place that it stands for.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    listing: Listing,
    place: Place,
    cursor: Cursor,
}

pub(super) fn value(item: impl Serialize) -> Value {
    serde_json::to_value(item).unwrap()
}

const GROUPS: [GroupBy; 7] = [
    GroupBy::Nothing,
    GroupBy::Skill,
    GroupBy::Agent,
    GroupBy::Caller,
    GroupBy::Channel,
    GroupBy::Status,
    GroupBy::Day,
];

impl Listing {
    /// What a list in an operation means now.
    pub(super) fn of(world: &World, list: &ListOf) -> Self {
        match *list {
            ListOf::Definitions(of, f) => {
                let filter = DefinitionFilter {
                    owner: f.owner.map(pool::principal),
                    visible_to: f.visible_to.map(pool::principal),
                    exposed_to_chat: f.exposed,
                    tag: f.tag.map(pool::tag),
                    scheduled: f.scheduled,
                };
                if of == Of::Skills { Listing::Skills(filter) } else { Listing::Agents(filter) }
            }
            ListOf::Versions(Of::Skills, id) => Listing::SkillVersions(id),
            ListOf::Versions(Of::Agents, id) => Listing::AgentVersions(id),
            ListOf::Due(Of::Skills, now) => Listing::DueSkills(world.when(now)),
            ListOf::Due(Of::Agents, now) => Listing::DueAgents(world.when(now)),
            ListOf::Channel(channel) => Listing::Channel(pool::channel(channel)),
            ListOf::Accounts(now) => Listing::Accounts(world.when(now)),
            ListOf::Runs(filter) => Listing::Runs(run_filter(world, &filter)),
            ListOf::Children(run) => Listing::Children(pool::run_id(run)),
            ListOf::Events(run) => Listing::Events(pool::run_id(run)),
            ListOf::Summary(filter, by) => {
                Listing::Summary(run_filter(world, &filter), GROUPS[usize::from(by) % GROUPS.len()])
            }
            ListOf::Interrupted => Listing::Interrupted,
        }
    }

    /// Every list that shows something of what is stored.
    pub(super) fn everything(world: &World) -> Vec<Listing> {
        let late = super::world::time(Nanos::from(i64::MAX));
        let mut all = vec![
            Listing::Skills(DefinitionFilter::default()),
            Listing::Agents(DefinitionFilter::default()),
            Listing::DueSkills(late),
            Listing::DueAgents(late),
            Listing::Accounts(super::world::time(Nanos::from(world.clock))),
            Listing::Runs(RunFilter::default()),
            Listing::Interrupted,
        ];
        for id in 0..pool::IDS.len() as u8 {
            all.extend([Listing::SkillVersions(id), Listing::AgentVersions(id)]);
        }
        all.extend((0..pool::CHANNELS.len() as u8).map(|channel| Listing::Channel(pool::channel(channel))));
        for run in 0..pool::RUNS.len() as u8 {
            all.extend([Listing::Children(pool::run_id(run)), Listing::Events(pool::run_id(run))]);
        }
        all.extend(GROUPS.map(|by| Listing::Summary(RunFilter::default(), by)));
        all
    }

    /// Whether the list runs from the highest place down.
    fn descends(&self) -> bool {
        use Listing::{AgentVersions, Children, Runs, SkillVersions};
        matches!(self, SkillVersions(_) | AgentVersions(_) | Runs(_) | Children(_))
    }

    /// The list in the model.
    fn items(&self, world: &World) -> Answer<Items> {
        Ok(match self {
            Listing::Skills(filter) => definitions::<Skill>(world, |doc| catalog::matches(filter, doc)),
            Listing::Agents(filter) => definitions::<Agent>(world, |doc| catalog::matches(filter, doc)),
            Listing::SkillVersions(id) => versions::<Skill>(world, *id),
            Listing::AgentVersions(id) => versions::<Agent>(world, *id),
            Listing::DueSkills(now) => due::<Skill>(world, *now)?,
            Listing::DueAgents(now) => due::<Agent>(world, *now)?,
            Listing::Channel(channel) => {
                definitions::<Agent>(world, |agent| agent.channel_filter.iter().any(|other| other == channel))
            }
            Listing::Accounts(now) => budget::accounts(world, *now)
                .into_iter()
                .map(|([caller, meter, window], usage)| {
                    let account = serde_json::json!({
                        "caller": caller, "meter": { "name": meter, "window": window },
                    });
                    let shown = serde_json::json!({ "account": account, "usage": usage });
                    ((0, [caller, meter, window].map(str::to_owned).into()), shown)
                })
                .collect(),
            Listing::Runs(filter) => {
                check_times(&[filter.from, filter.to])?;
                runs(world, |run| audit::matches(filter, run))
            }
            Listing::Children(id) => {
                runs(world, |run| run.parent.as_ref().is_some_and(|parent| parent == id))
            }
            Listing::Events(run) => {
                let events = audit::events(world, run.as_str()).into_iter();
                events.map(|event| ((event.seq.into(), Vec::new()), value(event))).collect()
            }
            Listing::Summary(filter, by) => {
                check_times(&[filter.from, filter.to])?;
                let rows = audit::summary(world, filter, *by).into_iter();
                let place =
                    |group: &Option<String>| (Nanos::from(group.is_some()), Vec::from_iter(group.clone()));
                rows.map(|row| (place(&row.group), value(row))).collect()
            }
            Listing::Interrupted => {
                let all = world.checkpoints.iter();
                all.map(|(run, saved)| ((0, vec![run.clone()]), value(saved.shown()))).collect()
            }
        })
    }

    /// A page as the store gives it.
    fn fetch(&self, seams: &dyn Seams, page: &PageRequest) -> store_api::Result<Page<Value>> {
        let audit = seams.audit();
        match self {
            Listing::Skills(filter) => seams.skills().list(filter, page).map(values),
            Listing::Agents(filter) => seams.agents().list(filter, page).map(values),
            Listing::SkillVersions(id) => seams.skills().versions(&pool::skill_id(*id), page).map(values),
            Listing::AgentVersions(id) => seams.agents().versions(&pool::agent_id(*id), page).map(values),
            Listing::DueSkills(now) => seams.skills().due(*now, page).map(values),
            Listing::DueAgents(now) => seams.agents().due(*now, page).map(values),
            Listing::Channel(channel) => seams.agents().by_channel(channel, page).map(values),
            Listing::Accounts(now) => seams.budgets().accounts(*now, page).map(values),
            Listing::Runs(filter) => audit.runs(filter, page).map(values),
            Listing::Children(run) => audit.children(run, page).map(values),
            Listing::Events(run) => audit.events(run, page).map(values),
            Listing::Summary(filter, by) => audit.summary(filter, *by, page).map(values),
            Listing::Interrupted => seams.checkpoints().interrupted(page).map(values),
        }
    }

    /// Reads one page and compares it; gives the cursor to the next.
    fn page(
        &self,
        seams: &dyn Seams,
        world: &World,
        size: u8,
        after: Option<(&Place, &Cursor)>,
    ) -> Check<Option<Kept>> {
        let mut request = PageRequest::first(size.into()).unwrap();
        if let Some((_, cursor)) = after {
            request = request.after(cursor.clone());
        }
        let is_next = |(place, _): &(Place, Value)| match after {
            None => true,
            Some((after, _)) if self.descends() => place < after,
            Some((after, _)) => place > after,
        };
        let foreseen = self.items(world).map(|items| {
            let rest: Items = items.into_iter().filter(is_next).collect();
            let more = rest.len() > size.into();
            (rest.into_iter().take(size.into()).collect::<Items>(), more)
        });
        let what = format!("{self:?}, {size} a page, after {:?}", after.map(|(place, _)| place));
        let (page, items, more) = match (self.fetch(seams, &request), foreseen) {
            (Ok(page), Ok((items, more))) => (page, items, more),
            (Err(real), Err(foreseen)) if foreseen == real.clone().into() => return Ok(None),
            (real, foreseen) => return Err(differs(&what, &real, &foreseen)),
        };
        let values: Vec<Value> = items.iter().map(|(_, value)| value.clone()).collect();
        if page.items != values || page.next.is_some() != more {
            return Err(differs(&what, &page, &(values, if more { "and more" } else { "the end" })));
        }
        let last = items.into_iter().next_back();
        Ok(page.next.zip(last).map(|(cursor, (place, _))| Kept { listing: self.clone(), place, cursor }))
    }

    /// Reads the whole list, page by page, and compares it.
    pub(super) fn whole(&self, seams: &dyn Seams, world: &World, size: u8) -> Check {
        let mut kept = self.page(seams, world, size, None)?;
        while let Some(Kept { place, cursor, .. }) = kept {
            kept = self.page(seams, world, size, Some((&place, &cursor)))?;
        }
        Ok(())
    }

    pub(super) fn first(&self, seams: &dyn Seams, world: &World, size: u8) -> Check<Option<Kept>> {
        self.page(seams, world, size, None)
    }

    /// Reads with a cursor that no list of this kind made.
    pub(super) fn with_wrong_cursor(&self, seams: &dyn Seams) -> Check {
        let cursor = match self {
            Listing::Events(_) => Cursor::new(List::Interrupted, &"a"),
            _ => Cursor::new(List::Events, &1),
        };
        let request = PageRequest::first(1).unwrap().after(cursor.unwrap());
        match self.fetch(seams, &request) {
            Err(store_api::Error::InvalidInput { .. }) => Ok(()),
            real => Err(differs(&format!("{self:?} with a cursor of another list"), &real, &"InvalidInput")),
        }
    }
}

impl Kept {
    /// Reads the page after the cursor, whatever was written since.
    pub(super) fn next(&self, seams: &dyn Seams, world: &World, size: u8) -> Check<Option<Kept>> {
        self.listing.page(seams, world, size, Some((&self.place, &self.cursor)))
    }
}

fn values<T: Serialize>(page: Page<T>) -> Page<Value> {
    page.map(value)
}

fn run_filter(world: &World, filter: &super::op::RunsFilter) -> RunFilter {
    use RunStatus::{Abandoned, Cancelled, Failed, Running, Succeeded};
    let statuses = [Running, Succeeded, Failed, Cancelled, Abandoned];
    RunFilter {
        skill: filter.skill.map(|skill| SkillId::new(pool::IDS[usize::from(skill)]).unwrap()),
        agent: filter.agent.map(pool::agent_id),
        caller: filter.caller.map(pool::principal),
        channel: filter.channel.map(pool::channel),
        status: filter.status.map(|status| statuses[usize::from(status)]),
        from: world.maybe(filter.from),
        to: world.maybe(filter.to),
        top_level: filter.top_level,
    }
}

fn definitions<D: Shelved>(world: &World, wanted: impl Fn(&D) -> bool) -> Items {
    let rows = D::shelf(world).0.iter().filter(|row| wanted(&row.doc));
    let mut items: Items = rows.map(|row| ((0, vec![row.id().to_owned()]), value(row.shown()))).collect();
    items.sort_by(|(one, _), (other, _)| one.cmp(other));
    items
}

fn versions<D: Shelved>(world: &World, id: u8) -> Items {
    let versions = catalog::versions::<D>(world, pool::IDS[usize::from(id)]).into_iter();
    versions.map(|version| ((version.seq.into(), Vec::new()), value(version))).collect()
}

fn due<D: Shelved>(world: &World, now: Time) -> Answer<Items> {
    let due = catalog::due::<D>(world, now)?.into_iter();
    Ok(due
        .map(|(at, stored)| ((nanos(at).unwrap(), vec![stored.id().as_ref().to_owned()]), value(stored)))
        .collect())
}

fn runs(world: &World, wanted: impl Fn(&store_api::Run) -> bool) -> Items {
    let runs = audit::runs(world, wanted).into_iter();
    runs.map(|run| ((nanos(run.started_at).unwrap(), vec![run.id.to_string()]), value(run))).collect()
}
