//! Opening by URL, in every combination of features: what is compiled in opens, all else says what to do.

use std::sync::Arc;

use store::{Durability, Error, ErrorKind, OpenOptions, Store, engines, open, open_with};

/// The error of an open that must fail.
fn refusal(url: &str) -> Error {
    match open(url) {
        Ok(store) => panic!("{url} opened {:?}", store.info()),
        Err(error) => error,
    }
}

#[test]
fn an_unknown_scheme_names_the_schemes_there_are() {
    for url in ["postgres://host/db", "foo:", "SQLITE:a.db", "sqlite3:a.db"] {
        let error = refusal(url);
        assert_eq!(error.kind(), ErrorKind::EngineNotCompiled, "{url}");
        assert!(error.to_string().contains("sqlite:, redb:, memory:"), "{error}");
    }
}

#[test]
fn a_scheme_that_is_not_compiled_in_names_its_feature() {
    for (scheme, url) in [("sqlite", "sqlite:a.db"), ("redb", "redb:a.redb"), ("memory", "memory:")] {
        if !engines().contains(&scheme) {
            let error = refusal(url);
            assert_eq!(error.kind(), ErrorKind::EngineNotCompiled);
            assert!(error.to_string().contains(&format!("the cargo feature {scheme:?}")), "{error}");
        }
    }
}

#[test]
fn nonsense_is_invalid_input() {
    for url in ["", " "] {
        assert_eq!(refusal(url).kind(), ErrorKind::InvalidInput, "{url:?}");
    }
}

#[test]
fn a_bare_path_takes_the_one_engine_or_says_why_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agents.db");
    let path = path.to_str().unwrap();
    match engines().as_slice() {
        [] => {
            let error = refusal(path);
            assert_eq!(error.kind(), ErrorKind::EngineNotCompiled);
            assert!(error.to_string().contains("sqlite, redb, memory"), "{error}");
        }
        [engine @ ("sqlite" | "redb")] => assert_eq!(open(path).unwrap().info().engine, *engine),
        ["memory"] => {
            let error = refusal(path);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("has no file: memory:"), "{error}");
        }
        several => {
            let error = refusal(path);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let schemes = several.iter().map(|scheme| format!("{scheme}:")).collect::<Vec<_>>().join(", ");
            assert!(error.to_string().contains(&format!("one of {schemes}")), "{error}");
        }
    }
}

#[test]
fn what_open_gives_goes_wherever_a_host_needs_it() {
    fn check<T: Send + Sync + 'static>(_: fn(&str) -> Result<T, Error>) {}
    check::<Arc<dyn Store>>(open);
}

#[cfg(feature = "memory")]
#[test]
fn memory_opens_a_store_of_its_own_each_time() {
    use store::{Expect, Name, PrincipalId, Skill, SkillId};
    let (one, two) = (open("memory:").unwrap(), open("memory:").unwrap());
    assert_eq!(one.info().engine, "memory");
    let skill =
        Skill::new(SkillId::new("s").unwrap(), PrincipalId::new("o").unwrap(), Name::new("n").unwrap());
    one.skills().save(&skill, Expect::Absent).unwrap();
    assert!(two.skills().get(&skill.id).unwrap().is_none());
    assert!(refusal("memory:x").to_string().contains("nothing may follow"));
}

/// The engines in this build whose stores are files.
fn engines_with_files() -> Vec<&'static str> {
    engines().into_iter().filter(|scheme| *scheme != "memory").collect()
}

#[test]
fn a_file_is_opened_to_the_letter() {
    for scheme in engines_with_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ü b#%20.db");
        let url = format!("{scheme}:{}", path.display());
        let store = open(&url).unwrap();
        assert_eq!(store.info().engine, scheme);
        assert!(path.exists());
        store.close().unwrap();
        let again = open_with(&url, &OpenOptions::default().create(false)).unwrap();
        assert!(again.verify().unwrap().is_sound());
    }
}

#[test]
fn what_is_more_than_a_path_is_refused() {
    for scheme in engines_with_files() {
        for rest in ["", " ", ":memory:", "a.db?mode=memory", "file:a.db", "//a.db"] {
            let url = format!("{scheme}:{rest}");
            let error = refusal(&url);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
            assert!(error.to_string().starts_with("invalid url: "), "{error}");
        }
    }
}

#[test]
fn without_create_a_missing_file_is_not_found_and_stays_missing() {
    for scheme in engines_with_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("missing.db");
        let options = OpenOptions::default().create(false);
        let error = open_with(&format!("{scheme}:{}", path.display()), &options);
        assert_eq!(error.err().unwrap().kind(), ErrorKind::NotFound);
        assert!(!path.exists());
    }
}

#[test]
fn a_file_gives_the_durability_that_was_asked_for_and_no_less_than_a_file_does() {
    use Durability::{Memory, PowerLoss, Process};
    for scheme in engines_with_files() {
        for (asked, given) in [(PowerLoss, PowerLoss), (Process, Process), (Memory, Process)] {
            let directory = tempfile::tempdir().unwrap();
            let url = format!("{scheme}:{}", directory.path().join("a.db").display());
            let store = open_with(&url, &OpenOptions::default().durability(asked)).unwrap();
            assert_eq!(store.info().durability, given, "{scheme}, {asked:?}");
        }
    }
}

#[test]
fn one_engine_refuses_the_file_of_another() {
    for (scheme, other) in [("sqlite", "redb"), ("redb", "sqlite")] {
        if engines().contains(&scheme) && engines().contains(&other) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("agents");
            open(&format!("{scheme}:{}", path.display())).unwrap().close().unwrap();
            let error = refusal(&format!("{other}:{}", path.display()));
            assert_eq!(error.kind(), ErrorKind::NotThisStore, "{error}");
        }
    }
}
