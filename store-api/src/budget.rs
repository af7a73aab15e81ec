//! Budgets: what each caller spends, over rolling windows.
//!
//! The whole state of an account is one [`Ledger`], and every rule about it is a method of the ledger. An engine
//! loads it, asks it, and stores it, in one transaction: [`Ledgers`] does that for engines that keep rows.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};

use crate::window::{Window, WindowKind};
use crate::{
    Amount, Entity, Error, IdempotencyKey, MeterName, Page, PageRequest, PrincipalId, ReservationId, Result,
    time,
};

mod ledgers;

pub use ledgers::Ledgers;

/// The most reservations that one account may hold at once: a ledger is read and written whole.
pub const MAX_HOLDS: usize = 1_000;

/// What is counted, and over which window. The window is part of the key: another window is another account,
/// so changing it never reinterprets what was spent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Meter {
    /// What is counted.
    pub name: MeterName,
    /// Over which time.
    #[serde(default)]
    pub window: Window,
}

/// Who pays, and on which meter. Ordered by caller, then meter name, then the window's text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Account {
    /// Who pays.
    pub caller: PrincipalId,
    /// On which meter.
    pub meter: Meter,
}

impl Account {
    /// The account of `caller` on the meter `name` over `window`.
    pub fn new(caller: PrincipalId, name: MeterName, window: Window) -> Self {
        Account { caller, meter: Meter { name, window } }
    }

    /// For engines: the three parts of the key, as text and in order.
    pub fn key(&self) -> AccountKey {
        (self.caller.to_string(), self.meter.name.to_string(), self.meter.window.to_string())
    }

    /// The inverse of [`Account::key`].
    ///
    /// # Errors
    /// `InvalidInput` for a part that is none.
    pub fn from_key((caller, meter, window): &AccountKey) -> Result<Self> {
        Ok(Account::new(PrincipalId::new(caller)?, MeterName::new(meter)?, window.parse()?))
    }
}

/// Caller, meter name and window of an [`Account`], as text: the order of accounts.
pub type AccountKey = (String, String, String);

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.caller, self.meter.name, self.meter.window)
    }
}

/// What to charge, to whom, and the key that makes it happen once.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Charge {
    /// Who pays, on which meter.
    pub account: Account,
    /// How much.
    pub amount: Amount,
    /// With a key, the same charge sent again changes nothing and gives the usage as it is. A key lives as long
    /// as the window that it was charged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<IdempotencyKey>,
}

impl Charge {
    /// A charge without a key.
    pub fn new(account: Account, amount: Amount) -> Self {
        Charge { account, amount, key: None }
    }

    /// The same charge with a key.
    #[must_use]
    pub fn with_key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }
}

/// How much of an account is used at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Charged in the window.
    pub used: Amount,
    /// Held by reservations that have not lapsed.
    pub held: Amount,
    /// When the window began: of a rollover window, its first add; of a sliding one, the begin of the oldest
    /// bucket that could count. `None` when nothing is charged in it.
    pub since: Option<DateTime<Utc>>,
    /// When the window ends: of a rollover window, `since + length`; of a sliding one, the end of the newest
    /// bucket that could count. `None` when nothing is charged in it.
    pub until: Option<DateTime<Utc>>,
}

impl Usage {
    /// Used and held together: what limits are compared with.
    pub fn total(&self) -> Amount {
        self.used.saturating_add(self.held)
    }
}

/// An amount held back until it is settled or released, or lapses.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reservation {
    /// Chosen by the host; unique in its account.
    pub id: ReservationId,
    /// Whose, on which meter.
    pub account: Account,
    /// How much is held.
    pub estimate: Amount,
    /// When it lapses by itself: it counts before this time, not at it.
    pub expires_at: DateTime<Utc>,
}

/// One account with its usage, as listed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AccountUsage {
    /// The account.
    pub account: Account,
    /// Its usage at the moment that was asked about.
    pub usage: Usage,
}

