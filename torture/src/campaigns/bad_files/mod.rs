//! Bad files: what is no store of ours is refused with an error of its own, and nothing in its directory changes.

mod places;
mod tree;

use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rusqlite::Connection;
use store::{Durability, OpenOptions, Store, describe};

use super::{Campaign, Plan};
use crate::engines::Engine;
use crate::report::{Attempt, Line};
use places::{Answer, places};
use tree::Tree;

const NAME: &str = "bad-files";

pub(super) const CAMPAIGN: Campaign = Campaign {
    name: NAME,
    about: "what is no store of ours is refused with its own error, and untouched",
    run,
    child: Some(child),
};

fn run(plan: &Plan, give: &mut dyn FnMut(Line)) {
    for engine in Engine::ALL.into_iter().filter(|engine| plan.wants(engine.name())) {
        let line = |what: &str| Line::new(NAME, engine.name(), what);
        let seed = plan.seed;
        give(line("opened by path").attempt(seed, "places", |line| {
            each_place(engine, seed, line, |path| engine.open(path, Durability::PowerLoss))
        }));
        give(
            line("opened by URL").attempt(seed, "places", |line| {
                each_place(engine, seed, line, |path| open_url(engine, path))
            }),
        );
        give(permissions(engine, seed));
        give(
            line("the bare library").control().attempt(seed, "places", |line| {
                each_place(engine, seed, line, |path| open_bare(engine, path))
            }),
        );
    }
}

fn open_url(engine: Engine, path: &Path) -> store::Result<Arc<dyn Store>> {
    let path = path.to_str().ok_or_else(|| store::Error::invalid("path", "is not UTF-8"))?;
    store::open_with(&format!("{}:{path}", engine.name()), &OpenOptions::default())
}

/// What a program does that asks nothing first: it opens what is there and makes its table.
fn open_bare(engine: Engine, path: &Path) -> store::Result<Arc<dyn Store>> {
    let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
        store::Error::backend("opening", std::io::Error::other(e))
    };
    match engine {
        Engine::Sqlite => Connection::open(path)
            .and_then(|db| {
                db.execute_batch(
                    "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS meta (key, value, sum)",
                )
            })
            .map_err(|e| failed(e.into()))?,
        Engine::Redb => redb::Database::create(path).map(drop).map_err(|e| failed(e.into()))?,
    }
    store::open("memory:")
}

/// Opens every place and looks at what came of it.
fn each_place(
    engine: Engine,
    seed: u64,
    line: &mut Line,
    open: impl Fn(&Path) -> store::Result<Arc<dyn Store>>,
) -> Attempt {
    let by_url = line.configuration == "opened by URL";
    for place in places(engine, seed)? {
        let directory = tempfile::tempdir()?;
        let path = (place.lay)(directory.path())?;
        let before = Tree::of(directory.path())?;
        line.tried += 1;
        let opened = catch_unwind(AssertUnwindSafe(|| open(&path)));
        let answer = if by_url { place.by_url } else { place.by_path };
        let fault = match opened {
            Err(_) => {
                line.panicked += 1;
                Some("panicked".to_owned())
            }
            Ok(opened) => {
                let fault = judge(answer, opened, || before.difference(directory.path()));
                line.wrong += u64::from(fault.is_some());
                fault
            }
        };
        if let Some(fault) = fault {
            line.fault(|| format!("{}: {fault}", place.what));
        }
    }
    Ok(())
}

