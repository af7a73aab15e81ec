//! storectl
fn main() {}