/// Budgets: exact sums over rolling windows, checked limits, holds for work under way.
///
/// Object-safe; a store and a transaction on it both give one.
pub trait BudgetStore {
    /// What is used and held at `now`. An account that was never charged is all zero. Writes nothing.
    ///
    /// # Guarantees
    /// WIN-2, WIN-3, WIN-5, WIN-7.
    /// # Errors
    /// `InvalidInput` for a time outside the range.
    fn usage(&self, account: &Account, now: DateTime<Utc>) -> Result<Usage>;

    /// Charges without a limit, and gives the usage after it.
    ///
    /// # Guarantees
    /// WIN-1, WIN-2, WIN-4, WIN-5, WIN-6 (a key is charged once), WIN-7.
    /// # Errors
    /// `InvalidInput` when the sum would pass [`Amount::MAX`]; `Conflict` when the key was used for another amount.
    fn add(&self, charge: &Charge, now: DateTime<Utc>) -> Result<Usage>;

    /// Charges if used, held and the amount together stay within `limit`: check and add in one step.
    /// A key that was charged before gives the usage as it is, whatever the limit.
    ///
    /// # Guarantees
    /// WIN-1, WIN-2, WIN-4, WIN-5, WIN-6, WIN-7.
    /// # Errors
    /// `LimitExceeded`, and as [`add`](BudgetStore::add).
    fn admit(&self, charge: &Charge, limit: Amount, now: DateTime<Utc>) -> Result<Usage>;

    /// Holds an estimate if used, held and the estimate together stay within `limit`, until it is settled or
    /// released or lapses. Gives the usage after it.
    ///
    /// # Guarantees
    /// WIN-6.
    /// # Errors
    /// `LimitExceeded`; `AlreadyExists` when the account holds a reservation with this id; `InvalidInput` when it
    /// expires at or before `now`, or the account holds [`MAX_HOLDS`] already.
    fn reserve(&self, reservation: &Reservation, limit: Amount, now: DateTime<Utc>) -> Result<Usage>;

    /// Ends a hold and charges what was really spent, also when that is more than the estimate, and also when the
    /// hold lapsed or was released meanwhile: what was spent was spent. Settling again with the same amount, while
    /// the window lasts, changes nothing.
    ///
    /// # Guarantees
    /// WIN-1, WIN-4, WIN-6 (a settled reservation is charged once).
    /// # Errors
    /// As [`add`](BudgetStore::add); `Conflict` when it was settled with another amount.
    fn settle(
        &self,
        account: &Account,
        id: &ReservationId,
        actual: Amount,
        now: DateTime<Utc>,
    ) -> Result<Usage>;

    /// Ends a hold and charges nothing.
    ///
    /// # Guarantees
    /// WIN-6.
    /// # Errors
    /// `NotFound` when the account holds no such reservation at `now`.
    fn release(&self, account: &Account, id: &ReservationId, now: DateTime<Utc>) -> Result<Usage>;

    /// The reservations of an account that hold at `now`. At most [`MAX_HOLDS`].
    ///
    /// # Order
    /// By id.
    /// # Guarantees
    /// WIN-6.
    /// # Errors
    /// `InvalidInput` for a time outside the range.
    fn reservations(&self, account: &Account, now: DateTime<Utc>) -> Result<Vec<Reservation>>;

    /// All accounts that were ever charged or held and not reset, with their usage at `now`.
    ///
    /// # Order
    /// By caller, then meter name, then the window's text, each by bytes.
    /// # Guarantees
    /// PAGE-1, WIN-3.
    /// # Errors
    /// `InvalidInput` for a cursor of another list.
    fn accounts(&self, now: DateTime<Utc>, page: &PageRequest) -> Result<Page<AccountUsage>>;

    /// Forgets an account: usage, holds and keys.
    ///
    /// # Guarantees
    /// WIN-5 (the remedy for an add made far in the future).
    /// # Errors
    /// `NotFound` when there is no such account.
    fn reset(&self, account: &Account) -> Result<()>;
}

