//! Moving between stores: every engine into every engine, all or nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use contract_tests::laws::moves::fill;
use store::transfer::{Seam, copy, counts, digests};
use store::{
    AgentStore, AuditStore, BudgetStore, CheckpointStore, EngineInfo, Error, ErrorKind, ImportReport, Record,
    Records, Result, Seams, SkillStore, Store, Verification, View, Work, engines, open,
};
use tempfile::TempDir;

/// An empty store of each engine that is compiled in.
fn stores(directory: &TempDir, name: &str) -> Vec<Arc<dyn Store>> {
    let url = |engine: &&str| match *engine {
        "memory" => "memory:".to_owned(),
        engine => format!("{engine}:{}", directory.path().join(format!("{name}.{engine}")).display()),
    };
    engines().iter().map(|engine| open(&url(engine)).unwrap()).collect()
}

fn quiet() -> impl FnMut(u64) {
    |_| {}
}

fn exported(store: &dyn Store) -> Vec<Record> {
    let mut records = Vec::new();
    store
        .export(&mut |record| {
            records.push(record);
            Ok(())
        })
        .unwrap();
    records
}

#[test]
fn every_engine_into_every_engine() {
    let directory = tempfile::tempdir().unwrap();
    for from in stores(&directory, "from") {
        fill(&*from);
        let records = exported(&*from);
        let name = format!("to-from-{}", from.info().engine);
        for to in stores(&directory, &name) {
            let mut passed = Vec::new();
            let copied = copy(&*from, &*to, &mut |count| passed.push(count)).unwrap();
            let pair = format!("{} into {}", from.info().engine, to.info().engine);
            assert_eq!(exported(&*to), records, "{pair}");
            assert_eq!(copied.sent, digests(&*from, &mut quiet()).unwrap(), "{pair}");
            assert_eq!(copied.sent, digests(&*to, &mut quiet()).unwrap(), "{pair}");
            assert_eq!(copied.report.total(), records.len() as u64);
            assert_eq!(passed, (1..=records.len() as u64).collect::<Vec<_>>());
            assert!(to.verify().unwrap().is_sound());
        }
    }
}

#[test]
fn counts_and_digests_agree_on_how_much_there_is() {
    let directory = tempfile::tempdir().unwrap();
    for store in stores(&directory, "s") {
        let empty = counts(&*store, &mut quiet()).unwrap();
        assert_eq!(
            empty.into_iter().collect::<Vec<_>>(),
            [(Seam::Counter, 1)],
            "the counter is always there"
        );
        fill(&*store);
        let mut passed = (0, 0);
        let counts = counts(&*store, &mut |records| passed.0 = records).unwrap();
        let digests = digests(&*store, &mut |records| passed.1 = records).unwrap();
        let records = counts.values().sum();
        assert_eq!(passed, (records, records));
        assert_eq!(counts.len(), 6, "something in every seam");
        assert!(digests.iter().all(|(seam, digest)| counts[seam] == digest.records));
    }
}

#[test]
fn a_store_that_is_not_empty_is_refused_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    for (from, to) in stores(&directory, "from").into_iter().zip(stores(&directory, "to")) {
        fill(&*from);
        fill(&*to);
        let before = exported(&*to);
        let refused = copy(&*from, &*to, &mut quiet()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert_eq!(exported(&*to), before);
    }
}

/// A store whose export breaks off after some records.
struct Breaking(Arc<dyn Store>);

impl Seams for Breaking {
    fn skills(&self) -> &dyn SkillStore {
        self.0.skills()
    }
    fn agents(&self) -> &dyn AgentStore {
        self.0.agents()
    }
    fn budgets(&self) -> &dyn BudgetStore {
        self.0.budgets()
    }
    fn audit(&self) -> &dyn AuditStore {
        self.0.audit()
    }
    fn checkpoints(&self) -> &dyn CheckpointStore {
        self.0.checkpoints()
    }
}

impl Store for Breaking {
    fn transaction(&self, work: Work<'_>) -> Result<()> {
        self.0.transaction(work)
    }
    fn snapshot(&self, work: View<'_>) -> Result<()> {
        self.0.snapshot(work)
    }
    fn info(&self) -> EngineInfo {
        self.0.info()
    }
    fn verify(&self) -> Result<Verification> {
        self.0.verify()
    }
    fn backup(&self, to: &Path) -> Result<()> {
        self.0.backup(to)
    }
    fn export(&self, sink: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
        let mut left = 20;
        self.0.export(&mut |record| {
            left -= 1;
            if left == 0 {
                Err(Error::corrupt("a record", "does not fit its checksum"))
            } else {
                sink(record)
            }
        })
    }
    fn import(&self, records: Records<'_>) -> Result<ImportReport> {
        self.0.import(records)
    }
    fn close(&self) -> Result<()> {
        self.0.close()
    }
}

#[test]
fn a_source_that_breaks_off_leaves_the_target_empty() {
    let directory = tempfile::tempdir().unwrap();
    for (from, to) in stores(&directory, "from").into_iter().zip(stores(&directory, "to")) {
        fill(&*from);
        let broken = copy(&Breaking(Arc::clone(&from)), &*to, &mut quiet()).unwrap_err();
        assert_eq!(broken.kind(), ErrorKind::Corrupt, "{broken}");
        assert_eq!(exported(&*to), exported(&*stores(&directory, "empty")[0]));
        copy(&*from, &*to, &mut quiet()).unwrap();
    }
}

/// The exporting thread must not wait for ever on an import that has unwound.
#[test]
fn a_panic_half_way_leaves_the_target_empty() {
    let directory = tempfile::tempdir().unwrap();
    for (from, to) in stores(&directory, "from").into_iter().zip(stores(&directory, "to")) {
        fill(&*from);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            copy(&*from, &*to, &mut |passed| assert!(passed < 20, "stopped by the test"))
        }));
        assert!(panicked.is_err());
        assert_eq!(counts(&*to, &mut quiet()).unwrap().len(), 1);
        copy(&*from, &*to, &mut quiet()).unwrap();
    }
}
