//! Operations that write, each durable by itself.

use store_api::Amount;

use super::{Case, Seat, check};
use crate::data;

pub(super) const APPEND_VERSION: Case = Case {
    name: "append-version",
    about: "a version of 2 KB is appended",
    make: |Seat { subject }| {
        let mut version = data::version(0, 0, data::DOCUMENT_BYTES)?;
        Ok(Box::new(move |n| {
            version.id = data::version_id(1_000_000_000 + n)?;
            version.snapshot.id = data::skill_id(n % data::WITH_VERSIONS)?;
            check(subject.append_version(&version)? > data::VERSIONS, "the number of the version")
        }))
    },
};

pub(super) const MARK: Case = Case {
    name: "mark",
    about: "a schedule is marked as run",
    make: |Seat { subject }| {
        Ok(Box::new(move |n| {
            subject.mark(&data::skill_id(n % data::SKILLS)?, data::at(n), data::at(n + 3_600))
        }))
    },
};

pub(super) const BUDGET_ADD: Case = Case {
    name: "budget-add",
    about: "an account is charged",
    make: |Seat { subject }| {
        let charges: Vec<_> = (0..data::ACCOUNTS).map(data::charge).collect::<Result<_, _>>()?;
        Ok(Box::new(move |n| {
            let charge = &charges[usize::try_from(n % data::ACCOUNTS)?];
            check(subject.add(charge, data::at(1))? > Amount::ZERO, "what is used")
        }))
    },
};