/// The whole state of an account. What an engine stores, as one document.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Ledger {
    /// What was charged, by the begin of its bucket in nanoseconds, oldest first. A rollover window has one
    /// bucket, its current or last window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<(i64, Amount)>,
    /// What is held.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holds: BTreeMap<ReservationId, Hold>,
}

/// One reservation inside a [`Ledger`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hold {
    /// How much.
    pub amount: Amount,
    /// Until when.
    pub expires_at: DateTime<Utc>,
}

/// What makes a charge happen once: the host's key, or the reservation that was settled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChargeKey {
    /// A host's idempotency key.
    Key(IdempotencyKey),
    /// A settled reservation.
    Reservation(ReservationId),
}

impl ChargeKey {
    /// For engines: the key as text, the two kinds apart.
    pub fn as_text(&self) -> String {
        match self {
            ChargeKey::Key(key) => format!("k:{key}"),
            ChargeKey::Reservation(id) => format!("r:{id}"),
        }
    }

    /// The inverse of [`ChargeKey::as_text`].
    ///
    /// # Errors
    /// `InvalidInput` for any other text.
    pub fn from_text(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some(("k", key)) => Ok(ChargeKey::Key(IdempotencyKey::new(key)?)),
            Some(("r", id)) => Ok(ChargeKey::Reservation(ReservationId::new(id)?)),
            _ => Err(Error::invalid("charge key", format!("{text:?} is neither k:KEY nor r:RESERVATION"))),
        }
    }
}

/// A charge that was made under a key. What an engine stores beside the ledger, by account and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Charged {
    /// How much.
    pub amount: Amount,
    /// When the key's window ends and the key is forgotten, in nanoseconds.
    pub expires_at: i64,
}

/// What a charge came to, and what the engine has to store for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Charging {
    /// The key was charged before: store nothing.
    Replayed(Usage),
    /// Store the ledger; if there is a `forget`, forget the account's keys with `expires_at <= forget`; then store
    /// `charged` if the charge had a key.
    Made {
        /// The usage after the charge.
        usage: Usage,
        /// What to store under the charge's key.
        charged: Charged,
        /// Up to when keys are forgotten, in nanoseconds; nothing when none can have ended. A key ends when its bucket
        /// leaves the ledger, so there is nothing to look for as long as none does.
        forget: Option<i64>,
    },
}

impl Ledger {
    /// The begin of the newest bucket: no charge ever counts as made before it (law WIN-5).
    fn anchored(&self, now: i64) -> i64 {
        self.buckets.last().map_or(now, |(begin, _)| now.max(*begin))
    }

    /// What counts at `now`: the first nanosecond of the window and the one after its last, if anything can count.
    fn span(&self, window: &Window, now: i64) -> Option<(i64, i64)> {
        let now = self.anchored(now);
        match window.kind() {
            WindowKind::Rollover => {
                let begin = self.buckets.last()?.0;
                let end = begin.saturating_add(window.length_nanos());
                (now < end).then_some((begin, end))
            }
            WindowKind::Sliding { buckets } => {
                let width = window.length_nanos() / i64::from(buckets);
                let newest = now.div_euclid(width).saturating_mul(width);
                // The oldest bucket that begins after now - length.
                let oldest = newest.saturating_sub(window.length_nanos() - width);
                let any = self.buckets.iter().any(|(begin, _)| *begin >= oldest);
                any.then_some((oldest, newest.saturating_add(width)))
            }
        }
    }

    fn used_in(&self, span: Option<(i64, i64)>) -> Amount {
        let Some((begin, _)) = span else { return Amount::ZERO };
        self.buckets
            .iter()
            .filter(|(at, _)| *at >= begin)
            .fold(Amount::ZERO, |sum, (_, amount)| sum.saturating_add(*amount))
    }

