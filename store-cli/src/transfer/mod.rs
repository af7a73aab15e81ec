//! Moving everything that a store holds: as a file of JSON Lines, or straight into another store.

mod copy;
mod jsonl;
mod packing;
mod staging;

pub(crate) use copy::{ComparedSeam, Comparison, compare, copy};
pub(crate) use jsonl::{export, export_to_file, import, import_from_file};

/// Names what was being done when the operating system said no.
fn failed(doing: &'static str) -> impl Fn(std::io::Error) -> store::Error {
    move |error| store::Error::backend(doing, error)
}

#[cfg(test)]
#[cfg(feature = "sqlite")]
mod tests {
    use super::*;
    use contract_tests::laws::moves::fill;
    use store::Store;
    use store::transfer::{Digests, digests};

    fn digest(store: &dyn Store) -> Digests {
        digests(store, &mut |_| {}).unwrap()
    }

    /// Through every engine that is compiled in, then through files, and back to where it began.
    #[test]
    fn the_whole_way_round_ends_with_the_digests_it_began_with() {
        let directory = tempfile::tempdir().unwrap();
        let open = |engine: &str, name: &str| match engine {
            "memory" => store::open("memory:").unwrap(),
            _ => store::open(&format!("{engine}:{}", directory.path().join(name).display())).unwrap(),
        };
        let first = open("sqlite", "first");
        fill(&*first);
        let begun = digest(&*first);
        assert_eq!(begun.len(), 6, "something in every seam");

        let mut last = first;
        for engine in store::engines().into_iter().filter(|engine| *engine != "sqlite") {
            let next = open(engine, engine);
            store::transfer::copy(&*last, &*next, &mut |_| {}).unwrap();
            assert_eq!(digest(&*next), begun, "{engine}");
            last = next;
        }
        let packed: &[&str] = if cfg!(feature = "zstd") { &["a.gz", "a.zst"] } else { &["a.gz"] };
        for name in [&["a.jsonl"], packed].concat() {
            let file = directory.path().join(name);
            export_to_file(&*last, &file).unwrap();
            let next = open("sqlite", &format!("from-{name}"));
            import_from_file(&*next, &file).unwrap();
            assert_eq!(digest(&*next), begun, "{name}");
            last = next;
        }
        assert!(last.verify().unwrap().is_sound());
    }
}
