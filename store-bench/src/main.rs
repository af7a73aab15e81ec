//! Measures each engine against the bare database beneath it, doing the same durable work by hand, in turn in one run.

fn main() {}
