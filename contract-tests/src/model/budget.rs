//! Budgets in the model: the list of everything that was ever charged, summed up anew for each question.

use std::collections::BTreeMap;

use store_api::{Amount, Entity, Reservation, Usage};

use super::pool::{ACCOUNTS, AccountOf};
use super::world::{Answer, Nanos, Refusal, Time, World, nanos, time};

const MOST: u128 = 9_223_372_036_854_775_807;

/// An account: what was charged and when it counts as made, oldest first, what is held, which keys were charged.
#[derive(Debug, Clone)]
pub(super) struct AccountModel {
    length: Nanos,
    /// How long a bucket of a sliding window is.
    bucket: Option<Nanos>,
    adds: Vec<(Nanos, u64)>,
    holds: BTreeMap<String, (u64, Time)>,
    /// By key: how much, and until when the key is remembered.
    keys: BTreeMap<String, (u64, Nanos)>,
}

/// What counts at a moment: from the first nanosecond up to, and not at, the last.
type Span = (Nanos, Nanos);

impl AccountModel {
    fn new(of: &AccountOf) -> Self {
        AccountModel {
            length: of.length,
            bucket: of.buckets.map(|buckets| of.length / buckets),
            adds: Vec::new(),
            holds: BTreeMap::new(),
            keys: BTreeMap::new(),
        }
    }

    /// The begin of the window or bucket that the newest charge is in.
    fn newest(&self) -> Option<Nanos> {
        match self.bucket {
            Some(width) => self.adds.iter().map(|(at, _)| at - at.rem_euclid(width)).max(),
            None => self.adds.iter().map(|(at, _)| *at).fold(None, |begin, at| match begin {
                Some(begin) if at < begin + self.length => Some(begin),
                _ => Some(at),
            }),
        }
    }

    /// A clock that steps back counts as the begin of the newest window or bucket.
    fn at(&self, now: Nanos) -> Nanos {
        self.newest().map_or(now, |newest| newest.max(now))
    }

    fn span(&self, now: Nanos) -> Option<Span> {
        let now = self.at(now);
        match self.bucket {
            None => {
                let begin = self.newest()?;
                (now - begin < self.length).then_some((begin, begin + self.length))
            }
            Some(width) => {
                let end = now - now.rem_euclid(width) + width;
                let begin = end - self.length;
                let any = self.adds.iter().any(|(at, _)| *at >= begin);
                any.then_some((begin, end))
            }
        }
    }

    fn used(&self, now: Nanos) -> u128 {
        let Some((begin, _)) = self.span(now) else { return 0 };
        self.adds.iter().filter(|(at, _)| *at >= begin).map(|(_, amount)| u128::from(*amount)).sum()
    }

    fn held(&self, now: Time) -> u128 {
        self.standing(now).map(|(_, (amount, _))| u128::from(*amount)).sum()
    }

    fn standing(&self, now: Time) -> impl Iterator<Item = (&String, &(u64, Time))> {
        self.holds.iter().filter(move |(_, (_, expires))| *expires > now)
    }

    fn usage(&self, now: Time) -> Usage {
        let at = nanos(now).unwrap();
        let span = self.span(at);
        Usage {
            used: amount(self.used(at)),
            held: amount(self.held(now)),
            since: span.map(|(begin, _)| time(begin)),
            until: span.map(|(_, end)| time(end)),
        }
    }

    fn within(&self, more: u64, limit: u64, now: Time) -> Answer<()> {
        let total = self.used(nanos(now)?) + self.held(now);
        if total + u128::from(more) > u128::from(limit) {
            return Err(Refusal::LimitExceeded { used: amount(total).micros(), limit });
        }
        Ok(())
    }

    fn forget_lapsed(&mut self, now: Time) {
        self.holds.retain(|_, (_, expires)| *expires > now);
    }

    /// Charges; gives whether it was new and not a repetition.
    fn charge(&mut self, more: u64, key: Option<&str>, limit: Option<u64>, now: Time) -> Answer<bool> {
        let at = self.at(nanos(now)?);
        if let Some(key) = key
            && let Some((before, until)) = self.keys.get(key)
            && at < *until
        {
            return if *before == more {
                Ok(false)
            } else {
                Err(Refusal::Conflict(Entity::Charge, key.to_owned()))
            };
        }
        if let Some(limit) = limit {
            self.within(more, limit, now)?;
        }
        if self.used(at) + u128::from(more) > MOST {
            return Err(Refusal::InvalidInput);
        }
        self.adds.push((at, more));
        self.forget_lapsed(now);
        let begin = match self.bucket {
            Some(width) => at - at.rem_euclid(width),
            None => self.newest().unwrap(),
        };
        if let Some(key) = key {
            self.keys.insert(key.to_owned(), (more, begin + self.length));
        }
        Ok(true)
    }

