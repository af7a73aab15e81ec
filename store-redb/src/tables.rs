//! The tables: one list of all there are. What their keys and values hold is told in `docs/format.md`.

use std::fmt;

use redb::TableDefinition;

/// A table. Every key and value is bytes to redb; what they mean is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Table(&'static str);

impl Table {
    pub(crate) const fn name(self) -> &'static str {
        self.0
    }

    pub(crate) const fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The mark of the file and the store-wide counter.
pub(crate) const META: Table = Table("meta");

/// Skills and agents, without their run state.
pub(crate) const DEFINITIONS: Table = Table("definitions");
/// The run state of those with a schedule: it stands here and nowhere else.
pub(crate) const RUN_STATES: Table = Table("run_states");
/// The number of the last version of each definition, pruned or not.
pub(crate) const LAST_SEQS: Table = Table("last_seqs");
/// Versions of definitions.
pub(crate) const VERSIONS: Table = Table("versions");
/// Ledgers of accounts.
pub(crate) const ACCOUNTS: Table = Table("accounts");
/// Charges that were made under a key.
pub(crate) const CHARGES: Table = Table("charges");
/// Runs.
pub(crate) const RUNS: Table = Table("runs");
/// Events of runs.
pub(crate) const EVENTS: Table = Table("events");
/// Where runs stand.
pub(crate) const CHECKPOINTS: Table = Table("checkpoints");
/// Who has each checkpoint that was claimed. (The table's name is from when it also said how far each is.)
pub(crate) const CHECKPOINT_CLAIMS: Table = Table("checkpoint_heads");

/// Index: definitions by owner and name.
pub(crate) const NAMES: Table = Table("names");
/// Index: agents by the digest of their webhook's secret.
pub(crate) const WEBHOOKS: Table = Table("webhooks");
/// Index: definitions by owner, tag and channel.
pub(crate) const FACETS: Table = Table("facets");
/// Index: definitions by when they are due.
pub(crate) const DUE: Table = Table("due");
/// Index: versions by id.
pub(crate) const VERSION_IDS: Table = Table("version_ids");
/// Index: charges by when they are forgotten.
pub(crate) const CHARGE_EXPIRIES: Table = Table("charge_expiries");
/// Index: runs by start, each list of them.
pub(crate) const RUN_LISTS: Table = Table("run_lists");

/// The tables whose entries are derived from records.
pub(crate) const INDEXES: [Table; 7] =
    [NAMES, WEBHOOKS, FACETS, DUE, VERSION_IDS, CHARGE_EXPIRIES, RUN_LISTS];

/// All of them, in the order in which they are created and copied.
pub(crate) const ALL: [Table; 18] = [
    META,
    DEFINITIONS,
    RUN_STATES,
    LAST_SEQS,
    VERSIONS,
    ACCOUNTS,
    CHARGES,
    RUNS,
    EVENTS,
    CHECKPOINTS,
    CHECKPOINT_CLAIMS,
    NAMES,
    WEBHOOKS,
    FACETS,
    DUE,
    VERSION_IDS,
    CHARGE_EXPIRIES,
    RUN_LISTS,
];
