//! Verification: the file's own structure, every record against its checksum, every derived column, facet, number
//! and reference against the documents.

use std::ops::ControlFlow;

use rusqlite::{Row, params};
use store_api::{Agent, Definition, Error, Kind, Lease, Result, RunState, Skill, Verification};

use crate::catalog;
use crate::tx::{Tx, column, optional_text, text};
use crate::{audit, budget, checkpoint, versions};

const GO_ON: ControlFlow<()> = ControlFlow::Continue(());

/// Checks everything that one snapshot sees.
pub(crate) fn run<'t, 'c>(tx: &'t Tx<'c>) -> Result<Verification> {
    let mut verify = Verify { tx, found: Verification::default(), counter: u64::MAX };
    let parts: [(&str, Part<'t, 'c>); 9] = [
        ("database file", Verify::structure),
        ("foreign keys", Verify::references),
        ("meta", Verify::counter),
        ("definitions", Verify::definitions),
        ("versions", Verify::versions),
        ("accounts", Verify::accounts),
        ("runs", Verify::runs),
        ("events", Verify::events),
        ("checkpoints", Verify::checkpoints),
    ];
    for (name, part) in parts {
        // Damage that stops one part does not stop the others.
        match part(&mut verify) {
            Err(Error::Corrupt { what, detail }) => {
                verify.found.problem(name, format!("cannot be read to its end: {what}: {detail}"));
            }
            other => other?,
        }
    }
    Ok(verify.found)
}

/// One part of the verification.
type Part<'t, 'c> = fn(&mut Verify<'t, 'c>) -> Result<()>;

struct Verify<'t, 'c> {
    tx: &'t Tx<'c>,
    found: Verification,
    /// The store-wide counter; as high as can be until it is known.
    counter: u64,
}

impl Verify<'_, '_> {
    /// SQLite's own check: pages, cells, types, and each index against its table.
    fn structure(&mut self) -> Result<()> {
        let found = &mut self.found;
        self.tx.each("PRAGMA integrity_check", [], |row| {
            match text(row, 0)? {
                "ok" => {}
                problem => found.problem("database file", problem),
            }
            Ok(GO_ON)
        })
    }

    fn references(&mut self) -> Result<()> {
        let found = &mut self.found;
        self.tx.each("PRAGMA foreign_key_check", [], |row| {
            let (table, parent) = (text(row, 0)?, text(row, 2)?);
            let rowid: Option<i64> = column(row, 1)?;
            found.problem(table, format!("row {rowid:?} refers to nothing in {parent}"));
            Ok(GO_ON)
        })
    }

    fn counter(&mut self) -> Result<()> {
        let counter = self.tx.counter();
        if let Some(counter) = self.found.check(counter)? {
            self.counter = counter;
        }
        Ok(())
    }

    fn definitions(&mut self) -> Result<()> {
        let facets = self.definitions_of::<Skill>()? + self.definitions_of::<Agent>()?;
        let stored = self.count("SELECT count(*) FROM facets")?;
        if stored != facets {
            self.found.problem("facets", format!("{stored} are stored, the documents have {facets}"));
        }
        self.stray_kinds("SELECT count(*) FROM definitions WHERE kind NOT IN (?1, ?2)", "definitions")
    }

    /// Gives how many facets the documents have; each of them is looked up.
    fn definitions_of<D: Definition>(&mut self) -> Result<i64> {
        let sql = concat!(
            "SELECT ",
            catalog::columns!(),
            ", d.owner, d.name, d.visibility, d.exposed, d.scheduled, d.webhook FROM definitions d WHERE kind = ?1"
        );
        let (tx, counter, verification) = (self.tx, self.counter, &mut self.found);
        let mut facets = 0;
        tx.each(sql, [D::KIND.code()], |row| {
            let Some(found) = verification.check(catalog::read::<D>(row))? else { return Ok(GO_ON) };
            let id = found.doc.id().as_ref();
            let what = || catalog::key::<D>(id);
            if !verification.check(derived_agree(row, &*found))?.unwrap_or(true) {
                verification.problem(what(), "columns and document disagree");
            }
            for (field, term) in catalog::facets(&*found) {
                facets += 1;
                let sql = "SELECT 1 FROM facets WHERE kind = ?1 AND field = ?2 AND term = ?3 AND id = ?4";
                if !tx.any(sql, params![D::KIND.code(), field, term, id])? {
                    verification.problem(what(), format!("is not listed under its {field} {term:?}"));
                }
            }
            if found.revision.0 > counter {
                verification.problem(what(), format!("revision {} was never given", found.revision));
            }
            verification.check(tx.last_seq::<D>(found.doc.id()))?;
            let state = found.doc.schedule().map(|schedule| schedule.run_state()).unwrap_or_default();
            check_token(verification, counter, what, state.lease.as_ref());
            check_unscheduled(verification, what, row, &*found)?;
            Ok(GO_ON)
        })?;
        Ok(facets)
    }

    fn versions(&mut self) -> Result<()> {
        self.versions_of::<Skill>()?;
        self.versions_of::<Agent>()?;
        self.stray_kinds("SELECT count(*) FROM versions WHERE kind NOT IN (?1, ?2)", "versions")
    }