/// What is wrong with an answer.
fn judge(
    expected: Answer,
    opened: store::Result<Arc<dyn Store>>,
    difference: impl FnOnce() -> std::io::Result<Option<String>>,
) -> Option<String> {
    match (expected, opened) {
        (Answer::Refused(kinds), Err(error)) | (Answer::Damaged(kinds), Err(error)) => {
            if !kinds.contains(&error.kind()) {
                return Some(format!("refused as {}: {}", error.kind(), describe(&error)));
            }
            match difference() {
                Ok(difference) => difference,
                Err(error) => Some(format!("cannot be looked at any more: {error}")),
            }
        }
        (Answer::Refused(kinds), Ok(_)) => Some(format!("was opened, not refused as {kinds:?}")),
        (Answer::Opens, Err(error)) => Some(format!("was not opened: {}", describe(&error))),
        (Answer::Opens, Ok(store)) => problems(&*store),
        // What an open cannot see, verify does, unless nothing that was stored is gone.
        (Answer::Damaged(_), Ok(store)) => match problems(&*store) {
            Some(_) => None,
            None if holds_everything(&*store) => None,
            None => Some("nobody noticed the damage".to_owned()),
        },
    }
}

fn problems(store: &dyn Store) -> Option<String> {
    match store.verify() {
        Ok(found) if found.is_sound() => None,
        Ok(found) => Some(format!("{:?}", found.problems)),
        Err(error) => Some(describe(&error)),
    }
}

fn holds_everything(store: &dyn Store) -> bool {
    let counted = store::transfer::counts(store, &mut |_| {});
    counted.is_ok_and(|counts| counts == places::everything())
}

/// What the rights of a file or its directory do not allow. Root has every right, so a child gives its own up.
fn permissions(engine: Engine, seed: u64) -> Line {
    let line = Line::new(NAME, engine.name(), "without the rights");
    line.attempt(seed, "places", |line| {
        let shelf = tempfile::tempdir()?;
        let program = shelf.path().join("opener");
        std::fs::copy(std::env::current_exe()?, &program)?;
        tree::give_to_nobody(shelf.path())?;
        for place in places::without_rights(engine) {
            let directory = tempfile::tempdir_in(shelf.path())?;
            let path = (place.lay)(directory.path())?;
            let before = Tree::of(directory.path())?;
            line.tried += 1;
            let fault = match open_as_nobody(&program, engine, &path)? {
                Ok(()) if place.by_path == Answer::Opens => None,
                Ok(()) => Some("was opened".to_owned()),
                Err(said) => {
                    let Answer::Refused(kinds) = place.by_path else { return Err(said.into()) };
                    let told = kinds.iter().any(|kind| said.starts_with(&kind.to_string()));
                    if told {
                        before.difference(directory.path())?
                    } else {
                        Some(format!("refused as {said}"))
                    }
                }
            };
            tree::make_removable(directory.path())?;
            if let Some(fault) = fault {
                line.wrong += 1;
                line.fault(|| format!("{}: {fault}", place.what));
            }
        }
        Ok(())
    })
}

/// The user that owns nothing.
const NOBODY: u32 = 65534;

/// What a child without rights says: nothing, or the kind of the error and its text.
fn open_as_nobody(program: &Path, engine: Engine, path: &Path) -> std::io::Result<Result<(), String>> {
    let mut child = Command::new(program);
    child.args([crate::CHILD, NAME, engine.name()]).arg(path);
    if tree::is_root()? {
        child.uid(NOBODY).gid(NOBODY);
    }
    let output = child.output()?;
    if output.status.success() && output.stdout.is_empty() {
        return Ok(Ok(()));
    }
    let said = [output.stdout, output.stderr].concat();
    Ok(Err(String::from_utf8_lossy(&said).into_owned()))
}

/// Opens a store, writes to it, and says what came of it.
fn child(arguments: &[String]) {
    let [engine, path] = arguments else { return };
    let Some(engine) = Engine::named(engine) else { return };
    let done = engine.open(&PathBuf::from(path), Durability::PowerLoss).and_then(|store| {
        places::write(&*store)?;
        store.close()
    });
    if let Err(error) = done {
        let said = format!("{} {}", error.kind(), describe(&error));
        // A parent that is gone needs no answer.
        drop(std::io::Write::write_all(&mut std::io::stdout(), said.as_bytes()));
    }
}
