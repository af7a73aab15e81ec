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

/// The page of the entries that come first in `found`. Keys stay borrowed and items are shared, not copied; a cursor
/// is made only when there is a next page.
pub(crate) fn page<'a, K, T>(
    list: List,
    request: &PageRequest,
    mut found: impl Iterator<Item = (&'a K, &'a T)>,
) -> Result<Page<T>>
where
    K: serde::Serialize + 'a,
    T: Clone + 'a,
{
    let mut items = Vec::with_capacity(request.limit());
    let mut last = None;
    for (key, item) in found.by_ref().take(request.limit()) {
        items.push(item.clone());
        last = Some(key);
    }
    let next = match (last, found.next()) {
        (Some(last), Some(_)) => Some(Cursor::new(list, last)?),
        _ => None,
    };
    Ok(Page { items, next })
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
