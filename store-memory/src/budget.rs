//! Budgets: the ledger of each account, and the charges that were made under a key.

use chrono::{DateTime, Utc};
use store_api::budget::{AccountKey, ChargeKey, Charged, Charging};
use store_api::*;

use crate::page::{self, check_times};
use crate::state::Tx;
use crate::table::{Grouped, Hashed, Ordered, Undo};

/// The tables of budgets. An account is in both `ledgers` and `accounts`, or in neither.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    pub(crate) ledgers: Hashed<Account, Ledger>,
    /// The accounts in the order of lists.
    pub(crate) accounts: Ordered<AccountKey, Account>,
    pub(crate) charges: Grouped<Account, ChargeKey, Charged>,
    /// The charges of an account in the order in which they are forgotten.
    pub(crate) expiries: Grouped<Account, (i64, ChargeKey), ()>,
}

impl Budgets {
    pub(crate) fn each_table(&mut self, act: &mut dyn FnMut(&mut dyn Undo)) {
        let Budgets { ledgers, accounts, charges, expiries } = self;
        act(ledgers);
        act(accounts);
        act(charges);
        act(expiries);
    }

    /// The ledger of an account; an empty one when there is no such account.
    fn ledger(&self, account: &Account) -> Ledger {
        self.ledgers.get(account).cloned().unwrap_or_default()
    }

    /// Stores the ledger of an account, which may be new.
    pub(crate) fn set_ledger(&mut self, account: &Account, ledger: Ledger) {
        if !self.ledgers.contains_key(account) {
            self.accounts.set(account.key(), account.clone());
        }
        self.ledgers.set(account.clone(), ledger);
    }

    /// Stores a charge under a key that has none.
    pub(crate) fn set_charge(&mut self, account: &Account, key: ChargeKey, charged: Charged) {
        self.expiries.set((account.clone(), (charged.expires_at, key.clone())), ());
        self.charges.set((account.clone(), key), charged);
    }

    /// Forgets the charges of an account whose keys end at or before `until`.
    fn forget(&mut self, account: &Account, until: i64) {
        let ended = self.expiries.group(account).keys().take_while(|(at, _)| *at <= until);
        for (at, key) in ended.cloned().collect::<Vec<_>>() {
            self.charges.unset(&(account.clone(), key.clone()));
            self.expiries.unset(&(account.clone(), (at, key)));
        }
    }
}

impl Tx<'_> {
    /// Asks the ledger to charge, and stores what it says. `prior` is what was charged under the key before.
    fn charge(
        &self,
        account: &Account,
        key: Option<ChargeKey>,
        ask: impl FnOnce(&mut Ledger, Option<(&ChargeKey, Option<Charged>)>) -> Result<Charging>,
    ) -> Result<Usage> {
        let budgets = &mut self.change()?.budgets;
        let mut ledger = budgets.ledger(account);
        let prior = key.as_ref().map(|key| (key, budgets.charges.group(account).get(key).copied()));
        match ask(&mut ledger, prior)? {
            Charging::Replayed(usage) => Ok(usage),
            Charging::Made { usage, charged, forget } => {
                budgets.set_ledger(account, ledger);
                if let Some(until) = forget {
                    budgets.forget(account, until);
                }
                if let Some(key) = key {
                    budgets.set_charge(account, key, charged);
                }
                Ok(usage)
            }
        }
    }

    fn charge_within(&self, charge: &Charge, limit: Option<Amount>, now: DateTime<Utc>) -> Result<Usage> {
        let Charge { account, amount, key } = charge;
        self.charge(account, key.clone().map(ChargeKey::Key), |ledger, prior| {
            ledger.charge(&account.meter.window, *amount, prior, limit, now)
        })
    }
}

impl BudgetStore for Tx<'_> {
    fn usage(&self, account: &Account, now: DateTime<Utc>) -> Result<Usage> {
        match self.look().budgets.ledgers.get(account) {
            Some(ledger) => ledger.usage(&account.meter.window, now),
            None => Ledger::default().usage(&account.meter.window, now),
        }
    }

    fn add(&self, charge: &Charge, now: DateTime<Utc>) -> Result<Usage> {
        self.charge_within(charge, None, now)
    }

    fn admit(&self, charge: &Charge, limit: Amount, now: DateTime<Utc>) -> Result<Usage> {
        self.charge_within(charge, Some(limit), now)
    }

    fn reserve(&self, reservation: &Reservation, limit: Amount, now: DateTime<Utc>) -> Result<Usage> {
        let budgets = &mut self.change()?.budgets;
        let mut ledger = budgets.ledger(&reservation.account);
        let usage = ledger.reserve(reservation, limit, now)?;
        budgets.set_ledger(&reservation.account, ledger);
        Ok(usage)
    }

    fn settle(
        &self,
        account: &Account,
        id: &ReservationId,
        actual: Amount,
        now: DateTime<Utc>,
    ) -> Result<Usage> {
        self.charge(account, Some(ChargeKey::Reservation(id.clone())), |ledger, prior| {
            ledger.settle(&account.meter.window, id, prior.and_then(|(_, charged)| charged), actual, now)
        })
    }

    fn release(&self, account: &Account, id: &ReservationId, now: DateTime<Utc>) -> Result<Usage> {
        let budgets = &mut self.change()?.budgets;
        let mut ledger = budgets.ledger(account);
        let usage = ledger.release(&account.meter.window, id, now)?;
        budgets.set_ledger(account, ledger);
        Ok(usage)
    }

    fn reservations(&self, account: &Account, now: DateTime<Utc>) -> Result<Vec<Reservation>> {
        self.look().budgets.ledger(account).reservations(account, now)
    }

    fn accounts(&self, now: DateTime<Utc>, request: &PageRequest) -> Result<Page<AccountUsage>> {
        let position = request.position(List::Accounts)?;
        check_times([("now", Some(now))])?;
        let budgets = &self.look().budgets;
        let found = page::page(List::Accounts, request, page::after(&budgets.accounts, position))?;
        let with_usage = |account: Account| {
            let usage = budgets.ledger(&account).usage(&account.meter.window, now)?;
            Ok(AccountUsage { account, usage })
        };
        Ok(Page { items: found.items.into_iter().map(with_usage).collect::<Result<_>>()?, next: found.next })
    }

    fn reset(&self, account: &Account) -> Result<()> {
        let budgets = &mut self.change()?.budgets;
        if !budgets.ledgers.unset(account) {
            return Err(Error::not_found(Entity::Account, account.to_string()));
        }
        budgets.accounts.unset(&account.key());
        budgets.forget(account, i64::MAX);
        Ok(())
    }
}
