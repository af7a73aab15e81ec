//! Tables that can take back what was done to them.
//!
//! Each table keeps the inverse of every change since the last commit: the key, and what stood there before. Tables
//! share nothing, so a transaction is undone by undoing each table by itself, in any order.
//!
//! Users choose ids, so the hashes are seeded anew for each table: nobody can prepare keys that collide.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::ops::Deref;

use foldhash::HashMap;

/// How many inverses a log keeps room for between transactions. A large import must not hold its memory for ever.
const KEPT_LOG: usize = 256;

/// A table of values in the order of their keys.
pub(crate) type Ordered<K, V> = Table<BTreeMap<K, V>>;
/// A table of values found by their keys, in no order.
pub(crate) type Hashed<K, V> = Table<HashMap<K, V>>;
/// A table of groups, found by key, each with its values in the order of their own keys.
pub(crate) type Grouped<G, K, V> = Table<Groups<G, K, V>>;

/// What belongs to a transaction: all changes since the last commit are made final, or taken back.
pub(crate) trait Undo {
    /// Makes the changes final.
    fn commit(&mut self);
    /// Takes the changes back. Does nothing right after a commit.
    fn rollback(&mut self);
}

/// A map as a table needs it: to write by key, and to walk it when it is verified.
pub(crate) trait Map: Default {
    type Key: Clone;
    type Value;

    /// Puts a value in; gives the one that stood there.
    fn put(&mut self, key: Self::Key, value: Self::Value) -> Option<Self::Value>;
    /// Takes a value out.
    fn take(&mut self, key: &Self::Key) -> Option<Self::Value>;
    /// The value under a key.
    fn look(&self, key: &Self::Key) -> Option<&Self::Value>;
    /// Everything in it.
    fn entries(&self) -> impl Iterator<Item = (Self::Key, &Self::Value)>;
}

/// A map whose changes can be taken back. Reads go straight to the map.
#[derive(Debug)]
pub(crate) struct Table<M: Map> {
    map: M,
    /// What stood under each key before a change, oldest change first.
    undo: Vec<(M::Key, Option<M::Value>)>,
}

impl<M: Map> Default for Table<M> {
    fn default() -> Self {
        Table { map: M::default(), undo: Vec::new() }
    }
}

impl<M: Map> Deref for Table<M> {
    type Target = M;
    fn deref(&self) -> &M {
        &self.map
    }
}

impl<M: Map> Table<M> {
    /// Puts a value in the place of whatever stands under the key.
    pub(crate) fn set(&mut self, key: M::Key, value: M::Value) {
        let before = self.map.put(key.clone(), value);
        self.undo.push((key, before));
    }

    /// Removes what stands under the key, if anything does; says whether it did.
    pub(crate) fn unset(&mut self, key: &M::Key) -> bool {
        let before = self.map.take(key);
        let found = before.is_some();
        if found {
            self.undo.push((key.clone(), before));
        }
        found
    }
}

impl<M: Map> Undo for Table<M> {
    fn commit(&mut self) {
        // Most transactions touch few of the tables.
        if !self.undo.is_empty() {
            self.undo.clear();
            self.undo.shrink_to(KEPT_LOG);
        }
    }

    fn rollback(&mut self) {
        while let Some((key, before)) = self.undo.pop() {
            match before {
                Some(value) => drop(self.map.put(key, value)),
                None => drop(self.map.take(&key)),
            }
        }
        self.undo.shrink_to(KEPT_LOG);
    }
}

impl<K: Clone + Ord, V> Map for BTreeMap<K, V> {
    type Key = K;
    type Value = V;

    fn put(&mut self, key: K, value: V) -> Option<V> {
        self.insert(key, value)
    }
    fn take(&mut self, key: &K) -> Option<V> {
        self.remove(key)
    }
    fn look(&self, key: &K) -> Option<&V> {
        self.get(key)
    }
    fn entries(&self) -> impl Iterator<Item = (K, &V)> {
        self.iter().map(|(key, value)| (key.clone(), value))
    }
}

impl<K: Clone + Eq + Hash, V> Map for HashMap<K, V> {
    type Key = K;
    type Value = V;

    fn put(&mut self, key: K, value: V) -> Option<V> {
        self.insert(key, value)
    }
    fn take(&mut self, key: &K) -> Option<V> {
        self.remove(key)
    }
    fn look(&self, key: &K) -> Option<&V> {
        self.get(key)
    }
    fn entries(&self) -> impl Iterator<Item = (K, &V)> {
        self.iter().map(|(key, value)| (key.clone(), value))
    }
}

