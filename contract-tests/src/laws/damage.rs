//! ROT: bits that flip by themselves.

use std::collections::BTreeMap;

use store_api::*;

use crate::fixture::*;
use crate::laws::moves;
use crate::suite::Suite;

/// How many bits are flipped, each in a fresh store.
const FLIPS: u64 = 40;

pub fn rot_1_damage_is_reported(suite: &Suite<'_>) {
    if !suite.facts().file {
        return suite.exempt("ROT-1", "all of it", "file is false");
    }
    let source = suite.create();
    moves::fill(&*source.store());
    let truth = export(&*source.store());
    assert!(source.store().verify().unwrap().is_sound());
    let answers = questions(&truth).map(|(what, ask)| (what, ask(&*source.store()).unwrap()));
    let answers: BTreeMap<String, String> = answers.collect();
    let (mut noticed, mut refused_open) = (0, 0);
    for seed in 0..FLIPS {
        let mut instance = suite.create();
        instance.store().import(&mut truth.iter().cloned().map(Ok)).unwrap();
        match instance.rot(seed) {
            None => return suite.exempt("ROT-1", "all of it", "the harness flips no bit"),
            Some(Err(error)) => {
                let told = matches!(
                    error.kind(),
                    ErrorKind::Corrupt | ErrorKind::NotThisStore | ErrorKind::SchemaTooNew
                );
                assert!(told, "seed {seed}: the open refused damage as {}", describe(&error));
                refused_open += 1;
            }
            Some(Ok(())) => noticed += u64::from(damage_is_told(seed, &*instance.store(), &truth, &answers)),
        }
    }
    assert!(noticed + refused_open > FLIPS / 4, "the flips hit too little to prove anything: {noticed}");
}

type Ask<'a> = Box<dyn Fn(&dyn Seams) -> Result<String> + 'a>;

/// Every single record, asked for by its key, as a host does.
fn questions<'a>(truth: &'a [Record]) -> impl Iterator<Item = (String, Ask<'a>)> + 'a {
    fn say<T: std::fmt::Debug>(answer: Result<T>) -> Result<String> {
        answer.map(|answer| format!("{answer:?}"))
    }
    truth.iter().filter_map(|record| {
        let ask: Ask<'a> = match record {
            Record::Skill(r) => Box::new(move |s| say(s.skills().get(&r.doc.id))),
            Record::SkillVersion(v) => Box::new(move |s| say(s.skills().version(&v.id))),
            Record::Agent(r) => Box::new(move |s| say(s.agents().by_name(&r.doc.owner, &r.doc.name))),
            Record::AgentVersion(v) => Box::new(move |s| say(s.agents().version(&v.id))),
            Record::Account(r) => Box::new(move |s| say(s.budgets().usage(&r.account, at(31)))),
            Record::Run(r) => Box::new(move |s| say(s.audit().run(&r.start.id))),
            Record::Event(e) => Box::new(move |s| say(s.audit().events(&e.run, &whole()))),
            Record::Checkpoint(r) => Box::new(move |s| say(s.checkpoints().load(&r.checkpoint.run))),
            _ => return None,
        };
        Some((format!("{record:?}"), ask))
    })
}

/// Whether anybody noticed. An answer is the truth, or Corrupt, or (when a key or an index is hit) something missing
/// that `verify` finds; never other data.
fn damage_is_told(
    seed: u64,
    store: &dyn Store,
    truth: &[Record],
    answers: &BTreeMap<String, String>,
) -> bool {
    let mut corrupt = false;
    let mut missing = Vec::new();
    for (what, ask) in questions(truth) {
        match ask(store) {
            Ok(answer) if answer == answers[&what] => {}
            Ok(answer) => missing.push(format!("{what} gave {answer}")),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "seed {seed}: {what} gave {}", describe(&error));
                corrupt = true;
            }
        }
    }
    let mut exported = Vec::new();
    let end = store.export(&mut |record| {
        exported.push(record);
        Ok(())
    });
    match &end {
        Ok(()) if exported == truth => {}
        Ok(()) => missing.push(format!("an export of {} records", exported.len())),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "seed {seed}: an export gave {}", describe(error));
            corrupt = true;
        }
    }
    for record in &exported {
        assert!(truth.contains(record), "seed {seed}: other data was given as {record:?}");
    }
    let verified = match store.verify() {
        Ok(found) => !found.is_sound(),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "seed {seed}: verify gave {}", describe(&error));
            true
        }
    };
    assert!(verified || !corrupt, "seed {seed}: a read found what verify did not");
    assert!(verified || missing.is_empty(), "seed {seed}: nobody noticed: {missing:?}");
    for gap in &missing {
        // What is missing may be missing whole, or from the end or the middle of a list; it is never something else.
        let whole_or_part = gap.ends_with("None")
            || gap.contains("Page {")
            || gap.contains("Usage {")
            || gap.starts_with("an export");
        assert!(whole_or_part, "seed {seed}: other data was given: {gap}");
    }
    verified || corrupt
}
