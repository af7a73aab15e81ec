//! `skill import` and `agent import`: definition files kept in a store.

use std::path::Path;

use clap::Args;
use serde_json::json;
use store::{Entity, Error, PrincipalId, Result};
use store_files::sync::Options;

use super::{Answer, Context};
use crate::exit::Code;

/// Which files, and whose they are.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    dir: String,
    /// Whose the definitions are
    #[arg(long)]
    owner: String,
    /// Who saves the versions; the owner when left out
    #[arg(long)]
    by: Option<String>,
}

/// Syncs a directory. The report is the answer; a file that was refused shows in the exit code too.
pub(super) fn import(what: Entity, args: ImportArgs, context: &Context) -> Result<Answer> {
    let dir = Path::new(&args.dir);
    if !dir.try_exists().map_err(|error| Error::backend("looking for the directory", error))? {
        return Err(Error::not_found(Entity::File, args.dir));
    }
    let owner = PrincipalId::new(&args.owner)?;
    let saved_by = args.by.map_or(Ok(owner.clone()), PrincipalId::new)?;
    // Expressions are opaque to this tool, so a new schedule is on no due list until `reschedule` puts it there.
    let options = Options { owner, saved_by, now: context.now, next: None };
    let store = context.open(true)?;
    let report = match what {
        Entity::Agent => store_files::sync_agents(&*store, dir, &options),
        _ => store_files::sync_skills(&*store, dir, &options),
    }?;
    store.close()?;
    let counts = report.counts();
    let code = if counts.refused > 0 { Code::InvalidInput } else { Code::Fine };
    let value = json!({ "counts": counts, "files": report.files });
    Ok(Answer::told(value, report.to_string()).with_code(code))
}
