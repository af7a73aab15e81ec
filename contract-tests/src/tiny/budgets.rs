//! Budgets: an engine loads the ledger, asks it, and stores it.

use std::collections::BTreeMap;

use store_api::budget::{ChargeKey, Charged, Charging};
use store_api::*;

use super::{AccountRow, State, Time, Tx, page};

fn ledger(state: &State, account: &Account) -> Ledger {
    state.accounts.get(&account.key()).map(|row| row.ledger.clone()).unwrap_or_default()
}

pub(super) fn account_row<'a>(state: &'a mut State, account: &Account) -> &'a mut AccountRow {
    state.accounts.entry(account.key()).or_insert_with(|| AccountRow {
        account: account.clone(),
        ledger: Ledger::default(),
        charges: BTreeMap::new(),
    })
}

impl Tx {
    /// Asks the ledger to charge, and stores what it says. `prior` is what was charged under the key before.
    fn charge(
        &self,
        account: &Account,
        key: Option<&ChargeKey>,
        ask: impl FnOnce(&mut Ledger, Option<Charged>) -> Result<Charging>,
    ) -> Result<Usage> {
        let mut state = self.change();
        let mut changed = ledger(&state, account);
        let prior = state.accounts.get(&account.key()).zip(key).and_then(|(row, key)| row.charges.get(key));
        match ask(&mut changed, prior.copied())? {
            Charging::Replayed(usage) => Ok(usage),
            Charging::Made { usage, charged, forget } => {
                let row = account_row(&mut state, account);
                row.ledger = changed;
                row.charges.retain(|_, charge| forget.is_none_or(|until| charge.expires_at > until));
                row.charges.extend(key.map(|key| (key.clone(), charged)));
                Ok(usage)
            }
        }
    }

    fn charge_within(&self, charge: &Charge, limit: Option<Amount>, now: Time) -> Result<Usage> {
        let Charge { account, amount, key } = charge;
        let key = key.clone().map(ChargeKey::Key);
        self.charge(account, key.as_ref(), |ledger, prior| {
            ledger.charge(&account.meter.window, *amount, key.as_ref().map(|key| (key, prior)), limit, now)
        })
    }
}

impl BudgetStore for Tx {
    fn usage(&self, account: &Account, now: Time) -> Result<Usage> {
        ledger(&self.look(), account).usage(&account.meter.window, now)
    }

    fn add(&self, charge: &Charge, now: Time) -> Result<Usage> {
        self.charge_within(charge, None, now)
    }

    fn admit(&self, charge: &Charge, limit: Amount, now: Time) -> Result<Usage> {
        self.charge_within(charge, Some(limit), now)
    }

    fn reserve(&self, reservation: &Reservation, limit: Amount, now: Time) -> Result<Usage> {
        let mut state = self.change();
        let mut changed = ledger(&state, &reservation.account);
        let usage = changed.reserve(reservation, limit, now)?;
        account_row(&mut state, &reservation.account).ledger = changed;
        Ok(usage)
    }

    fn settle(&self, account: &Account, id: &ReservationId, actual: Amount, now: Time) -> Result<Usage> {
        let key = ChargeKey::Reservation(id.clone());
        self.charge(account, Some(&key), |ledger, prior| {
            ledger.settle(&account.meter.window, id, prior, actual, now)
        })
    }

    fn release(&self, account: &Account, id: &ReservationId, now: Time) -> Result<Usage> {
        let mut state = self.change();
        let mut changed = ledger(&state, account);
        let usage = changed.release(&account.meter.window, id, now)?;
        account_row(&mut state, account).ledger = changed;
        Ok(usage)
    }

    fn reservations(&self, account: &Account, now: Time) -> Result<Vec<Reservation>> {
        ledger(&self.look(), account).reservations(account, now)
    }

    fn accounts(&self, now: Time, request: &PageRequest) -> Result<Page<AccountUsage>> {
        let after = request.position(List::Accounts)?;
        time::nanos("now", now)?;
        let state = self.look();
        let found =
            page(List::Accounts, request, after, state.accounts.iter().map(|(k, row)| (k.clone(), row)))?;
        let usage = |row: &AccountRow| {
            let usage = row.ledger.usage(&row.account.meter.window, now)?;
            Ok(AccountUsage { account: row.account.clone(), usage })
        };
        Ok(Page { items: found.items.into_iter().map(usage).collect::<Result<_>>()?, next: found.next })
    }

    fn reset(&self, account: &Account) -> Result<()> {
        let gone = self.change().accounts.remove(&account.key());
        gone.map(drop).ok_or_else(|| Error::not_found(Entity::Account, account.to_string()))
    }
}
