//! Operations that read; every document is decoded.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use store_api::Skill;

use super::{Case, Clients, Loop, Make, Method, Needs, Seat, check};
use crate::data;
use crate::measure::Op;
use crate::population::{self, Population};
use crate::subject::{Result, Subject};

/// How many items a page has.
pub(crate) const PAGE: usize = 50;

/// How many skills are asked for their last run.
pub(crate) const ASKED: u64 = 100;

const fn case(name: &'static str, about: &'static str, on: fn(u64) -> Population, make: Make) -> Case {
    let method = Loop { on, needs: Needs::Nothing, clients: Clients::Readers, make };
    Case { name, about, method: Method::Loop(method) }
}

pub(super) const GET: Case = case("get", "a skill of 2 KB by id", |_| Population::Small, get);

pub(super) fn get(seat: Seat<'_>) -> Result<Op<'_>> {
    let ids = data::skill_ids(population::SKILLS)?;
    Ok(Box::new(move |n| {
        let id = &ids[usize::try_from(data::scatter(n, population::SKILLS))?];
        check(seat.subject.get(id)?.id == *id, "another skill")
    }))
}

pub(super) const BY_NAME: Case = case(
    "by-name",
    "a skill of 2 KB by its owner and name",
    |_| Population::Small,
    |seat| {
        let owner = data::owner()?;
        let names: Vec<_> = (0..population::SKILLS).map(data::name).collect::<Result<_>>()?;
        Ok(Box::new(move |n| {
            let name = &names[usize::try_from(data::scatter(n, population::SKILLS))?];
            check(seat.subject.by_name(&owner, name)?.name == *name, "another skill")
        }))
    },
);

pub(super) const NEWEST_PAGE: Case = case(
    "newest-page",
    "the newest 50 versions of a skill, 2 KB each",
    |_| Population::Small,
    |seat| {
        let ids = data::skill_ids(population::WITH_VERSIONS)?;
        Ok(Box::new(move |n| {
            let id = &ids[usize::try_from(data::scatter(n, population::WITH_VERSIONS))?];
            let (page, _) = seat.subject.versions(id, PAGE, None)?;
            let newest = page.first().map(|version| version.seq);
            check(page.len() == PAGE && newest == Some(population::VERSIONS), "the newest versions")
        }))
    },
);

pub(super) const ANCESTORS: Case = case(
    "ancestors",
    "the 100 runs above a run",
    |_| Population::Small,
    |seat| {
        let last = population::link_id(population::DEPTH)?;
        Ok(Box::new(move |_| {
            let depth = seat.subject.ancestors(&last)?.len() as u64;
            check(depth == population::DEPTH, "the runs above")
        }))
    },
);

pub(super) const DUE_PAGE: Case =
    case("due-page", "the first 50 due among many", Population::Large, due_page);

pub(crate) fn due_page(seat: Seat<'_>) -> Result<Op<'_>> {
    due(seat, |subject, now| subject.due(now, PAGE))
}

fn due<'a>(
    seat: Seat<'a>,
    page: impl Fn(&dyn Subject, DateTime<Utc>) -> Result<Vec<Arc<Skill>>> + 'a,
) -> Result<Op<'a>> {
    let (now, expected) = (data::at(u32::MAX.into()), PAGE.min(usize::try_from(seat.population.skills())?));
    Ok(Box::new(move |_| check(page(seat.subject, now)?.len() == expected, "what is due")))
}

pub(super) const DUE_PAGE_WIDE: Case = case(
    "due-page-wide",
    "the same, where by hand as many columns of each row are read as ours has",
    Population::Large,
    |seat| due(seat, |subject, now| subject.due_wide(now, PAGE)),
);

pub(super) const LAST_RUNS: Case =
    case("last-runs", "the last run of each of 100 skills among many runs", Population::Large, last_runs);

pub(crate) fn last_runs(seat: Seat<'_>) -> Result<Op<'_>> {
    let ids = data::skill_ids(ASKED.min(seat.population.with_runs()))?;
    Ok(Box::new(move |_| {
        let runs = seat.subject.last_runs(&ids)?;
        check(runs.len() == ids.len() && runs[0].skill.as_ref() == Some(&ids[0]), "the last runs")
    }))
}

pub(super) const SUMMARY: Case = Case {
    name: "summary",
    about: "all of many runs summed up by skill",
    method: Method::Loop(Loop {
        on: Population::Large,
        needs: Needs::Nothing,
        clients: Clients::Exactly(1),
        make: |seat| {
            Ok(Box::new(move |_| {
                let rows = seat.subject.summary()?;
                check(rows.len() as u64 == seat.population.with_runs(), "the groups")
            }))
        },
    }),
};
