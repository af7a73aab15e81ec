//! Operations that read; every document is decoded.

use super::{Case, Seat, check};
use crate::data;

/// How many items a page has.
const PAGE: usize = 50;

pub(super) const GET: Case = Case {
    name: "get",
    about: "a skill of 2 KB by id",
    make: |Seat { subject }| {
        let ids: Vec<_> = (0..data::SKILLS).map(data::skill_id).collect::<Result<_, _>>()?;
        Ok(Box::new(move |n| {
            let id = &ids[usize::try_from(scatter(n) % data::SKILLS)?];
            check(subject.get(id)?.id == *id, "another skill")
        }))
    },
};

pub(super) const NEWEST_PAGE: Case = Case {
    name: "newest-page",
    about: "the newest 50 versions of a skill, 2 KB each",
    make: |Seat { subject }| {
        let ids: Vec<_> = (0..data::WITH_VERSIONS).map(data::skill_id).collect::<Result<_, _>>()?;
        Ok(Box::new(move |n| {
            let page = subject.newest(&ids[usize::try_from(scatter(n) % data::WITH_VERSIONS)?], PAGE)?;
            let newest = page.first().map(|version| version.seq);
            check(page.len() == PAGE && newest == Some(data::VERSIONS), "the newest versions")
        }))
    },
};

/// Numbers that follow each other, thrown about.
fn scatter(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}