    /// What is used and held at `now`.
    ///
    /// # Errors
    /// `InvalidInput` for a time outside the range.
    pub fn usage(&self, window: &Window, now: DateTime<Utc>) -> Result<Usage> {
        let span = self.span(window, time::nanos("now", now)?);
        let held = self.holds.values().filter(|hold| now < hold.expires_at);
        Ok(Usage {
            used: self.used_in(span),
            held: held.fold(Amount::ZERO, |sum, hold| sum.saturating_add(hold.amount)),
            since: span.map(|(begin, _)| time::from_nanos(begin)),
            until: span.map(|(_, end)| time::from_nanos(end)),
        })
    }

    /// Charges `amount`, within `limit` if there is one, unless `prior` says that its key was charged already.
    ///
    /// The ledger is changed only when the answer is [`Charging::Made`]; lapsed holds are dropped from it then.
    ///
    /// # Errors
    /// `LimitExceeded`; `Conflict` when the key was charged with another amount; `InvalidInput` when the sum would
    /// pass [`Amount::MAX`] or a time is outside the range.
    pub fn charge(
        &mut self,
        window: &Window,
        amount: Amount,
        key: Option<(&ChargeKey, Option<Charged>)>,
        limit: Option<Amount>,
        now: DateTime<Utc>,
    ) -> Result<Charging> {
        let at = self.anchored(time::nanos("now", now)?);
        let before = self.usage(window, now)?;
        if let Some((key, Some(prior))) = key
            && at < prior.expires_at
        {
            if prior.amount != amount {
                let reason = format!("was charged with {}, now with {amount}", prior.amount);
                return Err(Error::conflict(Entity::Charge, key.as_text(), reason));
            }
            return Ok(Charging::Replayed(before));
        }
        within(before, amount, limit)?;
        let too_much =
            || Error::invalid("amount", format!("{} + {amount} is more than {}", before.used, Amount::MAX));
        before.used.checked_add(amount).ok_or_else(too_much)?;

        let begin = match window.kind() {
            WindowKind::Rollover => self.span(window, at).map_or(at, |(begin, _)| begin),
            WindowKind::Sliding { buckets } => {
                let width = window.length_nanos() / i64::from(buckets);
                at.div_euclid(width)
                    .checked_mul(width)
                    .ok_or_else(|| Error::invalid("now", "is too early to count"))?
            }
        };
        let oldest = match window.kind() {
            WindowKind::Rollover => begin,
            WindowKind::Sliding { .. } => self.span(window, at).map_or(begin, |(begin, _)| begin),
        };
        let buckets_before = self.buckets.len();
        self.buckets.retain(|(at, _)| *at >= oldest);
        // A key that is stored and was not refused above has ended too, whatever became of its bucket.
        let ended = self.buckets.len() < buckets_before || key.is_some_and(|(_, prior)| prior.is_some());
        match self.buckets.last_mut() {
            Some((last, sum)) if *last == begin => *sum = sum.checked_add(amount).ok_or_else(too_much)?,
            _ => self.buckets.push((begin, amount)),
        }
        self.drop_lapsed(now);
        Ok(Charging::Made {
            usage: self.usage(window, now)?,
            charged: Charged { amount, expires_at: begin.saturating_add(window.length_nanos()) },
            forget: ended.then_some(at),
        })
    }

    /// Holds a reservation's estimate within `limit`.
    ///
    /// # Errors
    /// As [`BudgetStore::reserve`].
    pub fn reserve(&mut self, reservation: &Reservation, limit: Amount, now: DateTime<Utc>) -> Result<Usage> {
        time::nanos("expires_at", reservation.expires_at)?;
        if reservation.expires_at <= now {
            return Err(Error::invalid(
                "expires_at",
                format!("{} is not after {now}", reservation.expires_at),
            ));
        }
        let window = &reservation.account.meter.window;
        let usage = self.usage(window, now)?;
        if self.holds.get(&reservation.id).is_some_and(|hold| now < hold.expires_at) {
            return Err(Error::already_exists(Entity::Reservation, "id", reservation.id.as_str()));
        }
        within(usage, reservation.estimate, Some(limit))?;
        if self.holds.values().filter(|hold| now < hold.expires_at).count() >= MAX_HOLDS {
            return Err(Error::invalid("reservation", format!("the account holds {MAX_HOLDS} already")));
        }
        self.drop_lapsed(now);
        let hold = Hold { amount: reservation.estimate, expires_at: reservation.expires_at };
        self.holds.insert(reservation.id.clone(), hold);
        self.usage(window, now)
    }

