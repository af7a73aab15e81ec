//! Versions of definitions: numbered, immutable but for their pin.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
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

fn read<D: Definition>(key: &[u8], body: &[u8]) -> Result<Arc<Version<D>>> {
    decode(VERSIONS, key, body).map(Arc::new)
}

/// What of a version its removal needs: the rest of the document is passed over.
#[derive(Deserialize)]
struct Head {
    seq: u64,
    id: VersionId,
    #[serde(default)]
    pinned: bool,
}

impl Head {
    fn read(key: &[u8], body: &[u8]) -> Result<Self> {
        decode(VERSIONS, key, body)
    }
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
        let place = key::<D>(version.snapshot.id(), version.seq);
        self.put_record(VERSIONS, &place, version)?;
        self.reindex(&[], &index::of_version(&version.id, &place))
    }

    fn delete_version<D: Definition>(&self, definition: &D::Id, version: &Head) -> Result<()> {
        let place = key::<D>(definition, version.seq);
        self.reindex(&index::of_version(&version.id, &place), &[])?;
        self.delete(VERSIONS, &place).map(drop)
    }

    pub(crate) fn latest_version<D: Definition>(&self, id: &D::Id) -> Result<Option<Arc<Version<D>>>> {
        let span = Span::under(&catalog::key::<D>(id));
        Ok(self.take(VERSIONS, span, Order::Backwards, 1, read)?.pop())
    }

    pub(crate) fn versions_page<D: Definition>(
        &self,
        id: &D::Id,
        page: &PageRequest,
    ) -> Result<Page<Arc<Version<D>>>> {
        let list = D::KIND.versions();
        let mut span = Span::under(&catalog::key::<D>(id));
        if let Some(seq) = page.position(list)? {
            span = span.before(&key::<D>(id, seq));
        }
        let (found, more) = self.page(VERSIONS, span, Order::Backwards, page.limit(), read)?;
        Page::of(list, found, more, |version: &Arc<Version<D>>| version.seq)
    }

    /// The version with this id, if it is one of this kind.
    pub(crate) fn find_version<D: Definition>(&self, id: &VersionId) -> Result<Option<Version<D>>> {
        let place = self.read(VERSION_IDS, &Key::new().text(id.as_str()), |body| Ok(body.to_vec()))?;
        let Some(place) = place else { return Ok(None) };
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
        let span = Span::under(&catalog::key::<D>(id));
        let heads = self.take(VERSIONS, span, Order::Backwards, usize::MAX, Head::read)?;
        let removed: BTreeSet<u64> =
            rules::prunable(heads.iter().map(|head| (head.seq, head.pinned)), keep).into_iter().collect();
        for head in heads.iter().filter(|head| removed.contains(&head.seq)) {
            self.delete_version::<D>(id, head)?;
        }
        Ok(removed.len() as u64)
    }

    pub(crate) fn delete_versions<D: Definition>(&self, id: &D::Id) -> Result<()> {
        let span = Span::under(&catalog::key::<D>(id));
        self.every(VERSIONS, span, Head::read, |head| self.delete_version::<D>(id, &head))
    }
}
