//! Pages read from ordered maps: a page costs its own length, not the table's.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use chrono::{DateTime, Utc};
use store_api::*;

/// The entries after a position, in order.
pub(crate) fn after<K: Ord, V>(map: &BTreeMap<K, V>, position: Option<K>) -> impl Iterator<Item = (&K, &V)> {
    map.range((position.map_or(Unbounded, Excluded), Unbounded))
}

/// The entries before a position, last first.
pub(crate) fn before<K: Ord, V>(map: &BTreeMap<K, V>, position: Option<K>) -> impl Iterator<Item = (&K, &V)> {
    map.range((Unbounded, position.map_or(Unbounded, Excluded))).rev()
}

/// The page of the entries that come first in `found`. Keys stay borrowed and items are shared, not copied.
pub(crate) fn page<'a, K, T>(
    list: List,
    request: &PageRequest,
    found: impl Iterator<Item = (&'a K, &'a T)>,
) -> Result<Page<T>>
where
    K: serde::Serialize + 'a,
    T: Clone + 'a,
{
    let one_more = request.limit() + 1;
    Page::cut(list, request, found.take(one_more).map(|(key, item)| (key, item.clone())).collect())
}

/// Checks the times of a call, each with the name of its argument.
pub(crate) fn check_times<const N: usize>(times: [(&'static str, Option<DateTime<Utc>>); N]) -> Result<()> {
    for (field, time) in times {
        if let Some(time) = time {
            time::nanos(field, time)?;
        }
    }
    Ok(())
}
