//! Budgets: a ledger for each account, and the charges that were made under a key.

use chrono::{DateTime, Utc};
use rusqlite::{Row, params};
use store_api::budget::{AccountKey, ChargeKey, Charged, Ledgers};
use store_api::json;
use store_api::{
    Account, AccountUsage, Amount, BudgetStore, Charge, Entity, Error, Ledger, List, Page, PageRequest,
    Reservation, ReservationId, Result, Usage, time,
};

use crate::sums;
use crate::tx::{Onward, Tx, column, document, text};

fn account_name((caller, meter, window): &AccountKey) -> String {
    format!("accounts/{caller}/{meter}/{window}")
}

fn charge_name(account: &AccountKey, key: &str) -> String {
    format!("{}/charges/{key}", account_name(account))
}

/// An account from the columns `sum, ledger, caller, meter, window`.
pub(crate) fn read_account(row: &Row<'_>) -> Result<(AccountKey, Account, Ledger)> {
    let key = (text(row, 2)?.to_owned(), text(row, 3)?.to_owned(), text(row, 4)?.to_owned());
    let ledger = read_ledger(&key, row)?;
    let account = Account::from_key(&key).map_err(|e| sums::damaged(|| account_name(&key), &e))?;
    Ok((key, account, ledger))
}

/// The ledger of `account` from the columns `sum, ledger`. That of another account has another sum.
fn read_ledger(account: &AccountKey, row: &Row<'_>) -> Result<Ledger> {
    let what = || account_name(account);
    let ledger = document(what, row, 1)?;
    sums::check(what, column(row, 0)?, sums::account(account, ledger))?;
    json::decode(what, ledger)
}

/// What was charged to `account` under `key`, from the columns `amount, expires_at, sum`. What was charged under
/// another has another sum.
fn read_charged(account: &AccountKey, key: &str, row: &Row<'_>) -> Result<Charged> {
    let what = || charge_name(account, key);
    let amount: i64 = column(row, 0)?;
    let amount = Amount::from_micros(amount.cast_unsigned()).map_err(|e| sums::damaged(what, &e))?;
    let charged = Charged { amount, expires_at: column(row, 1)? };
    sums::check(what, column(row, 2)?, sums::charge(account, key, &charged))?;
    Ok(charged)
}

/// A charge of `account` from the columns `amount, expires_at, sum, key`.
fn read_charge(account: &AccountKey, row: &Row<'_>) -> Result<(ChargeKey, Charged)> {
    let key = text(row, 3)?;
    let charged = read_charged(account, key, row)?;
    let key = ChargeKey::from_text(key).map_err(|e| sums::damaged(|| charge_name(account, key), &e))?;
    Ok((key, charged))
}

impl Ledgers for Tx<'_> {
    fn ledger(&self, key: &AccountKey) -> Result<Option<Ledger>> {
        let sql = "SELECT sum, ledger FROM accounts WHERE caller = ?1 AND meter = ?2 AND \"window\" = ?3";
        self.first(sql, params![key.0, key.1, key.2], |row| read_ledger(key, row))
    }

    fn put_ledger(&self, key: &AccountKey, ledger: &Ledger) -> Result<()> {
        let ledger = json::encode(ledger)?;
        let sql = "INSERT INTO accounts (caller, meter, \"window\", sum, ledger) VALUES (?1, ?2, ?3, ?4, ?5) \
                   ON CONFLICT (caller, meter, \"window\") DO UPDATE SET sum = ?4, ledger = ?5";
        let sum = sums::account(key, &ledger);
        self.execute(sql, params![key.0, key.1, key.2, sum, ledger]).map(drop)
    }

    fn charged(&self, account: &AccountKey, key: &ChargeKey) -> Result<Option<Charged>> {
        let sql = "SELECT amount, expires_at, sum FROM charges \
                   WHERE caller = ?1 AND meter = ?2 AND \"window\" = ?3 AND key = ?4";
        let key = key.as_text();
        let params = params![account.0, account.1, account.2, key];
        self.first(sql, params, |row| read_charged(account, &key, row))
    }

    fn put_charge(&self, account: &AccountKey, key: &ChargeKey, charged: &Charged) -> Result<()> {
        let key = key.as_text();
        let sql = "INSERT INTO charges (caller, meter, \"window\", key, amount, expires_at, sum) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
                   ON CONFLICT (caller, meter, \"window\", key) DO UPDATE SET amount = ?5, expires_at = ?6, sum = ?7";
        let amount = charged.amount.micros().cast_signed();
        let sum = sums::charge(account, &key, charged);
        let params = params![account.0, account.1, account.2, key, amount, charged.expires_at, sum];
        self.execute(sql, params).map(drop)
    }

    fn forget_charges(&self, account: &AccountKey, until: i64) -> Result<()> {
        let params = params![account.0, account.1, account.2, until];
        let sql =
            "SELECT 1 FROM charges WHERE caller = ?1 AND meter = ?2 AND \"window\" = ?3 AND expires_at <= ?4";
        if !self.any(sql, params)? {
            return Ok(());
        }
        let sql = "DELETE FROM charges WHERE caller = ?1 AND meter = ?2 AND \"window\" = ?3 AND expires_at <= ?4 \
                   RETURNING caller = ?1 AND meter = ?2 AND \"window\" = ?3 AND expires_at <= ?4";
        self.change(|| account_name(account), sql, params).map(drop)
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
        let (caller, meter, window) = position.clone().unwrap_or_default();
        time::nanos("now", now)?;
        let sql = "SELECT sum, ledger, caller, meter, \"window\" FROM accounts \
                   WHERE (caller, meter, \"window\") > (?1, ?2, ?3) ORDER BY caller, meter, \"window\"";
        let (params, onward) = (params![caller, meter, window], Onward::rising(position));
        self.page(List::Accounts, sql, params, onward, page.limit(), |row| {
            let (key, account, ledger) = read_account(row)?;
            let usage = ledger.usage(&account.meter.window, now)?;
            Ok((key, AccountUsage { account, usage }))
        })
    }

    fn reset(&self, account: &Account) -> Result<()> {
        let key = account.key();
        self.forget_charges(&key, i64::MAX)?;
        let sql = "DELETE FROM accounts WHERE caller = ?1 AND meter = ?2 AND \"window\" = ?3 \
                   RETURNING caller = ?1 AND meter = ?2 AND \"window\" = ?3";
        match self.change(|| account_name(&key), sql, params![key.0, key.1, key.2])? {
            0 => Err(Error::not_found(Entity::Account, account.to_string())),
            _ => Ok(()),
        }
    }
}

impl Tx<'_> {
    /// Shows every charge of an account to `see`, by key.
    pub(crate) fn each_charge(
        &self,
        account: &AccountKey,
        see: impl FnMut(Result<(ChargeKey, Charged)>) -> Result<()>,
    ) -> Result<()> {
        let sql = "SELECT amount, expires_at, sum, key FROM charges \
                   WHERE caller = ?1 AND meter = ?2 AND \"window\" = ?3 ORDER BY key";
        let params = params![account.0, account.1, account.2];
        let read = |row: &Row<'_>| Ok((text(row, 3)?.to_owned(), read_charge(account, row)));
        self.walk(sql, params, Onward::rising(None), read, see)
    }
}
