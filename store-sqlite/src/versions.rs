//! Versions of definitions: snapshots that never change.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rusqlite::{Row, params};
use store_api::json::{self, Extra};
use store_api::{
    Definition, Entity, Error, NewVersion, Page, PrincipalId, Result, Version, VersionId, rules,
};

use crate::tx::{Onward, Tx, column, document, text};
use crate::{catalog, sums};

/// The columns that [`read`] reads.
pub(crate) const COLUMNS: &str = "id, seq, pinned, sum, doc, definition";

/// What a version's document holds: all of it that is not a column and that never changes.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(bound(deserialize = "D: Definition"))]
struct Content<'a, D: Definition> {
    snapshot: Cow<'a, D>,
    label: Cow<'a, str>,
    saved_by: Cow<'a, PrincipalId>,
    saved_at: DateTime<Utc>,
    summary: Cow<'a, str>,
    #[serde(flatten)]
    extra: Cow<'a, Extra>,
}

impl<'a, D: Definition> Content<'a, D> {
    fn of(version: &'a NewVersion<D>) -> Self {
        Content {
            snapshot: rules::without_run_state(&version.snapshot),
            label: Cow::Borrowed(&version.label),
            saved_by: Cow::Borrowed(&version.saved_by),
            saved_at: version.saved_at,
            summary: Cow::Borrowed(&version.summary),
            extra: Cow::Borrowed(&version.extra),
        }
    }

    fn version(self, id: VersionId, seq: u64, pinned: bool) -> Version<D> {
        let content = NewVersion {
            id,
            snapshot: self.snapshot.into_owned(),
            label: self.label.into_owned(),
            saved_by: self.saved_by.into_owned(),
            saved_at: self.saved_at,
            summary: self.summary.into_owned(),
            pinned,
            extra: self.extra.into_owned(),
        };
        Version { seq, content }
    }
}

/// A version that is to be stored, as the document that it will be. It is made before its writer stands in line: it is
/// nobody else's business how long that takes.
pub(crate) struct Draft<'a, D: Definition> {
    version: &'a NewVersion<D>,
    content: Content<'a, D>,
    doc: String,
}

impl<'a, D: Definition> Draft<'a, D> {
    /// Of a version from outside.
    ///
    /// # Errors
    /// `InvalidInput` naming the field.
    pub(crate) fn check(version: &'a NewVersion<D>) -> Result<Self> {
        version.validate()?;
        Draft::of(version)
    }

    /// Of a version that was checked.
    pub(crate) fn of(version: &'a NewVersion<D>) -> Result<Self> {
        let content = Content::of(version);
        let doc = json::encode(&content)?;
        Ok(Draft { version, content, doc })
    }

    /// The version as a read gives it, now that it is stored under `seq`.
    pub(crate) fn stored(self, seq: u64) -> Arc<Version<D>> {
        Arc::new(self.content.version(self.version.id.clone(), seq, self.version.pinned))
    }
}

pub(crate) fn not_found(id: &VersionId) -> Error {
    Error::not_found(Entity::Version, id.as_str())
}

fn taken(id: &VersionId) -> Error {
    Error::already_exists(Entity::Version, "id", id.as_str())
}

fn key(id: &str) -> String {
    format!("versions/{id}")
}

/// A row of [`COLUMNS`], checked and not yet decoded.
struct Checked<'r> {
    seq: i64,
    pinned: bool,
    doc: &'r str,
}

/// A row as the version `id` of `definition`. Another has another sum.
fn check<'r, D: Definition>(id: &str, definition: &str, row: &'r Row<'_>) -> Result<Checked<'r>> {
    let doc = document(|| key(id), row, 4)?;
    let (seq, pinned) = (column(row, 1)?, column(row, 2)?);
    let found = sums::version(D::KIND, definition, seq, id, pinned, doc);
    sums::check(|| key(id), column(row, 3)?, found)?;
    Ok(Checked { seq, pinned, doc })
}

/// A version from a row of [`COLUMNS`].
pub(crate) fn read<D: Definition>(row: &Row<'_>) -> Result<Version<D>> {
    read_as(text(row, 0)?, text(row, 5)?, row)
}

/// The version `id` of `definition` from the same row.
fn read_as<D: Definition>(id: &str, definition: &str, row: &Row<'_>) -> Result<Version<D>> {
    let Checked { seq, pinned, doc } = check::<D>(id, definition, row)?;
    let content: Content<'_, D> = json::decode(|| key(id), doc)?;
    if content.snapshot.id().as_ref() != definition {
        return Err(Error::corrupt(key(id), format!("is no snapshot of {definition:?}")));
    }
    let id = VersionId::new(id).map_err(|e| sums::damaged(|| key(id), &e))?;
    Ok(content.version(id, seq.cast_unsigned(), pinned))
}

/// A version that an index gave for `asked`, and its place among those.
pub(crate) fn read_of<D: Definition>(asked: &D::Id, row: &Row<'_>) -> Result<(i64, Version<D>)> {
    let version: Version<D> = read_as(text(row, 0)?, asked.as_ref(), row)?;
    Ok((version.seq.cast_signed(), version))
}