    fn versions_of<D: Definition>(&mut self) -> Result<()> {
        let columns = versions::COLUMNS;
        let sql = format!(
            "SELECT {columns}, (SELECT l.last_seq FROM last_seqs l WHERE l.kind = v.kind AND \
               l.definition = v.definition) FROM versions v WHERE kind = ?1"
        );
        let verification = &mut self.found;
        self.tx.each(&sql, [D::KIND.code()], |row| {
            let Some(version) = verification.check(versions::read::<D>(row))? else { return Ok(GO_ON) };
            let last: Option<i64> = column(row, 6)?;
            let last = last.unwrap_or(i64::MAX).cast_unsigned();
            if version.seq == 0 || version.seq > last {
                let detail = format!("seq {} is not between 1 and {last}", version.seq);
                verification.problem(format!("versions/{}", version.id), detail);
            }
            Ok(GO_ON)
        })
    }

    fn accounts(&mut self) -> Result<()> {
        let sql = "SELECT sum, ledger, caller, meter, \"window\" FROM accounts";
        let (tx, verification) = (self.tx, &mut self.found);
        tx.each(sql, [], |row| {
            let Some((key, account, ledger)) = verification.check(budget::read_account(row))? else {
                return Ok(GO_ON);
            };
            if let Err(error) = ledger.validate(&account.meter.window) {
                verification.problem(format!("accounts/{account}"), error.to_string());
            }
            tx.each_charge(&key, |charge| verification.check(charge).map(drop))?;
            Ok(GO_ON)
        })
    }

    fn runs(&mut self) -> Result<()> {
        let sql = "SELECT id, sum, doc, parent, skill, agent, caller, channel, status, started_at, finished_at \
                   FROM runs";
        let verification = &mut self.found;
        self.tx.each(sql, [], |row| {
            let Some(run) = verification.check(audit::read_run(row))? else { return Ok(GO_ON) };
            let stored = audit::Derived {
                parent: optional_text(row, 3)?,
                skill: optional_text(row, 4)?,
                agent: optional_text(row, 5)?,
                caller: text(row, 6)?,
                channel: optional_text(row, 7)?,
                status: text(row, 8)?,
                started_at: column(row, 9)?,
                finished_at: column(row, 10)?,
            };
            if stored != audit::Derived::of(&run)? {
                verification.problem(format!("runs/{}", run.id), "columns and document disagree");
            }
            Ok(GO_ON)
        })
    }

    fn events(&mut self) -> Result<()> {
        let sql = "SELECT run, seq, kind, at, sum, payload FROM events ORDER BY run, seq";
        let verification = &mut self.found;
        let mut last: Option<(String, i64)> = None;
        self.tx.each(sql, [], |row| {
            verification.check(audit::read_event(row))?;
            let (run, seq) = (text(row, 0)?, column::<i64>(row, 1)?);
            let before = last.as_ref().filter(|(of, _)| of == run).map_or(0, |(_, seq)| *seq);
            if seq != before + 1 {
                verification.problem(format!("events/{run}"), format!("seq {seq} follows {before}"));
            }
            last = Some((run.to_owned(), seq));
            Ok(GO_ON)
        })
    }

    fn checkpoints(&mut self) -> Result<()> {
        let sql = concat!("SELECT ", checkpoint::columns!(), " FROM checkpoints");
        let (counter, verification) = (self.counter, &mut self.found);
        self.tx.each(sql, [], |row| {
            let Some(found) = verification.check(checkpoint::read(row))? else { return Ok(GO_ON) };
            let what = || format!("checkpoints/{}", found.checkpoint.run);
            check_token(verification, counter, what, found.lease.as_ref());
            Ok(GO_ON)
        })
    }

    /// Rows of a kind that does not exist: no read ever finds them.
    fn stray_kinds(&mut self, sql: &str, table: &str) -> Result<()> {
        let kinds = params![Kind::Skill.code(), Kind::Agent.code()];
        let stray: i64 = self.tx.first(sql, kinds, |row| column(row, 0))?.unwrap_or_default();
        if stray > 0 {
            self.found.problem(table, format!("{stray} rows are of no kind that there is"));
        }
        Ok(())
    }

    fn count(&self, sql: &str) -> Result<i64> {
        Ok(self.tx.first(sql, [], |row| column(row, 0))?.unwrap_or_default())
    }
}

/// Whether the columns after [`catalog::columns`] are what the document says.
fn derived_agree<D: Definition>(row: &Row<'_>, doc: &D) -> Result<bool> {
    let derived = catalog::Derived::of(doc);
    Ok(text(row, 10)? == derived.owner
        && text(row, 11)? == derived.name
        && text(row, 12)? == derived.visibility
        && column::<i64>(row, 13)? == i64::from(derived.exposed)
        && column::<i64>(row, 14)? == i64::from(derived.scheduled)
        && optional_text(row, 15)? == derived.webhook.as_deref())
}

/// A definition without a schedule has no run state.
fn check_unscheduled<D: Definition>(
    verification: &mut Verification,
    what: impl Fn() -> String,
    row: &Row<'_>,
    doc: &D,
) -> Result<()> {
    if doc.schedule().is_none() && catalog::run_state::<D>(doc.id().as_ref(), row, 2)? != RunState::default()
    {
        verification.problem(what(), "has a run state and no schedule");
    }
    Ok(())
}

fn check_token(
    verification: &mut Verification,
    counter: u64,
    what: impl Fn() -> String,
    lease: Option<&Lease>,
) {
    if let Some(lease) = lease.filter(|lease| lease.token.0 > counter) {
        verification.problem(what(), format!("lease token {} was never given", lease.token));
    }
}
