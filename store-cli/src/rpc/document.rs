//! `RPC.md`, made from the table and held to it.

use std::fmt::Write;

use super::dispatch::{CODES, NOTES};
use super::params::TYPES;
use super::table::{self, Method};

fn document() -> String {
    let mut text = String::from(
        "# The store over JSON-RPC 2.0\n\n\
         `storectl --store URL rpc` serves every method of the seams. This reference is made from the table that\n\
         dispatches (`STORECTL_WRITE_RPC_MD=1 cargo test -p store-cli reference` writes it); `rpc.discover` gives the\n\
         same as JSON. What the methods mean, and what the laws promise, is in the documentation of `store-api`.\n\n",
    );
    for note in NOTES {
        writeln!(text, "- {note}").unwrap();
    }
    text.push_str("\n```text\n> {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"skills.get\",\"params\":{\"id\":\"report\"}}\n< {\"id\":1,\"jsonrpc\":\"2.0\",\"result\":null}\n```\n");
    let mut seam = "";
    for method in table::all() {
        let own = method.name.split_once('.').map_or("units of work", |(seam, _)| seam);
        if own != seam {
            seam = own;
            write!(text, "\n## {seam}\n\n| method | parameters | result | laws |\n|---|---|---|---|\n")
                .unwrap();
        }
        row(&mut text, method);
    }
    text.push_str("\n## Types\n\n| type | in JSON |\n|---|---|\n");
    for (name, doc) in TYPES {
        writeln!(text, "| {name} | {doc} |").unwrap();
    }
    text.push_str("\n## Errors\n\n| code | meaning |\n|---|---|\n");
    for (code, doc) in CODES {
        writeln!(text, "| {code} | {doc} |").unwrap();
    }
    text
}

fn row(text: &mut String, method: &Method) {
    let optional = |required: bool| if required { "" } else { "?" };
    let params: Vec<String> = method
        .params
        .iter()
        .map(|param| format!("`{}{}`: {}", param.name, optional(param.required), param.type_name))
        .collect();
    let Method { name, doc, result, .. } = method;
    let (params, laws) = (params.join(", "), method.laws.join(", "));
    writeln!(text, "| **`{name}`** {doc} | {params} | {result} | {laws} |").unwrap();
}

#[test]
fn the_reference_is_in_step_with_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/RPC.md");
    let document = document();
    if std::env::var_os("STORECTL_WRITE_RPC_MD").is_some() {
        std::fs::write(path, &document).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert!(
        written == document,
        "RPC.md is not what the table says: see its first paragraph for how to write it"
    );
}

#[test]
fn every_name_is_there_once_and_every_type_is_explained() {
    let mut names: Vec<_> = table::all().map(|method| method.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    for param in table::all().flat_map(|method| method.params) {
        assert!(TYPES.iter().any(|(name, _)| *name == param.type_name), "{}", param.type_name);
    }
}

/// The traits say which laws bind a method; the table may not say otherwise, nor leave a method out.
#[test]
fn methods_and_laws_are_those_of_the_traits() {
    let sources = [
        ("skills", include_str!("../../../store-api/src/catalog.rs"), "pub trait Catalog<"),
        ("agents", include_str!("../../../store-api/src/catalog.rs"), "pub trait Catalog<"),
        ("agents", include_str!("../../../store-api/src/catalog.rs"), "pub trait AgentStore"),
        ("budgets", include_str!("../../../store-api/src/budget.rs"), "pub trait BudgetStore"),
        ("audit", include_str!("../../../store-api/src/audit.rs"), "pub trait AuditStore"),
        ("checkpoints", include_str!("../../../store-api/src/checkpoint.rs"), "pub trait CheckpointStore"),
    ];
    let mut seen = 0;
    for (seam, source, start) in sources {
        let body = source.split_once(start).unwrap().1.split_once("\n}").unwrap().0;
        let mut laws = Vec::new();
        let mut in_guarantees = false;
        for line in body.lines().map(str::trim) {
            if let Some(doc) = line.strip_prefix("///").map(str::trim) {
                in_guarantees = doc == "# Guarantees" || (in_guarantees && !doc.starts_with('#'));
                if in_guarantees {
                    let law = |word: &&str| {
                        word.contains('-') && word.starts_with(|c: char| c.is_ascii_uppercase())
                    };
                    let words = doc.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
                    laws.extend(words.filter(law).map(str::to_owned));
                }
            } else if let Some(signature) = line.strip_prefix("fn ") {
                let name = signature.split(['(', '<']).next().unwrap();
                let laws = std::mem::take(&mut laws);
                // `update` needs a closure: `rpc.discover` says what to do instead.
                if name != "update" {
                    let method = table::find(&format!("{seam}.{name}"));
                    let method = method.unwrap_or_else(|| panic!("{seam}.{name} is not in the table"));
                    assert_eq!(method.laws, laws, "{}", method.name);
                    seen += 1;
                }
            }
        }
    }
    let of_seams = |method: &&Method| matches!(method.target, table::Target::Seams(_));
    assert_eq!(seen, table::all().filter(of_seams).count());
}
