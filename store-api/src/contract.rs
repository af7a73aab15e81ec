#![doc = include_str!("../docs/contract.md")]

/// One law: its id, and its promise in one sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Law {
    /// `SEQ-1`, `MARK-2`, …
    pub id: &'static str,
    /// The promise, as the contract words it.
    pub promise: &'static str,
}

/// The contract's own text.
const TEXT: &str = include_str!("../docs/contract.md");

/// All laws, in the order of the contract: read from its tables, so there is one list.
pub fn laws() -> Vec<Law> {
    TEXT.lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| **")?.strip_suffix(" |")?.splitn(2, "** | ");
            Some(Law { id: cells.next()?, promise: cells.next()? })
        })
        .collect()
}
