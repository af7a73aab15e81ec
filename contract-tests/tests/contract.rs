//! The contract, the documentation of the seams, and the suite name the same laws.

#![allow(clippy::unwrap_used)] // of the helpers: each is an assertion

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use contract_tests::suite::REGISTRY;
use store_api::contract;

/// Where the seams are.
const SEAMS: [&str; 5] = ["catalog.rs", "budget.rs", "audit.rs", "checkpoint.rs", "seams.rs"];

/// The traits that hosts call. What has no promise of its own stands in none of them.
const TRAITS: [&str; 6] = ["Catalog", "AgentStore", "BudgetStore", "AuditStore", "CheckpointStore", "Store"];

/// Methods without a promise and without an error: they say what the store is.
const PLAIN: [&str; 1] = ["info"];

/// How many methods there were when this was written: fewer means that the scan missed some.
const AT_LEAST: usize = 60;

/// A method of a seam with the text above it.
struct Method {
    name: String,
    docs: Vec<String>,
}

impl Method {
    /// The text under a heading, up to the next one.
    fn section(&self, heading: &str) -> Option<String> {
        let start = self.docs.iter().position(|line| line == heading)?;
        let lines = self.docs[start + 1..].iter().take_while(|line| !line.starts_with("# "));
        Some(lines.map(String::as_str).collect::<Vec<_>>().join(" "))
    }
}

/// The methods of all seams, read from their source.
fn methods() -> Vec<Method> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../store-api/src");
    SEAMS.iter().flat_map(|file| methods_in(&fs::read_to_string(directory.join(file)).unwrap())).collect()
}

fn methods_in(source: &str) -> Vec<Method> {
    let mut methods = Vec::new();
    let mut docs = Vec::new();
    let mut inside = false;
    for line in source.lines() {
        if let Some(declared) = line.strip_prefix("pub trait ") {
            let name = declared.split(|c: char| !c.is_alphanumeric()).next().unwrap();
            inside = TRAITS.contains(&name);
        } else if line == "}" {
            inside = false;
        } else if let Some(doc) = line.trim().strip_prefix("///") {
            docs.push(doc.trim().to_owned());
        } else if let Some(method) = line.strip_prefix("    fn ").filter(|_| inside) {
            let name = method.split(['(', '<']).next().unwrap().to_owned();
            methods.push(Method { name, docs: std::mem::take(&mut docs) });
        } else {
            docs.clear();
        }
    }
    methods
}

/// The law ids in a text: capitals, a hyphen, a number.
fn ids_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let is_id = |word: &&str| {
        word.split_once('-').is_some_and(|(letters, number)| {
            letters.len() >= 3
                && letters.bytes().all(|b| b.is_ascii_uppercase())
                && !number.is_empty()
                && number.bytes().all(|b| b.is_ascii_digit())
        })
    };
    words.filter(is_id).map(str::to_owned).collect()
}

fn laws() -> BTreeSet<String> {
    contract::laws().iter().map(|law| law.id.to_owned()).collect()
}

#[test]
fn the_contract_and_the_suite_have_the_same_laws_in_the_same_order() {
    let written: Vec<&str> = contract::laws().iter().map(|law| law.id).collect();
    let checked: Vec<&str> = REGISTRY.iter().map(|check| check.law().id).collect();
    assert_eq!(checked, written);
    assert_eq!(laws().len(), written.len(), "a law is written twice");
    assert_eq!(written.len(), 34);
    for check in REGISTRY {
        let id = check.law().id.to_lowercase().replace('-', "_");
        assert!(check.name.starts_with(&format!("{id}_")), "{} is not named after {id}", check.name);
    }
}

#[test]
fn every_method_says_its_guarantees_and_errors() {
    let methods = methods();
    assert!(methods.len() >= AT_LEAST, "the scan found only {} methods", methods.len());
    for method in methods.iter().filter(|method| !PLAIN.contains(&method.name.as_str())) {
        assert!(method.section("# Guarantees").is_some(), "{} says no guarantee", method.name);
        assert!(method.section("# Errors").is_some(), "{} says no error", method.name);
    }
}

#[test]
fn every_law_is_named_by_a_method_and_every_named_law_is_written() {
    let mut named = BTreeSet::new();
    for method in methods() {
        let Some(guarantees) = method.section("# Guarantees") else { continue };
        let ids = ids_in(&guarantees);
        assert!(!ids.is_empty(), "{} names no law: {guarantees}", method.name);
        let unknown: Vec<_> = ids.difference(&laws()).cloned().collect();
        assert!(unknown.is_empty(), "{} names laws that are not written: {unknown:?}", method.name);
        named.extend(ids);
    }
    assert_eq!(named, laws(), "laws that no method names, or names that are no laws");
}
