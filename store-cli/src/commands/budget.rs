//! `budget`: what callers spend.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use store::Result;

use super::{Answer, Call, Context, amount, object};
use crate::args::PageArgs;
use crate::render::{Cell, Column, Look, column};

/// The verbs of budgets. Amounts are units, with up to six decimals.
#[derive(Debug, Subcommand)]
pub(crate) enum BudgetVerb {
    /// Charge without a limit
    Add {
        amount: String,
        #[command(flatten)]
        account: AccountArgs,
        /// Makes the charge happen once, however often it is sent
        #[arg(long)]
        key: Option<String>,
    },
    /// Show what is used and held
    Usage {
        #[command(flatten)]
        account: AccountArgs,
    },
    /// Charge, if the total stays within a limit
    Admit {
        amount: String,
        #[arg(long)]
        limit: String,
        #[command(flatten)]
        account: AccountArgs,
        /// Makes the charge happen once, however often it is sent
        #[arg(long)]
        key: Option<String>,
    },
    /// Hold an estimate, if the total stays within a limit
    Reserve {
        /// The reservation's id
        id: String,
        amount: String,
        #[arg(long)]
        limit: String,
        /// When it lapses (RFC 3339 or +LENGTH)
        #[arg(long, default_value = "+10m")]
        expires: String,
        #[command(flatten)]
        account: AccountArgs,
    },
    /// End a hold and charge what was really spent
    Settle {
        /// The reservation's id
        id: String,
        amount: String,
        #[command(flatten)]
        account: AccountArgs,
    },
    /// End a hold and charge nothing
    Release {
        /// The reservation's id
        id: String,
        #[command(flatten)]
        account: AccountArgs,
    },
    /// List what an account holds
    Reservations {
        #[command(flatten)]
        account: AccountArgs,
    },
    /// List all accounts with their usage
    Accounts {
        #[command(flatten)]
        page: PageArgs,
    },
    /// Forget an account: usage, holds and keys
    Reset {
        #[command(flatten)]
        account: AccountArgs,
    },
}

/// Which account.
#[derive(Debug, Args)]
pub(crate) struct AccountArgs {
    /// Who pays
    #[arg(long)]
    caller: String,
    /// What is counted
    #[arg(long)]
    meter: String,
    /// Over which time: rollover:7d, sliding:7d/168
    #[arg(long, default_value = "rollover:7d")]
    window: String,
}

impl AccountArgs {
    fn json(self) -> Value {
        json!({ "caller": self.caller, "meter": { "name": self.meter, "window": self.window } })
    }
}

const ACCOUNTS: &[Column] = &[
    column("CALLER", "/account/caller", Cell::Text),
    column("METER", "/account/meter/name", Cell::Text),
    column("WINDOW", "/account/meter/window", Cell::Text),
    column("USED", "/usage/used", Cell::Amount),
    column("HELD", "/usage/held", Cell::Amount),
    column("SINCE", "/usage/since", Cell::Time),
    column("UNTIL", "/usage/until", Cell::Time),
];

const RESERVATIONS: &[Column] = &[
    column("ID", "/id", Cell::Text),
    column("ESTIMATE", "/estimate", Cell::Amount),
    column("LAPSES", "/expires_at", Cell::Time),
];

impl BudgetVerb {
    pub(crate) fn run(self, context: &Context) -> Result<Answer> {
        let (call, look) = self.call(context)?;
        context.answer(call, look)
    }

    fn call(self, context: &Context) -> Result<(Call, Look)> {
        let usage = |call| Ok((call, Look::Record));
        match self {
            BudgetVerb::Add { amount, account, key } => {
                usage(Call::new("budgets.add").with("charge", charge(account, &amount, key)?))
            }
            BudgetVerb::Usage { account } => {
                usage(Call::new("budgets.usage").with("account", account.json()))
            }
            BudgetVerb::Admit { amount: cost, limit, account, key } => {
                let call = Call::new("budgets.admit").with("charge", charge(account, &cost, key)?);
                usage(call.with("limit", amount(&limit)?))
            }
            BudgetVerb::Reserve { id, amount: estimate, limit, expires, account } => {
                let reservation = json!({
                    "id": id,
                    "account": account.json(),
                    "estimate": amount(&estimate)?,
                    "expires_at": context.moment("expires_at", Some(&expires))?,
                });
                let call = Call::new("budgets.reserve").with("reservation", reservation);
                usage(call.with("limit", amount(&limit)?))
            }
            BudgetVerb::Settle { id, amount: actual, account } => {
                let call = Call::new("budgets.settle").with("account", account.json()).with("id", id);
                usage(call.with("actual", amount(&actual)?))
            }
            BudgetVerb::Release { id, account } => {
                usage(Call::new("budgets.release").with("account", account.json()).with("id", id))
            }
            BudgetVerb::Reservations { account } => {
                let call = Call::new("budgets.reservations").with("account", account.json());
                Ok((call, Look::Table(RESERVATIONS)))
            }
            BudgetVerb::Accounts { page } => {
                Ok((Call::new("budgets.accounts").page(page), Look::Table(ACCOUNTS)))
            }
            BudgetVerb::Reset { account } => {
                let call = Call::new("budgets.reset").with("account", account.json());
                Ok((call, Look::Said("forgotten")))
            }
        }
    }
}

fn charge(account: AccountArgs, cost: &str, key: Option<String>) -> Result<Value> {
    Ok(object([("account", account.json()), ("amount", amount(cost)?), ("key", json!(key))]))
}
