//! Budgets: a ledger for each account, and the charges that were made under a key.

use chrono::{DateTime, Utc};
use store_api::budget::{AccountKey, ChargeKey, Charged, Ledgers};
use store_api::{
    Account, AccountUsage, Amount, BudgetStore, Charge, Entity, Error, Ledger, List, Page, PageRequest,
    Reservation, ReservationId, Result, Usage, time,
};

use crate::index;
use crate::keys::{self, Fields, Key, Span};
use crate::kv::Order;
use crate::tables::{ACCOUNTS, CHARGE_EXPIRIES, CHARGES, Table};
use crate::tx::{Tx, decode};
use crate::value;

/// The account that a row is of.
pub(crate) fn account_of(table: Table, key: &[u8], fields: &mut Fields<'_>) -> Result<(AccountKey, Account)> {
    let parts = (fields.text()?, fields.text()?, fields.text()?);
    let account =
        Account::from_key(&parts).map_err(|e| Error::corrupt(value::place(table, key), e.to_string()))?;
    Ok((parts, account))
}

fn charge_key(account: &AccountKey, key: &str) -> Key {
    keys::account(account).text(key)
}

impl Ledgers for Tx<'_> {
    fn ledger(&self, account: &AccountKey) -> Result<Option<Ledger>> {
        self.record(ACCOUNTS, &keys::account(account))
    }

    fn put_ledger(&self, account: &AccountKey, ledger: &Ledger) -> Result<()> {
        self.put_record(ACCOUNTS, &keys::account(account), ledger)
    }

    fn charged(&self, account: &AccountKey, key: &ChargeKey) -> Result<Option<Charged>> {
        self.record(CHARGES, &charge_key(account, &key.as_text()))
    }

    fn put_charge(&self, account: &AccountKey, key: &ChargeKey, charged: &Charged) -> Result<()> {
        let text = key.as_text();
        self.put_record(CHARGES, &charge_key(account, &text), charged)?;
        self.reindex(&[], &index::of_charge(account, &text, charged))
    }

    fn forget_charges(&self, account: &AccountKey, until: i64) -> Result<()> {
        let account = keys::account(account);
        let span = Span::under(&account).through(&account.clone().signed(until));
        let read = |entry: &[u8], _: &[u8]| {
            let mut fields = Fields::of(entry);
            let (account, _) = account_of(CHARGE_EXPIRIES, entry, &mut fields)?;
            fields.signed()?;
            Ok((entry.to_vec(), charge_key(&account, &fields.text()?)))
        };
        self.every(CHARGE_EXPIRIES, span, read, |(entry, charge)| {
            self.delete(CHARGES, &charge)?;
            self.delete(CHARGE_EXPIRIES, &entry).map(drop)
        })
    }
}

impl BudgetStore for Tx<'_> {
    fn usage(&self, account: &Account, now: DateTime<Utc>) -> Result<Usage> {
        self.current(account)?.usage(&account.meter.window, now)
    }

    fn add(&self, charge: &Charge, now: DateTime<Utc>) -> Result<Usage> {
        self.charge(charge, None, now)
    }

    fn admit(&self, charge: &Charge, limit: Amount, now: DateTime<Utc>) -> Result<Usage> {
        self.charge(charge, Some(limit), now)
    }

    fn reserve(&self, reservation: &Reservation, limit: Amount, now: DateTime<Utc>) -> Result<Usage> {
        self.hold(reservation, limit, now)
    }

    fn settle(
        &self,
        account: &Account,
        id: &ReservationId,
        actual: Amount,
        now: DateTime<Utc>,
    ) -> Result<Usage> {
        self.end_hold(account, id, actual, now)
    }

    fn release(&self, account: &Account, id: &ReservationId, now: DateTime<Utc>) -> Result<Usage> {
        self.drop_hold(account, id, now)
    }

    fn reservations(&self, account: &Account, now: DateTime<Utc>) -> Result<Vec<Reservation>> {
        self.current(account)?.reservations(account, now)
    }

    fn accounts(&self, now: DateTime<Utc>, page: &PageRequest) -> Result<Page<AccountUsage>> {
        let position = page.position::<AccountKey>(List::Accounts)?;
        time::nanos("now", now)?;
        let span = position.map_or(Span::all(), |key| Span::all().after(&keys::account(&key)));
        let (found, more) = self.page(ACCOUNTS, span, Order::Forwards, page.limit(), |key, body| {
            let (_, account) = account_of(ACCOUNTS, key, &mut Fields::of(key))?;
            let ledger: Ledger = decode(ACCOUNTS, key, body)?;
            let usage = ledger.usage(&account.meter.window, now)?;
            Ok(AccountUsage { account, usage })
        })?;
        Page::of(List::Accounts, found, more, |found| found.account.key())
    }

    fn reset(&self, account: &Account) -> Result<()> {
        let key = account.key();
        if !self.delete(ACCOUNTS, &keys::account(&key))? {
            return Err(Error::not_found(Entity::Account, account.to_string()));
        }
        self.forget_charges(&key, i64::MAX)
    }
}