    pub(super) fn edges(&self, edges: &mut Vec<Nanos>) {
        if let Some(newest) = self.newest() {
            edges.extend([newest, newest + self.length]);
        }
        if let Some(width) = self.bucket {
            let buckets = self.adds.iter().map(|(at, _)| at - at.rem_euclid(width));
            edges.extend(buckets.flat_map(|begin| [begin + width, begin + self.length]));
        }
        edges.extend(self.holds.values().map(|(_, expires)| nanos(*expires).unwrap()));
    }
}

fn amount(micros: u128) -> Amount {
    Amount::from_micros(u64::try_from(micros.min(MOST)).unwrap()).unwrap()
}

fn account<'a>(world: &'a World, of: &AccountOf) -> Option<&'a AccountModel> {
    world.accounts.get(&of.key)
}

fn copy(world: &World, of: &AccountOf) -> AccountModel {
    account(world, of).cloned().unwrap_or_else(|| AccountModel::new(of))
}

pub(super) fn usage(world: &World, of: &AccountOf, now: Time) -> Answer<Usage> {
    nanos(now)?;
    Ok(copy(world, of).usage(now))
}

/// `add` and, with a limit, `admit`.
pub(super) fn charge(
    world: &mut World,
    of: &AccountOf,
    more: u64,
    key: Option<&str>,
    limit: Option<u64>,
    now: Time,
) -> Answer<Usage> {
    let mut account = copy(world, of);
    let key = key.map(|key| format!("k:{key}"));
    if account.charge(more, key.as_deref(), limit, now)? {
        world.accounts.insert(of.key, account);
    }
    usage(world, of, now)
}

pub(super) fn reserve(
    world: &mut World,
    of: &AccountOf,
    hold: &Reservation,
    limit: u64,
    now: Time,
) -> Answer<Usage> {
    let (at, expires) = (nanos(now), nanos(hold.expires_at)?);
    if expires <= at? {
        return Err(Refusal::InvalidInput);
    }
    let mut account = copy(world, of);
    if account.standing(now).any(|(id, _)| id == hold.id.as_str()) {
        return Err(Refusal::AlreadyExists(Entity::Reservation, "id"));
    }
    account.within(hold.estimate.micros(), limit, now)?;
    account.forget_lapsed(now);
    account.holds.insert(hold.id.to_string(), (hold.estimate.micros(), hold.expires_at));
    world.accounts.insert(of.key, account);
    usage(world, of, now)
}

pub(super) fn settle(world: &mut World, of: &AccountOf, id: &str, actual: u64, now: Time) -> Answer<Usage> {
    let mut account = copy(world, of);
    if account.charge(actual, Some(&format!("r:{id}")), None, now)? {
        account.holds.remove(id);
        world.accounts.insert(of.key, account);
    }
    usage(world, of, now)
}

pub(super) fn release(world: &mut World, of: &AccountOf, id: &str, now: Time) -> Answer<Usage> {
    nanos(now)?;
    let mut account = copy(world, of);
    if !account.standing(now).any(|(standing, _)| standing == id) {
        return Err(Refusal::NotFound(Entity::Reservation, id.to_owned()));
    }
    account.forget_lapsed(now);
    account.holds.remove(id);
    world.accounts.insert(of.key, account);
    usage(world, of, now)
}

/// The holds that stand: id, amount and end.
pub(super) fn standing(world: &World, of: &AccountOf, now: Time) -> Answer<Vec<(String, Amount, Time)>> {
    nanos(now)?;
    let account = copy(world, of);
    let standing = account.standing(now);
    Ok(standing.map(|(id, (held, expires))| (id.clone(), amount((*held).into()), *expires)).collect())
}

pub(super) fn reset(world: &mut World, of: &AccountOf) -> Answer<()> {
    let gone = world.accounts.remove(&of.key);
    gone.map(drop).ok_or_else(|| Refusal::NotFound(Entity::Account, of.key.join("/")))
}

/// All accounts in order, with their keys and usage.
pub(super) fn accounts(world: &World, now: Time) -> Vec<([&'static str; 3], Usage)> {
    let all = ACCOUNTS.iter().filter_map(|of| Some((of.key, account(world, of)?.usage(now))));
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(key, _)| *key);
    all
}