/// Groups of ordered values. A group is there as long as it has a value.
#[derive(Debug, PartialEq)]
pub(crate) struct Groups<G: Eq + Hash, K, V> {
    groups: HashMap<G, BTreeMap<K, V>>,
    /// What a group that is not there looks like.
    empty: BTreeMap<K, V>,
}

impl<G: Eq + Hash, K, V> Default for Groups<G, K, V> {
    fn default() -> Self {
        Groups { groups: HashMap::default(), empty: BTreeMap::new() }
    }
}

impl<G: Eq + Hash, K, V> Groups<G, K, V> {
    /// The values of one group; none when there is no such group.
    pub(crate) fn group<Q>(&self, group: &Q) -> &BTreeMap<K, V>
    where
        G: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.groups.get(group).unwrap_or(&self.empty)
    }

    /// All groups, in no order.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&G, &BTreeMap<K, V>)> {
        self.groups.iter()
    }
}

impl<G: Clone + Eq + Hash, K: Clone + Ord, V> Map for Groups<G, K, V> {
    type Key = (G, K);
    type Value = V;

    fn put(&mut self, (group, key): (G, K), value: V) -> Option<V> {
        self.groups.entry(group).or_default().insert(key, value)
    }

    fn take(&mut self, (group, key): &(G, K)) -> Option<V> {
        let values = self.groups.get_mut(group)?;
        let taken = values.remove(key);
        if values.is_empty() {
            self.groups.remove(group);
        }
        taken
    }

    fn look(&self, (group, key): &(G, K)) -> Option<&V> {
        self.group(group).get(key)
    }

    fn entries(&self) -> impl Iterator<Item = ((G, K), &V)> {
        self.groups.iter().flat_map(|(group, values)| {
            values.iter().map(move |(key, value)| ((group.clone(), key.clone()), value))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::*;

    /// Changes by key: a value to set, or none to remove what is there.
    type Changes<K> = Vec<(K, Option<u8>)>;

    fn change<M: Map<Value = u8>>(table: &mut Table<M>, changes: Changes<M::Key>) {
        for (key, value) in changes {
            match value {
                Some(value) => table.set(key, value),
                None => drop(table.unset(&key)),
            }
        }
    }

    /// Changes after a commit leave no trace when they are rolled back, and all of it when they are committed.
    fn check<M>(first: Changes<M::Key>, second: Changes<M::Key>) -> Result<(), TestCaseError>
    where
        M: Map<Value = u8> + PartialEq + Debug,
        M::Key: PartialEq,
    {
        let mut expected = M::default();
        for (key, value) in first.clone() {
            match value {
                Some(value) => drop(expected.put(key, value)),
                None => drop(expected.take(&key)),
            }
        }
        let mut table = Table::<M>::default();
        change(&mut table, first);
        table.commit();
        change(&mut table, second);
        table.rollback();
        prop_assert_eq!(&*table, &expected);
        table.rollback();
        prop_assert_eq!(&*table, &expected, "a second rollback does nothing");
        Ok(())
    }

    fn changes<K: Debug>(key: impl Strategy<Value = K>) -> impl Strategy<Value = Changes<K>> {
        proptest::collection::vec((key, any::<Option<u8>>()), 0..40)
    }

    proptest! {
        #[test]
        fn ordered_tables_take_back(first in changes(0u8..6), second in changes(0u8..6)) {
            check::<BTreeMap<u8, u8>>(first, second)?;
        }

        #[test]
        fn hashed_tables_take_back(first in changes(0u8..6), second in changes(0u8..6)) {
            check::<HashMap<u8, u8>>(first, second)?;
        }

        #[test]
        fn groups_take_back_and_leave_no_empty_group(
            first in changes((0u8..3, 0u8..3)),
            second in changes((0u8..3, 0u8..3)),
        ) {
            check::<Groups<u8, u8, u8>>(first, second)?;
        }
    }

    #[test]
    fn a_large_transaction_does_not_keep_its_log() {
        let mut table = Hashed::<u32, u32>::default();
        (0..100_000).for_each(|n| table.set(n, n));
        table.commit();
        assert!(table.undo.capacity() <= 2 * KEPT_LOG);
    }
}
