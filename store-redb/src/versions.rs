//! Versions of definitions: numbered, immutable but for their pin.

use std::sync::Arc;

use store_api::{
    Definition, Entity, Error, NewVersion, Page, PageRequest, Result, Version, VersionId, rules,
};

use crate::catalog;
use crate::index;
use crate::keys::{self, Fields, Key, Span};
use crate::kv::Order;
use crate::tables::{VERSION_IDS, VERSIONS};
use crate::tx::{Tx, decode};

fn key<D: Definition>(id: &D::Id, seq: u64) -> Key {
    keys::version(D::KIND, id.as_ref(), seq)
}

impl Tx<'_> {
    /// Whether no version of the store, of either kind, has this id.
    pub(crate) fn check_version_id(&self, id: &VersionId) -> Result<()> {
        if self.has(VERSION_IDS, &Key::new().text(id.as_str()))? {
            return Err(Error::already_exists(Entity::Version, "id", id.as_str()));
        }
        Ok(())
    }

    /// Appends a version that was checked, after the one with `last_seq`.
    pub(crate) fn append<D: Definition>(
        &self,
        version: &NewVersion<D>,
        last_seq: u64,
    ) -> Result<Arc<Version<D>>> {
        let seq = rules::next_seq(last_seq)?;
        let snapshot = rules::without_run_state(&version.snapshot).into_owned();
        let version = Version { seq, content: NewVersion { snapshot, ..version.clone() } };
        self.put_version(&version)?;
        self.set_last_seq::<D>(version.snapshot.id(), seq)?;
        Ok(Arc::new(version))
    }

    /// Writes a version that is new.
    pub(crate) fn put_version<D: Definition>(&self, version: &Version<D>) -> Result<()> {
        self.put_record(VERSIONS, &key::<D>(version.snapshot.id(), version.seq), version)?;
        self.reindex(&[], &index::of_version(version))
    }

    fn delete_version<D: Definition>(&self, version: &Version<D>) -> Result<()> {
        self.reindex(&index::of_version(version), &[])?;
        self.delete(VERSIONS, &key::<D>(version.snapshot.id(), version.seq)).map(drop)
    }

    /// Up to `limit` versions of a definition, newest first, those before `seq` only.
    pub(crate) fn newest_versions<D: Definition>(
        &self,
        id: &D::Id,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Version<D>>> {
        let mut span = Span::under(&catalog::key::<D>(id));
        if let Some(seq) = before {
            span = span.before(&key::<D>(id, seq));
        }
        self.take(VERSIONS, span, Order::Backwards, limit, |key, body| decode(VERSIONS, key, body).map(Some))
    }

    pub(crate) fn versions_page<D: Definition>(
        &self,
        id: &D::Id,
        page: &PageRequest,
    ) -> Result<Page<Arc<Version<D>>>> {
        let list = D::KIND.versions();
        let before = page.position(list)?;
        let found = self.newest_versions::<D>(id, before, page.limit() + 1)?;
        Page::cut(list, page, found.into_iter().map(|version| (version.seq, Arc::new(version))).collect())
    }

    /// The version with this id, if it is one of this kind.
    pub(crate) fn find_version<D: Definition>(&self, id: &VersionId) -> Result<Option<Version<D>>> {
        let Some(place) = self.body(VERSION_IDS, &Key::new().text(id.as_str()))? else { return Ok(None) };
        if keys::kind(&mut Fields::of(&place))? != D::KIND {
            return Ok(None);
        }
        self.expected(VERSIONS, &place).map(Some)
    }

    pub(crate) fn set_pinned<D: Definition>(&self, id: &VersionId, pinned: bool) -> Result<()> {
        let found = self.find_version::<D>(id)?;
        let mut version = found.ok_or_else(|| Error::not_found(Entity::Version, id.as_str()))?;
        version.content.pinned = pinned;
        self.put_record(VERSIONS, &key::<D>(version.snapshot.id(), version.seq), &version)
    }

    /// Removes all but the `keep` newest versions and the pinned ones.
    pub(crate) fn prune<D: Definition>(&self, id: &D::Id, keep: usize) -> Result<u64> {
        let span = || Span::under(&catalog::key::<D>(id));
        let versions = self.take(VERSIONS, span(), Order::Backwards, usize::MAX, |key, body| {
            let version: Version<D> = decode(VERSIONS, key, body)?;
            Ok(Some((version.seq, version.pinned)))
        })?;
        let removed = rules::prunable(versions, keep);
        for seq in &removed {
            let version: Version<D> = self.expected(VERSIONS, &key::<D>(id, *seq))?;
            self.delete_version(&version)?;
        }
        Ok(removed.len() as u64)
    }

    pub(crate) fn delete_versions<D: Definition>(&self, id: &D::Id) -> Result<()> {
        self.every(VERSIONS, Span::under(&catalog::key::<D>(id)), |key, body| {
            self.delete_version::<D>(&decode(VERSIONS, key, body)?)
        })
    }
}