impl Tx<'_> {
    /// Whether a version id is free, among skills and agents together.
    pub(crate) fn check_version_id(&self, id: &VersionId) -> Result<()> {
        if self.any("SELECT 1 FROM versions WHERE id = ?1", [id.as_str()])? {
            return Err(taken(id));
        }
        Ok(())
    }

    /// Appends a version to those of its definition; its seq.
    pub(crate) fn append<D: Definition>(&self, draft: &Draft<'_, D>) -> Result<u64> {
        let definition = draft.version.snapshot.id();
        let seq = rules::next_seq(self.last_seq::<D>(definition)?)?;
        self.insert_version(seq, draft)?;
        self.set_last_seq::<D>(definition, seq)?;
        Ok(seq)
    }

    /// Stores a version whose id must be free.
    pub(crate) fn insert_version<D: Definition>(&self, seq: u64, draft: &Draft<'_, D>) -> Result<()> {
        let Draft { version, doc, .. } = draft;
        let (definition, id) = (version.snapshot.id().as_ref(), version.id.as_str());
        let sum = sums::version(D::KIND, definition, seq.cast_signed(), id, version.pinned, doc);
        let sql = "INSERT INTO versions (kind, definition, seq, id, pinned, sum, doc) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO NOTHING";
        let params = params![D::KIND.code(), definition, seq.cast_signed(), id, version.pinned, sum, doc];
        match self.execute(sql, params)? {
            1 => Ok(()),
            _ => Err(taken(&version.id)),
        }
    }

    /// Up to `limit` versions with a seq below `before`, newest first.
    pub(crate) fn versions_before<D: Definition>(
        &self,
        id: &D::Id,
        before: i64,
        limit: usize,
    ) -> Result<Page<Arc<Version<D>>>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM versions WHERE kind = ?1 AND definition = ?2 AND seq < ?3 ORDER BY seq DESC"
        );
        let params = params![D::KIND.code(), id.as_ref(), before];
        self.page(D::KIND.versions(), &sql, params, Onward::falling(Some(before)), limit, |row| {
            let (seq, version) = read_of::<D>(id, row)?;
            Ok((seq, Arc::new(version)))
        })
    }

    pub(crate) fn latest_version<D: Definition>(&self, id: &D::Id) -> Result<Option<Arc<Version<D>>>> {
        let sql =
            format!("SELECT {COLUMNS} FROM versions WHERE kind = ?1 AND definition = ?2 ORDER BY seq DESC");
        let read = |row: &Row<'_>| Ok(Arc::new(read_of::<D>(id, row)?.1));
        self.first(&sql, params![D::KIND.code(), id.as_ref()], read)
    }

    pub(crate) fn find_version<D: Definition>(&self, id: &VersionId) -> Result<Option<Version<D>>> {
        let sql = format!("SELECT {COLUMNS} FROM versions WHERE id = ?1 AND kind = ?2");
        self.first(&sql, params![id.as_str(), D::KIND.code()], |row| read_as(id.as_str(), text(row, 5)?, row))
    }

    pub(crate) fn set_pinned<D: Definition>(&self, id: &VersionId, pinned: bool) -> Result<()> {
        let sql = format!("SELECT {COLUMNS} FROM versions WHERE id = ?1 AND kind = ?2");
        let sum = self.first(&sql, params![id.as_str(), D::KIND.code()], |row| {
            let definition = text(row, 5)?;
            let found = check::<D>(id.as_str(), definition, row)?;
            Ok(sums::version(D::KIND, definition, found.seq, id.as_str(), pinned, found.doc))
        })?;
        let sum = sum.ok_or_else(|| not_found(id))?;
        let sql = "UPDATE versions SET pinned = ?2, sum = ?3 WHERE id = ?1";
        self.change_one(|| key(id.as_str()), sql, params![id.as_str(), pinned, sum])
    }

    /// Removes all but the `keep` newest versions and the pinned ones. Each row is checked first, so that a flipped
    /// bit neither unpins a version nor counts another definition's.
    pub(crate) fn prune<D: Definition>(&self, id: &D::Id, keep: usize) -> Result<u64> {
        let sql =
            format!("SELECT {COLUMNS} FROM versions WHERE kind = ?1 AND definition = ?2 ORDER BY seq DESC");
        let params = params![D::KIND.code(), id.as_ref()];
        let versions = self.take(&sql, params, Onward::falling(None), usize::MAX, |row| {
            let found = check::<D>(text(row, 0)?, id.as_ref(), row)?;
            Ok((found.seq, Some((found.seq.cast_unsigned(), found.pinned))))
        })?;
        let removed = rules::prunable(versions, keep);
        let sql = "DELETE FROM versions WHERE kind = ?1 AND definition = ?2 AND seq = ?3 \
                   RETURNING kind = ?1 AND definition = ?2 AND seq = ?3";
        let mut gone = 0;
        for seq in &removed {
            let params = params![D::KIND.code(), id.as_ref(), seq.cast_signed()];
            gone += self.change(|| catalog::key::<D>(id.as_ref()), sql, params)? as u64;
        }
        Ok(gone)
    }

    pub(crate) fn delete_versions<D: Definition>(&self, id: &D::Id) -> Result<()> {
        let sql = "DELETE FROM versions WHERE kind = ?1 AND definition = ?2 \
                   RETURNING kind = ?1 AND definition = ?2";
        self.change(|| catalog::key::<D>(id.as_ref()), sql, params![D::KIND.code(), id.as_ref()]).map(drop)
    }
}
