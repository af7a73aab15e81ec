//! Peers that are embedded key-value stores: each version is a transaction that is flushed before it returns.

use std::sync::LazyLock;

use fjall::{KeyspaceCreateOptions, PersistMode, Readable, SingleWriterTxDatabase};
use native_db::{Builder, Models, ToKey, native_db};
use native_model::{Model, native_model};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Call, Ran, Result, on_threads};

/// A log-structured store: the document, and where its id is; the number of the last version is kept beside them.
pub(crate) fn fjall(call: &Call) -> Result<Ran> {
    let db = SingleWriterTxDatabase::builder(call.directory.join("fjall")).open()?;
    let keyspace = |name| db.keyspace(name, KeyspaceCreateOptions::default);
    let (versions, ids, last) = (keyspace("versions")?, keyspace("ids")?, keyspace("last")?);
    let version = call.document("version");
    let (elapsed, latency) = on_threads(call, |client, n| {
        let skill = format!("skill-{client:08}");
        let doc = serde_json::to_string(&version)?;
        let mut tx = db.write_tx().durability(Some(PersistMode::SyncAll));
        let seq = match tx.get(&last, &skill)? {
            Some(last) => u64::from_be_bytes(last[..].try_into()?) + 1,
            None => 1,
        };
        let place = format!("{skill}\0{seq:020}");
        tx.insert(&last, skill, seq.to_be_bytes());
        tx.insert(&ids, format!("version-{client:04}-{n:023}"), place.as_str());
        tx.insert(&versions, place, doc);
        Ok(tx.commit()?)
    })?;
    Ok(Ran { elapsed, latency, settings: json!({ "durability": "SyncAll", "fjall": "3.1.13" }) })
}

#[derive(Serialize, Deserialize)]
#[native_model(id = 1, version = 1)]
#[native_db]
struct Version {
    #[primary_key]
    id: String,
    #[secondary_key(unique)]
    place: String,
    doc: String,
}

/// Typed records on redb, which flushes each commit.
pub(crate) fn native_db(call: &Call) -> Result<Ran> {
    static MODELS: LazyLock<Models> = LazyLock::new(|| {
        let mut models = Models::new();
        models.define::<Version>().expect("the one model");
        models
    });
    let db = Builder::new().create(&MODELS, call.directory.join("native.db"))?;
    let version = call.document("version");
    let (elapsed, latency) = on_threads(call, |client, n| {
        let tx = db.rw_transaction()?;
        let doc = serde_json::to_string(&version)?;
        let place = format!("skill-{client:08}-{n:020}"); // the caller's to know
        tx.insert(Version { id: format!("version-{client:04}-{n:023}"), place, doc })?;
        Ok(tx.commit()?)
    })?;
    Ok(Ran { elapsed, latency, settings: json!({ "durability": "Immediate, one phase", "redb": "2", "native_db": "0.8.2" }) })
}
