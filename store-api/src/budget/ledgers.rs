//! For engines: what a charge or a hold reads and writes, and in which order.

use chrono::{DateTime, Utc};

use super::{Account, AccountKey, Charge, ChargeKey, Charged, Charging, Ledger, Reservation, Usage};
use crate::{Amount, ReservationId, Result};

/// Where a transaction of an engine keeps ledgers and charges. The engine writes the first five methods; the others
/// are [`BudgetStore`](super::BudgetStore)'s, written once over them.
pub trait Ledgers {
    /// The ledger of an account that was ever charged or held.
    ///
    /// # Errors
    /// `Corrupt`, `Backend`, as all of these.
    fn ledger(&self, account: &AccountKey) -> Result<Option<Ledger>>;

    /// Stores the ledger of an account, which may be new.
    ///
    /// # Errors
    /// As [`ledger`](Ledgers::ledger).
    fn put_ledger(&self, account: &AccountKey, ledger: &Ledger) -> Result<()>;

    /// What was charged under a key that is not forgotten.
    ///
    /// # Errors
    /// As [`ledger`](Ledgers::ledger).
    fn charged(&self, account: &AccountKey, key: &ChargeKey) -> Result<Option<Charged>>;

    /// Stores a charge under a key that has none, of an account that has a ledger.
    ///
    /// # Errors
    /// As [`ledger`](Ledgers::ledger).
    fn put_charge(&self, account: &AccountKey, key: &ChargeKey, charged: &Charged) -> Result<()>;

    /// Forgets the charges of an account that end at or before `until`, in nanoseconds.
    ///
    /// # Errors
    /// As [`ledger`](Ledgers::ledger).
    fn forget_charges(&self, account: &AccountKey, until: i64) -> Result<()>;

    /// The ledger of an account, an empty one when there is no such account.
    ///
    /// # Errors
    /// As [`ledger`](Ledgers::ledger).
    fn current(&self, account: &Account) -> Result<Ledger> {
        Ok(self.ledger(&account.key())?.unwrap_or_default())
    }

    /// Charges within `limit`, if there is one.
    ///
    /// # Errors
    /// As [`Ledger::charge`].
    fn charge(&self, charge: &Charge, limit: Option<Amount>, now: DateTime<Utc>) -> Result<Usage> {
        let Charge { account, amount, key } = charge;
        charge_once(self, account, key.clone().map(ChargeKey::Key), |ledger, key| {
            ledger.charge(&account.meter.window, *amount, key, limit, now)
        })
    }

    /// Holds an estimate within `limit`.
    ///
    /// # Errors
    /// As [`Ledger::reserve`].
    fn hold(&self, reservation: &Reservation, limit: Amount, now: DateTime<Utc>) -> Result<Usage> {
        change(self, &reservation.account, |ledger| ledger.reserve(reservation, limit, now))
    }

    /// Ends a hold and charges what was spent.
    ///
    /// # Errors
    /// As [`Ledger::settle`].
    fn end_hold(
        &self,
        account: &Account,
        id: &ReservationId,
        spent: Amount,
        now: DateTime<Utc>,
    ) -> Result<Usage> {
        charge_once(self, account, Some(ChargeKey::Reservation(id.clone())), |ledger, key| {
            let prior = key.and_then(|(_, prior)| prior);
            ledger.settle(&account.meter.window, id, prior, spent, now)
        })
    }

    /// Ends a hold and charges nothing.
    ///
    /// # Errors
    /// As [`Ledger::release`].
    fn drop_hold(&self, account: &Account, id: &ReservationId, now: DateTime<Utc>) -> Result<Usage> {
        change(self, account, |ledger| ledger.release(&account.meter.window, id, now))
    }
}

/// Changes the ledger of an account.
fn change(
    ledgers: &(impl Ledgers + ?Sized),
    account: &Account,
    change: impl FnOnce(&mut Ledger) -> Result<Usage>,
) -> Result<Usage> {
    let account = account.key();
    let mut ledger = ledgers.ledger(&account)?.unwrap_or_default();
    let usage = change(&mut ledger)?;
    ledgers.put_ledger(&account, &ledger)?;
    Ok(usage)
}

/// Asks the ledger of an account to charge, telling it what its key was charged with before, and stores its answer.
fn charge_once(
    ledgers: &(impl Ledgers + ?Sized),
    account: &Account,
    key: Option<ChargeKey>,
    ask: impl FnOnce(&mut Ledger, Option<(&ChargeKey, Option<Charged>)>) -> Result<Charging>,
) -> Result<Usage> {
    let account = account.key();
    let mut ledger = ledgers.ledger(&account)?.unwrap_or_default();
    let prior = key.as_ref().map(|key| Ok((key, ledgers.charged(&account, key)?))).transpose()?;
    let (usage, charged, forget) = match ask(&mut ledger, prior)? {
        Charging::Replayed(usage) => return Ok(usage),
        Charging::Made { usage, charged, forget } => (usage, charged, forget),
    };
    ledgers.put_ledger(&account, &ledger)?;
    if let Some(until) = forget {
        ledgers.forget_charges(&account, until)?;
    }
    if let Some(key) = key {
        ledgers.put_charge(&account, &key, &charged)?;
    }
    Ok(usage)
}
