//! Each skill's work on a page made for it.

use super::*;

fn day() -> NaiveDate {
    "2026-10-30".parse().unwrap()
}

fn library(pages: &[(&str, &str)]) -> Library {
    let pages: Vec<_> = pages.iter().map(|(path, text)| Page::parse(path, (*text).to_owned())).collect();
    let files = pages.iter().map(|page| page.path.clone()).chain(["images/a.png".to_owned()]).collect();
    Library { pages, files, refused: vec![] }
}

fn run(name: &str, text: &str) -> Sheet {
    let library = library(&[("dir/page.md", text), ("other.md", "# Other\n")]);
    handler(name)(&library.pages[0], &library, day())
}

fn findings(sheet: &Sheet) -> Vec<(usize, &str)> {
    sheet.findings.iter().map(|f| (f.line, f.text.as_str())).collect()
}

#[test]
fn words() {
    let sheet = run("count-words", "---\nname: x\n---\none two\n```\nthree\n```\n");
    let counts: Vec<_> = sheet.counts.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    assert_eq!(counts, [("characters", 18), ("lines", 4), ("pages", 1), ("words", 3), ("words in code", 2)]);
    assert_eq!(run("unheard-of", "x"), run("count-words", "x"));
}

#[test]
fn links() {
    let sheet = run(
        "check-links",
        "# Here\n[a](../other.md#other) [b](#here) [c](https://x.example) ![d](../images/a.png)\n\
         [e](other.md)\n[f](../other.md#none)\n[g](../../x.md) [h](mailto:a@b)\n",
    );
    assert_eq!((sheet.counts["links"], sheet.counts["links elsewhere"]), (6, 2));
    assert_eq!(
        findings(&sheet),
        [
            (3, "other.md: there is no such file"),
            (4, "../other.md#none: there is no such heading"),
            (5, "../../x.md: leads out of the collection"),
        ]
    );
}

#[test]
fn todos() {
    let sheet = run("collect-todos", "<!-- TODO(ana): map -->\nAUTODOC\nx // FIXME: y\nXXX z\n");
    assert_eq!(findings(&sheet), [(1, "TODO(ana): map"), (3, "FIXME: y"), (4, "XXX z")]);
    assert_eq!((sheet.counts["for ana"], sheet.counts["for nobody"]), (1, 2));
}

#[test]
fn headings() {
    let sheet =
        run("lint-headings", "# One\n## A\n#### Deep\n## B.\n## A\n### A\n## C\n### A\n# Two\n## A\n");
    assert_eq!(
        findings(&sheet),
        [(1, "title: 2 headings of level 1"), (3, "jump: Deep"), (4, "stop: B."), (5, "twin: A")]
    );
}

#[test]
fn front_matter() {
    let text = "---\ntitle: T\nreviewed: 2026-01-01\naudience: all\n---\n# U\n";
    assert_eq!(
        findings(&run("audit-front-matter", text)),
        [
            (1, "no `owner`"),
            (4, "`audience` is no key of ours"),
            (3, "not reviewed since 2026-01-01"),
            (6, "the title is `T`, the heading `U`"),
        ]
    );
    let future = "---\ntitle: U\nowner: ana\nreviewed: 2026-12-01\n---\n# U\n";
    assert_eq!(findings(&run("audit-front-matter", future)), [(4, "reviewed in the future: 2026-12-01")]);
    assert_eq!(findings(&run("audit-front-matter", "# U\n")).len(), 1);
}

#[test]
fn readability() {
    let long = "word ".repeat(41);
    let text = format!("# H\nShort one. Internationalisation!\n\n{long}\n\n| a table {long}{long}|\n");
    let sheet = run("measure-readability", &text);
    assert_eq!((sheet.counts["sentences"], sheet.counts["long words"]), (3, 1));
    assert_eq!(findings(&sheet), [(4, "a line of 205 characters"), (4, "a sentence of 41 words")]);
}

#[test]
fn code_blocks_and_contents() {
    let text = "# A\n## B\n## C\n```rust\nx\n```\n~~~\ny\n";
    let sheet = run("list-code-blocks", text);
    assert_eq!((sheet.counts["blocks"], sheet.counts["in rust"]), (2, 1));
    assert_eq!(findings(&sheet), [(7, "a block without a language"), (7, "a block that is never closed")]);
    assert_eq!(run("table-of-contents", text).counts["entries"], 2);
}

#[test]
fn sheets_add_up_and_stay_small() {
    let mut sheet = run("collect-todos", "TODO(ana): a\n");
    sheet.merge(run("collect-todos", &"TODO(ana): b\n".repeat(1500)));
    assert_eq!((sheet.counts["for ana"], sheet.findings.len(), sheet.more), (1501, 1000, 501));
}
