//! What a URL says, before anybody asks whether there is such an engine.

use store_api::{Error, Result};

/// A URL, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location<'a> {
    /// The engine's name; a bare path has none.
    pub(crate) scheme: Option<&'a str>,
    /// What follows: a path, or nothing.
    pub(crate) rest: &'a str,
}

/// Takes a URL apart.
///
/// # Errors
/// `InvalidInput` naming `url` when it is empty, or has a part that looks like more than a path.
pub(crate) fn parse(url: &str) -> Result<Location<'_>> {
    let location = match url.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => Location { scheme: Some(scheme), rest },
        _ => Location { scheme: None, rest: url },
    };
    if location.scheme.is_none() && location.rest.trim().is_empty() {
        return Err(Error::invalid("url", "is empty"));
    }
    Ok(location)
}

/// A letter, then at least one more letter, digit, `+`, `-` or `.`, as RFC 3986 has it; but one letter alone is the
/// name of a drive.
fn is_scheme(text: &str) -> bool {
    text.len() > 1
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// Checks that `path` means the same to everybody: to the letter, one file.
///
/// # Errors
/// `InvalidInput` naming `url`.
pub(crate) fn check_path(path: &str) -> Result<()> {
    let refuse = |reason: &str| Err(Error::invalid("url", format!("{path:?} {reason}")));
    if path.trim().is_empty() {
        return refuse("is no path: name a file");
    }
    if path.contains('\0') {
        return refuse("has the character U+0000");
    }
    if path.starts_with("//") {
        return refuse("starts with \"//\": the path follows the scheme's colon at once");
    }
    if path.starts_with(':') {
        return refuse("starts with a colon: for a store without a file use \"memory:\"");
    }
    if path.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("file:")) {
        return refuse("is a URL itself: give the path alone");
    }
    // `\\?\` is how Windows spells a path that is longer than it likes.
    if path.strip_prefix(r"\\?\").unwrap_or(path).contains('?') {
        return refuse("has a \"?\": query strings are not understood, use the open options");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn schemes_and_paths_are_told_apart() {
        let cases = [
            ("sqlite:agents.db", Some("sqlite"), "agents.db"),
            ("sqlite:/var/lib/agents.db", Some("sqlite"), "/var/lib/agents.db"),
            (r"sqlite:C:\agents.db", Some("sqlite"), r"C:\agents.db"),
            ("memory:", Some("memory"), ""),
            ("postgres://host/db", Some("postgres"), "//host/db"),
            ("agents.db", None, "agents.db"),
            ("./odd:name.db", None, "./odd:name.db"),
            (r"C:\agents.db", None, r"C:\agents.db"),
            ("c:agents.db", None, "c:agents.db"),
            (":memory:", None, ":memory:"),
            ("1st:agents.db", None, "1st:agents.db"),
        ];
        for (url, scheme, rest) in cases {
            assert_eq!(parse(url).unwrap(), Location { scheme, rest }, "{url}");
        }
        assert!(parse("").is_err() && parse(" \n").is_err());
    }

    #[test]
    fn what_looks_like_more_than_a_path_is_refused() {
        for (path, part) in [
            ("", "name a file"),
            (" ", "name a file"),
            ("a\0b", "U+0000"),
            ("//host/agents.db", "colon at once"),
            (":memory:", "memory:"),
            ("file:agents.db", "path alone"),
            ("FILE:agents.db", "path alone"),
            ("agents.db?mode=ro", "query strings"),
        ] {
            let error = check_path(path).unwrap_err().to_string();
            assert!(error.starts_with("invalid url: ") && error.contains(part), "{path}: {error}");
        }
        for path in ["agents.db", "/a b/ü#%20.db", r"C:\agents.db", r"\\?\C:\agents.db", "file", "fil\u{e9}:"]
        {
            assert!(check_path(path).is_ok(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_is_lost(url in "([a-z]{0,8}:)?[a-z:/?#\\\\. é\u{0}]{0,12}|\\PC*") {
            if let Ok(Location { scheme, rest }) = parse(&url) {
                let joined = scheme.map_or(rest.to_owned(), |scheme| format!("{scheme}:{rest}"));
                prop_assert_eq!(joined.as_str(), url.as_str());
                drop(check_path(rest));
            }
        }
    }
}
