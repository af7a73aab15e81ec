//! Webhook secrets: a store only ever sees a keyed digest of one.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::{Error, Result};

/// The least a secret may measure: 16 bytes, 128 bits, so that no slow hash is needed.
pub const MIN_SECRET_BYTES: usize = 16;

/// A webhook's token, as its caller sends it. It is never stored, and `Debug` does not show it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes a token of at least [`MIN_SECRET_BYTES`] bytes. Make it with [`Secret::generate`], or as randomly.
    ///
    /// # Errors
    /// `InvalidInput` for a shorter one. The error does not show it.
    pub fn new(token: impl Into<String>) -> Result<Self> {
        let token = token.into();
        if token.len() < MIN_SECRET_BYTES {
            return Err(Error::invalid("secret", format!("is shorter than {MIN_SECRET_BYTES} bytes")));
        }
        Ok(Secret(token))
    }

    /// A new token of 256 random bits.
    ///
    /// # Errors
    /// `Backend` when the system has no randomness to give.
    pub fn generate() -> Result<Self> {
        Ok(Secret(URL_SAFE_NO_PAD.encode(random_bytes()?)))
    }

    /// The token itself: to show to the person who sets up the webhook, once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The host's key for digests. It lives outside the store, so a stolen file alone cannot test guesses.
#[derive(Clone)]
pub struct DigestKey {
    id: String,
    key: [u8; 32],
}

impl DigestKey {
    /// A key of 32 bytes, with an id that is stored beside each digest so that keys can be changed.
    ///
    /// # Errors
    /// `InvalidInput` for an id that is not 1 to 32 of `a-z`, `A-Z`, `0-9`, `-`, `_`.
    pub fn new(id: impl Into<String>, key: [u8; 32]) -> Result<Self> {
        let id = id.into();
        check_key_id(&id)?;
        Ok(DigestKey { id, key })
    }

    /// A new random key.
    ///
    /// # Errors
    /// As [`DigestKey::new`], and `Backend` when the system has no randomness to give.
    pub fn generate(id: impl Into<String>) -> Result<Self> {
        Self::new(id, random_bytes()?)
    }

    /// The id of the key.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The 32 bytes, for the host to keep.
    pub fn reveal(&self) -> &[u8; 32] {
        &self.key
    }

    /// The digest of a secret: HMAC-SHA-256 under this key.
    pub fn digest(&self, secret: &Secret) -> SecretDigest {
        // HMAC pads a key that is shorter than SHA-256's block of 64 bytes with zeros.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&self.key);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(secret.0.as_bytes());
        SecretDigest { key_id: self.id.clone(), mac: mac.finalize().into_bytes().into() }
    }
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DigestKey({:?}, …)", self.id)
    }
}

/// What is stored of a secret: HMAC-SHA-256 under a key of the host's, with the id of that key.
///
/// As text: `hmac-sha256:KEY_ID:64 hex digits`. Equality takes the same time wherever two digests differ.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SecretDigest {
    key_id: String,
    mac: [u8; 32],
}

impl SecretDigest {
    /// The id of the key that it was made with.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }
}

impl PartialEq for SecretDigest {
    fn eq(&self, other: &Self) -> bool {
        self.key_id == other.key_id && bool::from(self.mac.ct_eq(&other.mac))
    }
}

impl Eq for SecretDigest {}

const PREFIX: &str = "hmac-sha256:";

impl fmt::Display for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}:", self.key_id)?;
        self.mac.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretDigest({:?}, …)", self.key_id)
    }
}

impl FromStr for SecretDigest {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let refuse = || Error::invalid("webhook", "is not hmac-sha256:KEY_ID:64 lower-case hex digits");
        let (key_id, hex) =
            text.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':')).ok_or_else(refuse)?;
        check_key_id(key_id)?;
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(refuse());
        }
        let mut mac = [0; 32];
        for (index, byte) in mac.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).map_err(|_| refuse())?;
        }
        Ok(SecretDigest { key_id: key_id.to_owned(), mac })
    }
}

impl TryFrom<String> for SecretDigest {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SecretDigest> for String {
    fn from(digest: SecretDigest) -> String {
        digest.to_string()
    }
}

fn check_key_id(id: &str) -> Result<()> {
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if (1..=32).contains(&id.len()) && plain {
        return Ok(());
    }
    Err(Error::invalid("key id", "is not 1 to 32 letters, digits, '-' or '_'"))
}

fn random_bytes() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| Error::backend("asking the system for randomness", e))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_keyed_and_round_trip() {
        let secret = Secret::new("0123456789abcdef").unwrap();
        let one = DigestKey::new("k1", [1; 32]).unwrap().digest(&secret);
        let two = DigestKey::new("k1", [2; 32]).unwrap().digest(&secret);
        assert_ne!(one, two);
        assert_eq!(one.to_string().parse::<SecretDigest>().unwrap(), one);
        // RFC 4231 style check with an independent value (Python's hmac module).
        assert_eq!(
            DigestKey::new("k", [0; 32]).unwrap().digest(&secret).to_string(),
            "hmac-sha256:k:b03e02918f3480efc80d834ebca9ba72243f34678b7cc4cd243ade1a070154a4"
        );
    }

    #[test]
    fn what_is_made_is_random_and_can_be_shown_on_purpose() {
        let (one, two) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert_ne!(one.reveal(), two.reveal());
        assert_eq!(Secret::new(one.reveal()).unwrap().reveal(), one.reveal());
        let key = DigestKey::generate("key-1_A").unwrap();
        assert_ne!(key.reveal(), DigestKey::generate("key-1_A").unwrap().reveal());
        let kept = DigestKey::new(key.id(), *key.reveal()).unwrap();
        assert_eq!((kept.id(), kept.digest(&one)), ("key-1_A", key.digest(&one)));
        assert_eq!(kept.digest(&one).key_id(), "key-1_A");
    }

    #[test]
    fn nothing_shows_a_secret() {
        let secret = Secret::new("super-secret-token").unwrap();
        let key = DigestKey::new("k", *b"super-secret-key-0123456789abcdef".first_chunk().unwrap()).unwrap();
        let shown = format!(
            "{secret:?} {key:?} {:?} {:?}",
            key.digest(&secret),
            Secret::new("short-super").unwrap_err()
        );
        assert!(!shown.contains("super"), "{shown}");
    }

    #[test]
    fn damaged_digests_are_refused() {
        let hex = "0".repeat(64);
        for bad in [
            "",
            "x",
            "hmac-sha256:",
            "hmac-sha256::0",
            &format!("hmac-sha256:k:{}", &hex[1..]),
            &format!("hmac-sha256:k k:{hex}"),
            &format!("hmac-sha256:k:{}é", &hex[2..]),
        ] {
            assert!(bad.parse::<SecretDigest>().is_err(), "{bad}");
        }
    }
}
