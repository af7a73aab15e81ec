//! The schema and its history: a numbered list of steps, each of which leaves the number of its schema in the file.

use std::time::Duration;

use rusqlite::Connection;
use store_api::{Error, Result};

use crate::file::check_owner;
use crate::{error, unit};

/// What an SQLite file of ours says in its header: "agst".
pub(crate) const APPLICATION_ID: u32 = u32::from_be_bytes(*b"agst");

/// The steps, oldest first: step `n` (counted from 0) leads from schema `n` to schema `n + 1`. Steps are only added.
const MIGRATIONS: [&str; 2] = [include_str!("migrations/1.sql"), include_str!("migrations/2.sql")];

/// The schema that this version writes.
pub(crate) const SCHEMA: u32 = MIGRATIONS.len() as u32;

/// Brings the database to [`SCHEMA`], in one transaction: a new one from nothing, an older one from where it stands.
///
/// # Errors
/// `NotThisStore`, `SchemaTooNew`, `Busy`, `Backend`.
pub(crate) fn run(connection: &Connection, timeout: Duration) -> Result<()> {
    take(&MIGRATIONS, connection, timeout)
}

/// Takes those of the steps that the database has not taken yet.
fn take(steps: &[&str], connection: &Connection, timeout: Duration) -> Result<()> {
    let newest = steps.len() as u32;
    if stands_at(connection, newest)? == newest {
        return Ok(());
    }
    unit::begin(connection, timeout)?;
    // Another process may have been faster.
    let from = stands_at(connection, newest)?;
    for step in steps.iter().skip(from as usize) {
        connection.execute_batch(step).map_err(|e| error::sqlite("bringing the schema up to date", e))?;
    }
    unit::commit(connection)
}

/// The schema of the database, which is none after `newest`; 0 when there is nothing in it yet.
fn stands_at(connection: &Connection, newest: u32) -> Result<u32> {
    let sql = "SELECT (SELECT application_id FROM pragma_application_id), \
               (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)";
    let found = connection.query_one(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let (application, schema, objects): (i32, i32, i64) =
        found.map_err(|e| error::sqlite("reading the schema's number", e))?;
    if (application, schema, objects) == (0, 0, 0) {
        return Ok(0);
    }
    let schema = schema.cast_unsigned();
    check_owner(application.cast_unsigned(), schema, newest)?;
    if schema == 0 {
        return Err(Error::corrupt("database header", "has no schema number"));
    }
    Ok(schema)
}

#[cfg(test)]
mod power_loss;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_leaves_its_number() {
        let connection = Connection::open_in_memory().unwrap();
        for (step, number) in MIGRATIONS.iter().zip(1..) {
            connection.execute_batch(step).unwrap();
            let found: u32 = connection.query_one("PRAGMA user_version", [], |row| row.get(0)).unwrap();
            let application: u32 =
                connection.query_one("PRAGMA application_id", [], |row| row.get(0)).unwrap();
            assert_eq!((found, application), (number, APPLICATION_ID));
        }
    }

    #[test]
    fn the_counter_begins_with_its_checksum() {
        let sum = crate::sums::counter(0);
        assert!(MIGRATIONS[0].contains(&format!("VALUES ('counter', 0, {sum});")), "{sum}");
    }
}
