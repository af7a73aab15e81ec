//! An engine, its harness, and the suite: everything that an engine's author writes.
//!
//! The engine itself is `src/tiny.rs`. This file shows it at work, and then holds it to the laws, as the test of an
//! engine does with one line: `contract_tests::laws!(Tiny);`.

#![allow(clippy::print_stdout)] // an example shows what it does

use std::sync::Arc;
use std::time::Duration;

use contract_tests::harness::{Facts, Harness, Instance};
use contract_tests::suite::REGISTRY;
use contract_tests::tiny::TinyStore;
use store_api::{Expect, Name, PrincipalId, Result, Skill, SkillId, Store, StoreExt};

/// How the suite makes stores of the tiny engine.
struct Tiny;

impl Harness for Tiny {
    fn name(&self) -> &str {
        "tiny"
    }

    fn facts(&self) -> Facts {
        Facts::MEMORY
    }

    fn create_waiting(&self, wait: Duration) -> Box<dyn Instance> {
        Box::new(TinyInstance { store: Arc::new(TinyStore::new(wait)), wait })
    }
}

/// One store of it. There is no place where it is, so it comes back empty.
struct TinyInstance {
    store: Arc<TinyStore>,
    wait: Duration,
}

impl Instance for TinyInstance {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    fn reopen(&mut self) -> Result<()> {
        self.store = Arc::new(TinyStore::new(self.wait));
        Ok(())
    }
}

fn main() -> Result<()> {
    let store = TinyStore::default();
    let skill = Skill::new(SkillId::new("greet")?, PrincipalId::new("ada")?, Name::new("Greet")?);
    let revision = store.transact(|seams| seams.skills().save(&skill, Expect::Absent))?;
    let found = store.view(|seams| seams.skills().by_name(&skill.owner, &skill.name))?;
    println!(
        "saved {:?} as revision {revision}, found {:?}",
        skill.id,
        found.map(|stored| stored.id.clone())
    );

    for check in REGISTRY {
        check.run(&Tiny);
        println!("{} keeps {}", Tiny.name(), check.law().id);
    }
    Ok(())
}
