//! `copy`: everything from one store into another, and the proof that it arrived.

use clap::Args;
use serde_json::{Value, json};
use store::transfer::SeamDigest;
use store::{Error, Result};

use super::{Answer, Context};
use crate::exit::Code;
use crate::progress::Progress;
use crate::render::{Cell, Column, Look, column, render};
use crate::transfer::{self, Comparison};

/// From where, and where to.
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// The store to copy from
    #[arg(long, value_name = "URL")]
    pub(crate) from: String,
    /// The store to copy to: none is there, or an empty one
    #[arg(long, value_name = "URL")]
    to: String,
    /// Put the copy in the place of a store that is there, once it is whole. Nobody may use that one meanwhile
    #[arg(long, conflicts_with = "verify_only")]
    replace: bool,
    /// Copy nothing; compare what the two stores hold. Differences are exit code 6
    #[arg(long)]
    verify_only: bool,
}

const SEAMS: &[Column] = &[
    column("SEAM", "/seam", Cell::Text),
    column("STORE", "/store", Cell::Text),
    column("RECORDS", "/records", Cell::Number),
    column("SHA-256", "/sha256", Cell::Text),
];

pub(super) fn run(args: &CopyArgs, context: &Context) -> Result<Answer> {
    let progress = Progress::on_terminal();
    let from = context.open(false)?;
    let compared = if args.verify_only {
        let to = store::open_with(&args.to, &context.options.clone().create(false))?;
        let compared = transfer::compare(&*from, &*to, progress)?;
        to.close()?;
        compared
    } else {
        transfer::copy(&*from, &args.to, args.replace, &context.options, progress)?
    };
    from.close()?;
    answer(&compared, if args.verify_only { "compared" } else { "copied" }, context)
}

fn answer(compared: &Comparison, done: &str, context: &Context) -> Result<Answer> {
    let rows: Vec<Value> = compared.seams.iter().flat_map(rows).collect();
    let mut text = render(Look::Table(SEAMS), &json!(rows), context.now);
    text.push_str(&match compared.same {
        true => format!("records {done}: {}; the stores hold the same", compared.records),
        false => "the stores differ".to_owned(),
    });
    let value = serde_json::to_value(compared).map_err(|e| Error::backend("writing the comparison", e))?;
    let code = if compared.same { Code::Fine } else { Code::Corrupt };
    Ok(Answer::told(value, text).with_code(code))
}

/// One row for a seam that is the same in both stores, else one for each store.
fn rows(seam: &transfer::ComparedSeam) -> Vec<Value> {
    let row = |store: &str, digest: &Option<SeamDigest>| {
        json!({
            "seam": seam.seam,
            "store": store,
            "records": digest.as_ref().map_or(0, |digest| digest.records),
            "sha256": digest.as_ref().map(|digest| &digest.sha256),
        })
    };
    if seam.same {
        return vec![row("both", &seam.from)];
    }
    vec![row("from", &seam.from), row("to", &seam.to)]
}
