//! The campaigns, each in a module of its own.

use crate::report::Line;

mod bad_files;
mod disk_full;
mod failed_fsync;
pub(crate) mod fuzz;
mod histories;
mod io_errors;
mod kill;
pub(crate) mod model;
mod mutants;
mod power;
mod power_cut;
mod rot;
mod schedules;

/// What a campaign is asked to do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The full form, or the short one.
    pub(crate) full: bool,
    pub(crate) seed: u64,
    /// How many to try, instead of what the form says.
    pub(crate) count: Option<u64>,
    /// Only this engine.
    pub(crate) engine: Option<String>,
}

impl Plan {
    /// How many to try: in the short form, in the full one, or as was asked.
    pub(crate) fn count(&self, short: u64, full: u64) -> u64 {
        self.count.unwrap_or(if self.full { full } else { short })
    }

    /// Whether an engine is asked for.
    pub(crate) fn wants(&self, engine: &str) -> bool {
        self.engine.as_deref().is_none_or(|wanted| wanted == engine)
    }
}

/// A campaign: a name, what it does, and how it is run. Each line that it hands out is complete.
pub(crate) struct Campaign {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Plan, &mut dyn FnMut(Line)),
    /// What a child process of the campaign does, with the arguments that its parent gave.
    pub(crate) child: Option<fn(&[String])>,
}

/// All of them, in the order in which they are run.
pub(crate) const ALL: &[Campaign] = &[
    model::CAMPAIGN,
    histories::CAMPAIGN,
    power::SQLITE,
    power::REDB,
    io_errors::CAMPAIGN,
    failed_fsync::CAMPAIGN,
    kill::CAMPAIGN,
    power_cut::CAMPAIGN,
    rot::CAMPAIGN,
    schedules::CAMPAIGN,
    fuzz::CAMPAIGN,
    mutants::CAMPAIGN,
    disk_full::CAMPAIGN,
    bad_files::CAMPAIGN,
];