    /// Ends a hold without a charge.
    ///
    /// # Errors
    /// `NotFound` when no such reservation holds at `now`.
    pub fn release(&mut self, window: &Window, id: &ReservationId, now: DateTime<Utc>) -> Result<Usage> {
        time::nanos("now", now)?;
        if self.holds.get(id).is_none_or(|hold| now >= hold.expires_at) {
            return Err(Error::not_found(Entity::Reservation, id.as_str()));
        }
        self.drop_lapsed(now);
        self.holds.remove(id);
        self.usage(window, now)
    }

    /// Ends a hold, if it still stands, and charges what was spent, once. The ledger is changed only when the
    /// answer is [`Charging::Made`].
    ///
    /// # Errors
    /// As [`Ledger::charge`] without a limit.
    pub fn settle(
        &mut self,
        window: &Window,
        id: &ReservationId,
        prior: Option<Charged>,
        actual: Amount,
        now: DateTime<Utc>,
    ) -> Result<Charging> {
        let key = ChargeKey::Reservation(id.clone());
        let made = self.charge(window, actual, Some((&key, prior)), None, now)?;
        let Charging::Made { charged, forget, .. } = made else { return Ok(made) };
        self.holds.remove(id);
        Ok(Charging::Made { usage: self.usage(window, now)?, charged, forget })
    }

    /// The reservations that hold at `now`, by id.
    ///
    /// # Errors
    /// `InvalidInput` for a time outside the range.
    pub fn reservations(&self, account: &Account, now: DateTime<Utc>) -> Result<Vec<Reservation>> {
        time::nanos("now", now)?;
        let standing = self.holds.iter().filter(|(_, hold)| now < hold.expires_at);
        Ok(standing
            .map(|(id, hold)| Reservation {
                id: id.clone(),
                account: account.clone(),
                estimate: hold.amount,
                expires_at: hold.expires_at,
            })
            .collect())
    }

    fn drop_lapsed(&mut self, now: DateTime<Utc>) {
        self.holds.retain(|_, hold| now < hold.expires_at);
    }

    /// Checks a ledger that comes from outside, as in an import.
    ///
    /// # Errors
    /// `InvalidInput` for buckets out of order or with a sum above [`Amount::MAX`], or too many holds.
    pub fn validate(&self, window: &Window) -> Result<()> {
        let most = match window.kind() {
            WindowKind::Rollover => 1,
            WindowKind::Sliding { buckets } => usize::try_from(buckets).unwrap_or(usize::MAX),
        };
        let ordered = self.buckets.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if !ordered || self.buckets.len() > most {
            return Err(Error::invalid("ledger.buckets", format!("are not at most {most}, oldest first")));
        }
        let sum = self.buckets.iter().try_fold(Amount::ZERO, |sum, (_, amount)| sum.checked_add(*amount));
        sum.ok_or_else(|| Error::invalid("ledger.buckets", format!("sum to more than {}", Amount::MAX)))?;
        if self.holds.len() > MAX_HOLDS {
            return Err(Error::invalid("ledger.holds", format!("are more than {MAX_HOLDS}")));
        }
        self.holds.values().try_for_each(|hold| time::nanos("ledger.holds", hold.expires_at).map(drop))
    }
}

/// Whether `amount` more stays within the limit (law WIN-6).
fn within(usage: Usage, amount: Amount, limit: Option<Amount>) -> Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    let sum = usage.used.checked_add(usage.held).and_then(|total| total.checked_add(amount));
    if sum.is_none_or(|sum| sum > limit) {
        return Err(Error::LimitExceeded { used: usage.total(), limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
