//! Exports as files: JSON Lines, one record in each, between a header and a trailer.
//!
//! Each line begins with a checksum of the rest of it and of its number, so a line that was changed, moved or lost
//! is found and named; the trailer has the digests of all records, so a file that was cut off is no export. EXPORT.md
//! has the format.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde_json::{Value, json};
use store::transfer::{Digesting, Digests, counts};
use store::{Entity, Error, ImportReport, Record, Result, Store, json as strict};

use super::failed;
use super::packing::Packing;
use crate::lines::{self, Line, MAX_LINE_BYTES};

/// What the header calls the file.
const FORMAT: &str = "store-export";

/// The version of the format. Another one is refused.
const VERSION: u64 = 1;

/// What an export wrote.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Exported {
    /// How many records.
    records: u64,
    /// The digests of each seam's records.
    digests: Digests,
}

/// Exports to a file that must not exist, compressed as its name says. It has another name until it is whole, and its
/// owner alone may read it.
pub(crate) fn export_to_file(store: &dyn Store, to: &Path) -> Result<Exported> {
    let taken = || Error::already_exists(Entity::File, "path", to.display().to_string());
    if to.try_exists().map_err(failed("looking for the file"))? {
        return Err(taken());
    }
    let directory = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed("making a file"))?;
    let mut packer = Packing::of(to).pack(&mut file)?;
    let exported = export(store, &mut packer)?;
    packer.finish().map_err(failed(WRITING))?;
    file.as_file().sync_all().map_err(failed("writing the export to disk"))?;
    file.persist_noclobber(to).map_err(|refused| match refused.error.kind() {
        io::ErrorKind::AlreadyExists => taken(),
        _ => Error::backend("naming the export", refused.error),
    })?;
    if cfg!(unix) {
        let directory = File::open(directory).map_err(failed("opening the directory"))?;
        directory.sync_all().map_err(failed("writing the directory to disk"))?;
    }
    Ok(exported)
}

/// Exports to `out`. The store is read twice: the header's counts are from just before, and where others write
/// meanwhile, the trailer's are the ones that are right.
pub(crate) fn export(store: &dyn Store, out: &mut dyn Write) -> Result<Exported> {
    let info = store.info();
    let mut out = Lines { out: BufWriter::new(out), number: 0 };
    let counts = counts(store, &mut |_| {})?;
    let header = json!({
        "format": FORMAT,
        "version": VERSION,
        "engine": info.engine,
        "schema": info.schema,
        "records": counts.values().sum::<u64>(),
        "counts": counts,
    });
    out.write(&header.to_string())?;
    let mut digesting = Digesting::new();
    store.export(&mut |record| {
        let object = digesting.add(&record)?;
        out.write(&object)
    })?;
    let exported = Exported { records: digesting.records(), digests: digesting.finish() };
    out.write(&strict::encode(&json!({ "type": "end", "end": exported }))?)?;
    out.out.flush().map_err(failed(WRITING))?;
    Ok(exported)
}

const WRITING: &str = "writing the export";

/// Writes objects as numbered lines, each with its checksum.
struct Lines<W: Write> {
    out: W,
    number: u64,
}

impl<W: Write> Lines<W> {
    fn write(&mut self, object: &str) -> Result<()> {
        self.number += 1;
        let rest = object.strip_prefix('{').unwrap_or(object);
        let sum = sum(self.number, rest);
        writeln!(self.out, "{SUM}{sum:016x}\",{rest}").map_err(failed(WRITING))
    }
}

/// How each line begins.
const SUM: &str = "{\"sum\":\"";

fn sum(number: u64, rest: &str) -> u64 {
    strict::checksum(&[&number.to_be_bytes(), rest.as_bytes()])
}

/// Imports a file, decompressed as its name says.
pub(crate) fn import_from_file(store: &dyn Store, from: &Path) -> Result<ImportReport> {
    let file = File::open(from).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::not_found(Entity::File, from.display().to_string()),
        _ => Error::backend("opening the export", error),
    })?;
    import(store, Packing::of(from).unpack(BufReader::new(file))?)
}

