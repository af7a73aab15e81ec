//! The seams, records, rules and laws of a persistence layer for programs that run LLM agents.
//!
//! A *host* keeps skills and agents (with versions and schedules), budgets, run audit and checkpoints in a
//! [`Store`]. It calls the seams through one accessor each ([`Seams`]) and groups calls with
//! [`transact`](StoreExt::transact) and [`view`](StoreExt::view). Hosts depend on the facade crate `store`, which
//! re-exports all of this.
//!
//! An *engine* implements [`engine::Transactional`] and [`engine::EngineTx`] and only persists: every rule is a
//! pure function here, and every promise is a law in the [contract], proven of each engine by the crate
//! `contract-tests`.
//!
//! What is absent, on purpose: this crate names no engine and links no driver; nothing in it reads the wall clock
//! (`now` is an argument everywhere); no list comes without a limit; no method has a default that reads, then writes.

pub mod audit;
pub mod budget;
pub mod contract;
pub mod engine;
pub mod json;
pub mod lease;
pub mod page;
pub mod rules;
pub mod time;
pub mod transfer;
pub mod window;

mod amount;
mod catalog;
mod checkpoint;
mod definition;
mod error;
mod id;
mod record;
mod schedule;
mod seams;
mod secret;

pub use amount::Amount;
pub use audit::{
    AuditStore, Event, Finish, GroupBy, NewEvent, NewRun, PurgeReport, Run, RunFilter, RunOutcome, RunStatus,
    SummaryRow, Tokens,
};
pub use budget::{Account, AccountUsage, BudgetStore, Charge, Ledger, Meter, Reservation, Usage};
pub use catalog::{
    AgentStore, Catalog, Claim, Edit, Expect, NewVersion, Published, SkillStore, Stored, Version,
};
pub use checkpoint::{Checkpoint, CheckpointStore, Interrupted};
pub use definition::{Agent, Caps, Definition, DefinitionFilter, Kind, Skill, Visibility};
pub use engine::{EngineTx, Identity, Transactional};
pub use error::{Entity, Error, ErrorKind, Outcome, Result, describe};
pub use id::{
    AgentId, ChannelId, IdempotencyKey, LeaseToken, MAX_ID_BYTES, MeterName, Name, PrincipalId,
    ReservationId, Revision, RunId, SkillId, Tag, VersionId, WorkerId,
};
pub use json::Extra;
pub use lease::Lease;
pub use page::{Cursor, List, Page, PageRequest};
pub use record::{
    AccountRecord, ChargeRecord, CheckpointRecord, Counter, DefinitionRecord, ImportReport, Record,
};
pub use schedule::{RunState, Schedule};
pub use seams::{
    Durability, EngineInfo, MAX_PROBLEMS, Problem, Records, Seams, Store, StoreExt, Verification, View, Work,
};
pub use secret::{DigestKey, MIN_SECRET_BYTES, Secret, SecretDigest};
pub use window::{Window, WindowKind};
