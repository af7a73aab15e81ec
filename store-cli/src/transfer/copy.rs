//! From one store straight into another, whatever their engines.

use std::path::Path;

use serde::Serialize;
use store::transfer::{Digests, Seam, SeamDigest, counts, digests};
use store::{Entity, Error, OpenOptions, Result, Store};

use super::staging::{Staging, refuse_in_use};
use crate::progress::Progress;

/// How two stores compare, seam by seam.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    /// Whether they hold the same, to the last number and unknown field.
    pub(crate) same: bool,
    /// How many records the first holds.
    pub(crate) records: u64,
    /// Each seam that one of them holds anything of.
    pub(crate) seams: Vec<ComparedSeam>,
}

/// What two stores hold of one seam.
#[derive(Debug, Serialize)]
pub(crate) struct ComparedSeam {
    pub(crate) seam: Seam,
    pub(crate) same: bool,
    pub(crate) from: Option<SeamDigest>,
    pub(crate) to: Option<SeamDigest>,
}

impl Comparison {
    fn of(mut from: Digests, mut to: Digests) -> Self {
        let seams: std::collections::BTreeSet<Seam> = from.keys().chain(to.keys()).copied().collect();
        let compared = seams.into_iter().map(|seam| {
            let (from, to) = (from.remove(&seam), to.remove(&seam));
            ComparedSeam { seam, same: from == to, from, to }
        });
        let seams: Vec<ComparedSeam> = compared.collect();
        let records = seams.iter().filter_map(|seam| seam.from.as_ref()).map(|digest| digest.records).sum();
        Comparison { same: seams.iter().all(|seam| seam.same), records, seams }
    }

    /// What arrived must be what was sent.
    fn require_same(self) -> Result<Self> {
        if self.same {
            return Ok(self);
        }
        let differ: Vec<String> =
            self.seams.iter().filter(|seam| !seam.same).map(|seam| seam.seam.to_string()).collect();
        Err(Error::corrupt("the copy", format!("what arrived is not what was sent: {}", differ.join(", "))))
    }
}

/// Compares everything that two stores hold, each at one moment.
pub(crate) fn compare(from: &dyn Store, to: &dyn Store, progress: Progress) -> Result<Comparison> {
    let sent = {
        let mut bar = progress.bar("reading the source", None);
        digests(from, &mut |passed| bar.at(passed))?
    };
    let total = sent.values().map(|digest| digest.records).sum();
    compare_with(sent, to, total, progress)
}

fn compare_with(sent: Digests, to: &dyn Store, total: u64, progress: Progress) -> Result<Comparison> {
    let mut bar = progress.bar("comparing", Some(total));
    let arrived = digests(to, &mut |passed| bar.at(passed))?;
    Ok(Comparison::of(sent, arrived))
}

/// Copies everything in `from` to the store at the URL `to`, and compares what arrived with what was sent.
///
/// Where nothing is, and for `replace`, a new store grows in a hidden directory and gets its name when it is whole
/// and was compared. An empty store is filled as it is, in one transaction.
///
/// # Errors
/// `Conflict` when there is a store that is not empty, and it is not to be replaced; `Busy` when the one to replace is
/// in use; `InvalidInput` when it is the store to copy from. As [`Store::export`] and [`Store::import`]. `Corrupt` when
/// something else arrived than was sent.
pub(crate) fn copy(
    from: &dyn Store,
    to: &str,
    replace: bool,
    options: &OpenOptions,
    progress: Progress,
) -> Result<Comparison> {
    let target = Target::of(to);
    target.refuse_source(from)?;
    let existing = match store::open_with(to, &options.clone().create(false)) {
        Ok(existing) => Some(existing),
        Err(Error::NotFound { what: Entity::File, .. }) => None,
        Err(error) => return Err(error),
    };
    match (existing, target.path) {
        (None, None) => Err(Error::not_found(Entity::File, to)),
        (None, Some(path)) => target.grow(path, from, options, progress, Staging::publish),
        (Some(old), Some(path)) if replace => {
            old.close()?;
            refuse_in_use(path)?;
            // Whether it is a store, and who uses it, may have changed while the new one grew.
            let swap = |staging: Staging| {
                store::open_with(to, &options.clone().create(false))?.close()?;
                staging.replace()
            };
            target.grow(path, from, options, progress, swap)
        }
        (Some(empty), _) => {
            let compared = fill(from, &*empty, progress).map_err(suggest_replace)?;
            empty.close()?;
            Ok(compared)
        }
    }
}

fn suggest_replace(error: Error) -> Error {
    match error {
        Error::Conflict { what: what @ Entity::Store, id, reason } => {
            Error::conflict(what, id, format!("{reason}; --replace puts a new one in its place"))
        }
        other => other,
    }
}

/// Copies into an empty store.
fn fill(from: &dyn Store, to: &dyn Store, progress: Progress) -> Result<Comparison> {
    let total = progress.is_shown().then(|| count(from, progress)).transpose()?;
    let copied = {
        let mut bar = progress.bar("copying", total);
        store::transfer::copy(from, to, &mut |passed| bar.at(passed))?
    };
    compare_with(copied.sent, to, copied.report.total(), progress)?.require_same()
}

/// How many records there are, for the bar; others may write until the copy begins.
fn count(store: &dyn Store, progress: Progress) -> Result<u64> {
    let mut bar = progress.bar("counting", None);
    Ok(counts(store, &mut |passed| bar.at(passed))?.values().sum())
}

/// Where a copy goes.
struct Target<'a> {
    /// The scheme and its colon, if the URL has one.
    scheme: &'a str,
    /// The file, if the engine has one.
    path: Option<&'a Path>,
}

impl<'a> Target<'a> {
    /// Takes a URL apart. Whether it is one at all, opening it says.
    fn of(url: &'a str) -> Self {
        let scheme = |engine: &&str| url.strip_prefix(engine).is_some_and(|rest| rest.starts_with(':'));
        let length =
            store::engines().iter().find(|engine| scheme(engine)).map_or(0, |engine| engine.len() + 1);
        let (scheme, path) = url.split_at(length);
        Target { scheme, path: (!path.is_empty()).then_some(Path::new(path)) }
    }

    fn refuse_source(&self, from: &dyn Store) -> Result<()> {
        let (Some(to), Some(from)) = (self.path, from.info().path) else { return Ok(()) };
        match (to.canonicalize(), from.canonicalize()) {
            (Ok(to), Ok(from)) if to == from => Err(Error::invalid("to", "is the store to copy from")),
            _ => Ok(()),
        }
    }

    /// Fills a new store beside `path`, and has it placed when it is whole.
    fn grow(
        &self,
        path: &Path,
        from: &dyn Store,
        options: &OpenOptions,
        progress: Progress,
        place: impl FnOnce(Staging) -> Result<()>,
    ) -> Result<Comparison> {
        let staging = Staging::begin(path)?;
        let url = format!("{}{}", self.scheme, staging.path().display());
        let new = store::open_with(&url, options)?;
        let compared = fill(from, &*new, progress)?;
        new.close()?;
        place(staging)?;
        Ok(compared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_taken_apart() {
        for (url, scheme, path) in [
            ("a.db", "", Some("a.db")),
            ("other:a.db", "", Some("other:a.db")),
            #[cfg(feature = "sqlite")]
            ("sqlite:/a b/ü.db", "sqlite:", Some("/a b/ü.db")),
            #[cfg(feature = "memory")]
            ("memory:", "memory:", None),
        ] {
            let target = Target::of(url);
            assert_eq!((target.scheme, target.path), (scheme, path.map(Path::new)), "{url}");
        }
    }
}
