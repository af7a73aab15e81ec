//! `skill import` and `agent import`: definition files kept in a store.

use std::path::Path;

use store::{Entity, Error, Result};

use super::{Answer, Context};

pub(super) fn import(_: Entity, _: &Path, _: &str, _: &Context) -> Result<Answer> {
    Err(Error::Unsupported { operation: "importing definition files".into() })
}
