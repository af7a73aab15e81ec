//! No input makes the reader panic, and what was written is what is read.

#![allow(clippy::expect_used)]

use proptest::prelude::*;
use serde_json::Value;
use store_files::{Warning, parse_agent, parse_skill};

/// Both readers must return; what they say must be about a line that exists.
fn must_return(bytes: &[u8]) {
    let lines = 1 + bytes.iter().filter(|b| **b == b'\n').count();
    let in_file = |w: &[Warning]| w.iter().all(|w| w.line.is_none_or(|l| (1..=lines).contains(&l)));
    match parse_skill("some/dir/SKILL.md", bytes) {
        Ok(file) => {
            assert!(!file.name.is_empty());
            assert!(bytes.ends_with(file.body.as_bytes()));
            assert!(in_file(&file.warnings), "{:?}", file.warnings);
            // What goes into a store must be JSON that reads back.
            let text = serde_json::to_string(&file).expect("is JSON");
            assert_eq!(serde_json::from_str::<Value>(&text).expect("reads back")["name"], file.name);
        }
        Err(error) => {
            assert!(error.to_string().starts_with("some/dir/SKILL.md:"));
            assert!(error.line.is_none_or(|l| l >= 1));
        }
    }
    if let Ok(file) = parse_agent("some/agent.md", bytes) {
        assert!(in_file(&file.warnings), "{:?}", file.warnings);
    }
}

/// Pieces that YAML gives a meaning to.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "---\n",
            "...\n",
            "\n",
            "\r\n",
            "\r",
            "\t",
            " ",
            "  ",
            ": ",
            ":",
            "- ",
            "? ",
            "#",
            " #",
            "|",
            ">",
            "|-\n",
            ">+2\n",
            "[",
            "]",
            "{",
            "}",
            ",",
            "&a ",
            "*a",
            "*b",
            "!x ",
            "!!int ",
            "!!str ",
            "! ",
            "%",
            "@",
            "`",
            "'",
            "\"",
            "\\",
            "\\x",
            "<<: ",
            "name: ",
            "description: ",
            "tools: ",
            "metadata:\n",
            "name",
            "~",
            "null",
            "true",
            "0x",
            "1e",
            ".inf",
            ".nan",
            "99999999999999999999",
            "-",
            "\u{feff}",
            "\u{85}",
            "\u{2028}",
            "é",
            "🦀",
            "\u{7f}",
            "\u{7}",
            "%YAML 1.2\n",
            "%TAG ! x\n",
        ])
        .prop_map(str::to_owned),
        "[a-z]{1,4}",
        "[0-9]{1,3}",
    ]
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a JSON string")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        must_return(&bytes);
    }

    #[test]
    fn any_bytes_in_front_matter(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        must_return(&[b"---\n", bytes.as_slice(), b"\n---\nbody"].concat());
    }

    #[test]
    fn any_text_in_front_matter(text in "\\PC{0,200}") {
        must_return(format!("---\n{text}\n---\n").as_bytes());
    }

    #[test]
    fn any_pieces(pieces in prop::collection::vec(piece(), 0..60)) {
        must_return(format!("---\n{}\n---\nbody", pieces.concat()).as_bytes());
    }

    #[test]
    fn any_value_of_a_description(pieces in prop::collection::vec(piece(), 0..12)) {
        must_return(format!("---\nname: a\ndescription: {}\nother: 1\n---\nbody", pieces.concat()).as_bytes());
    }

    /// One line of printable text, whatever it is, is read or refused; if it is read as text that YAML did
    /// not take, it is read to the letter.
    #[test]
    fn a_repaired_line_is_kept_to_the_letter(value in "[a-zA-Z@%`*][ -~]{0,60}") {
        let text = format!("---\nname: a\ndescription: {value}\n---\n");
        if let Ok(file) = parse_skill("d/SKILL.md", text.as_bytes())
            && file.warnings.iter().any(|w| w.reason.contains("in quotes"))
            && file.warnings.iter().all(|w| !w.reason.contains("comment"))
        {
            prop_assert_eq!(file.description, value.trim());
        }
    }

    #[test]
    fn plain_words_round_trip(
        name in "[a-z][a-z0-9]{0,10}(-[a-z0-9]{1,8}){0,3}x",
        description in "[A-Z][a-z]{0,8}z( [A-Za-z(][a-z0-9,'.]{0,9}){0,12}\\.",
        body in "\\PC{0,40}(\r?\n\\PC{0,40}){0,5}",
        crlf in any::<bool>(),
    ) {
        let end = if crlf { "\r\n" } else { "\n" };
        let text = format!("---{end}name: {name}{end}description: {description}{end}---{end}{body}");
        let file = parse_skill("d/SKILL.md", text.as_bytes()).expect("is read");
        prop_assert_eq!(file.warnings, []);
        prop_assert_eq!((file.name, file.description, file.body), (name, description, body));
    }

    #[test]
    fn quoted_text_round_trips(
        name in "[^\\pC\\s]{1,20}",
        description in "[^\\pC\\s]\\PC{0,80}[^\\pC\\s]",
        key in "[a-z]{1,3}_[a-z]{1,3}",
        int in any::<i64>(),
        big in any::<u64>(),
        float in any::<f64>().prop_filter("finite", |f| f.is_finite()),
        body in "(\\PC|\n|\r){0,200}",
    ) {
        let float = serde_json::Number::from_f64(float).expect("finite");
        let text = format!(
            "\u{feff}---\nname: {}\ndescription: {}\n{key}: [{int}, {big}, {float}, true, ~]\n---  \n{body}",
            quoted(&name), quoted(&description),
        );
        let file = parse_agent("d/a.md", text.as_bytes()).expect("is read");
        prop_assert_eq!((file.name, file.description, file.body), (name, description, body));
        prop_assert_eq!(&file.extra[&key], &serde_json::json!([int, big, float, true, null]));
    }
}

/// Long front matter, of the sorts that a careless reader would take the square of.
#[test]
fn long_front_matter_does_not_take_long() {
    let repeat = |piece: &str| piece.repeat(200_000 / piece.len());
    let numbered = |f: fn(usize) -> String| (0..10_000).map(f).collect::<String>();
    let started = std::time::Instant::now();
    for yaml in [
        repeat("["),
        repeat("- "),
        repeat("a: "),
        repeat("a: b: c\n"),
        repeat("'"),
        repeat("&a "),
        repeat("\n"),
        repeat("# x\n"),
        repeat("{a: "),
        repeat("[a, "),
        repeat("? "),
        repeat("!x "),
        repeat(" \t"),
        format!("a: |\n{}", repeat("  x\n")),
        format!("a: \"{}\"\n", repeat("\\n")),
        format!("a: [{}]\n", repeat("x,")),
        numbered(|i| format!("k{i}: x: y\n")),
        numbered(|i| format!("k{i}: *none{i}\n")),
        numbered(|i| format!("k{i}: &a{i} 1\n")),
        numbered(|i| format!("k{i}: 1.{i}0\n")),
        format!("d: x: y\n{}", repeat("  more text\n")),
        format!("d: x: y\n{}", repeat("#\n")),
    ] {
        must_return(format!("---\n{yaml}\n---\n").as_bytes());
    }
    // Seconds in a debug build on a busy machine; minutes if something is quadratic.
    assert!(started.elapsed().as_secs() < 40, "{:?}", started.elapsed());
}
