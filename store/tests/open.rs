//! Opening by URL, in every combination of features: what is compiled in opens, all else says what to do.

use std::sync::Arc;

use store::{Error, ErrorKind, Store, engines, open};
#[cfg(feature = "sqlite")]
use store::{OpenOptions, open_with};

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
        assert!(error.to_string().contains("sqlite:, memory:"), "{error}");
    }
}

#[test]
fn a_scheme_that_is_not_compiled_in_names_its_feature() {
    for (scheme, url) in [("sqlite", "sqlite:a.db"), ("memory", "memory:")] {
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
            assert!(error.to_string().contains("sqlite, memory"), "{error}");
        }
        ["sqlite"] => assert_eq!(open(path).unwrap().info().engine, "sqlite"),
        ["memory"] => {
            let error = refusal(path);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("has no file: memory:"), "{error}");
        }
        _ => {
            let error = refusal(path);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("one of sqlite:, memory:"), "{error}");
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

#[cfg(feature = "sqlite")]
#[test]
fn sqlite_opens_a_file_to_the_letter() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ü b#%20.db");
    let url = format!("sqlite:{}", path.display());
    let store = open(&url).unwrap();
    assert_eq!(store.info().engine, "sqlite");
    assert!(path.exists());
    store.close().unwrap();
    let again = open_with(&url, &OpenOptions::default().create(false)).unwrap();
    assert!(again.verify().unwrap().is_sound());
}

#[cfg(feature = "sqlite")]
#[test]
fn sqlite_refuses_what_is_more_than_a_path() {
    for url in [
        "sqlite:",
        "sqlite: ",
        "sqlite::memory:",
        "sqlite:a.db?mode=memory",
        "sqlite:file:a.db",
        "sqlite://a.db",
    ] {
        let error = refusal(url);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
        assert!(error.to_string().starts_with("invalid url: "), "{error}");
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn without_create_a_missing_file_is_not_found_and_stays_missing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing.db");
    let error = open_with(&format!("sqlite:{}", path.display()), &OpenOptions::default().create(false));
    assert_eq!(error.err().unwrap().kind(), ErrorKind::NotFound);
    assert!(!path.exists());
}