/// Imports what [`export`] wrote: all of it, or nothing.
pub(crate) fn import(store: &dyn Store, input: impl BufRead + Send) -> Result<ImportReport> {
    let mut reading = Reading { input, buffer: Vec::new(), number: 0 };
    reading.header().map_err(|error| at_line(reading.number, error))?;
    let mut records = Records { reading, digesting: Some(Digesting::new()) };
    store.import(&mut records).map_err(|error| at_line(records.reading.number, error))
}

/// Puts the line's number before the field of an error.
fn at_line(number: u64, error: Error) -> Error {
    match error {
        Error::InvalidInput { field, reason } => Error::invalid(format!("line {number}: {field}"), reason),
        other => other,
    }
}

/// Reads numbered lines and checks each against its checksum.
struct Reading<R> {
    input: R,
    buffer: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Reading<R> {
    /// The next line's object, or `None` at the end of the file.
    fn next(&mut self) -> Result<Option<String>> {
        self.number += 1;
        match lines::read(&mut self.input, &mut self.buffer).map_err(unreadable)? {
            Line::End => Ok(None),
            Line::TooLong => Err(damaged(format!("is longer than {MAX_LINE_BYTES} bytes"))),
            Line::Unended => Err(damaged("is cut off: no line feed ends it")),
            Line::Whole => self.checked().map(Some),
        }
    }

    fn checked(&self) -> Result<String> {
        let text = std::str::from_utf8(&self.buffer).map_err(|_| damaged("is not UTF-8"))?;
        let parts = text.strip_prefix(SUM).and_then(|rest| rest.split_once("\","));
        let (stored, rest) = parts.ok_or_else(|| damaged("is no line of an export"))?;
        if stored != format!("{:016x}", sum(self.number, rest)) {
            return Err(damaged("was changed or moved: its checksum does not fit"));
        }
        Ok(format!("{{{rest}"))
    }

    fn header(&mut self) -> Result<()> {
        let header = self.next()?.ok_or_else(|| damaged("is missing: the file is empty"))?;
        let header = strict::parse("header", &header)?;
        if header["format"] != FORMAT {
            return Err(Error::invalid("format", format!("{} is not {FORMAT:?}", header["format"])));
        }
        if header["version"] != VERSION {
            return Err(Error::invalid("version", format!("{} is not {VERSION}", header["version"])));
        }
        Ok(())
    }
}

/// An error that the operating system did not give is one of decompressing.
fn unreadable(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(_) => Error::backend("reading the export", error),
        None => damaged(format!("cannot be decompressed, the file is cut off or damaged: {error}")),
    }
}

fn damaged(reason: impl Into<String>) -> Error {
    Error::invalid("line", reason)
}

/// The records between header and trailer, for an import.
struct Records<R> {
    reading: Reading<R>,
    /// What was read so far; `None` after the trailer or an error.
    digesting: Option<Digesting>,
}

impl<R: BufRead> Records<R> {
    fn advance(&mut self, mut digesting: Digesting) -> Result<Option<Record>> {
        let cut_off = || damaged("is missing: the file ends without its trailer");
        let object = self.reading.next()?.ok_or_else(cut_off)?;
        let value = strict::parse("record", &object)?;
        if value["type"] == "end" {
            self.trailer(&value["end"], digesting)?;
            return Ok(None);
        }
        let record: Record =
            serde_json::from_value(value).map_err(|error| Error::invalid("record", error.to_string()))?;
        digesting.add(&record)?;
        self.digesting = Some(digesting);
        Ok(Some(record))
    }

    /// Checks that what came before is what the trailer says, and that nothing comes after.
    fn trailer(&mut self, end: &Value, digesting: Digesting) -> Result<()> {
        let found = Exported { records: digesting.records(), digests: digesting.finish() };
        if *end != json!(found) {
            return Err(damaged("has other counts and digests than the records before it"));
        }
        match self.reading.next()? {
            None => Ok(()),
            Some(_) => Err(damaged("comes after the trailer")),
        }
    }
}

impl<R: BufRead> Iterator for Records<R> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        let digesting = self.digesting.take()?;
        self.advance(digesting).transpose()
    }
}
