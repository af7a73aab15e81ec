//! The host's key for webhook digests, and secrets. Neither ever comes from the command line, where others see it.

use std::io::Read;

use store::{DigestKey, Entity, Error, Result, Secret};

/// The variable that names the key file when no flag does.
const VARIABLE: &str = "STORECTL_KEY_FILE";

/// Reads the digest key: its id and 64 hex digits, with white space between.
pub(crate) fn digest_key(flag: Option<&str>) -> Result<DigestKey> {
    let path = match (flag, std::env::var(VARIABLE)) {
        (Some(path), _) => path.to_owned(),
        (None, Ok(path)) => path,
        (None, Err(_)) => {
            return Err(Error::invalid("key-file", format!("is missing: give --key-file or set {VARIABLE}")));
        }
    };
    let text = read_text("key-file", &path)?;
    // What is wrong is said without showing what was read.
    let refuse = || Error::invalid("key-file", format!("{path} is not a key id and 64 hex digits"));
    let mut words = text.split_whitespace();
    let (Some(id), Some(hex), None) = (words.next(), words.next(), words.next()) else {
        return Err(refuse());
    };
    DigestKey::new(id, bytes(hex).ok_or_else(refuse)?)
}

fn bytes(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; 32];
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(key)
}

/// Reads a secret from a file, or from standard input for `-`, without the line's end.
pub(crate) fn secret(path: &str) -> Result<Secret> {
    let text = read_text("secret", path)?;
    Secret::new(text.trim_end_matches(['\r', '\n']))
}

/// Reads a file of text, or standard input for `-`.
pub(crate) fn read_text(field: &'static str, path: &str) -> Result<String> {
    let mut bytes = Vec::new();
    let read = if path == "-" {
        std::io::stdin().lock().read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes))
    };
    read.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::not_found(Entity::File, path),
        _ => Error::backend("reading the input", error),
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::invalid(field, format!("{path} is not UTF-8 at byte {at}"))
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
