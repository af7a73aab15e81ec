//! Exports and imports: all of it arrives, and nothing arrives of what was damaged.

use crate::support::Bench;

/// A store with something in every seam, and its export.
fn exported() -> (Bench, String) {
    let bench = Bench::new();
    bench.skill("report");
    bench.json(&["skill", "append", "report", "--by", "ana", "--version-id", "v1"]);
    bench.json(&["budget", "add", "1", "--caller", "ana", "--meter", "usd", "--key", "k"]);
    bench.json(&["run", "start", "r1", "--caller", "ana"]);
    bench.json(&["run", "event", "r1", "step"]);
    bench.json(&["checkpoint", "save", "r1", "1"]);
    let text = bench.text(&["export"]);
    (bench, text)
}

#[test]
fn what_was_exported_is_imported() {
    let (bench, text) = exported();
    let file = bench.path("agents.jsonl").display().to_string();
    assert_eq!(bench.text(&["export", &file]), "records written: 8\n");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    let header: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((&header["engine"], &header["records"]), (&"sqlite".into(), &8.into()));
    assert_eq!(header["counts"]["skills"], 2);
    assert_eq!(bench.fails(4, &["export", &file])["kind"], "already_exists");

    let other = Bench::new();
    assert_eq!(other.json(&["import", &file])["records"]["skill"], 1);
    assert_eq!(other.text(&["export"]), text);
    assert_eq!(other.fails(4, &["import", &file])["kind"], "conflict");
    let third = Bench::new();
    assert_eq!(third.run_with(&["import", "-"], &text).out, "records stored: 8\n");
    assert_eq!(third.text(&["export"]), text);
    assert_eq!(third.fails(3, &["import", "/no/such/file"])["what"], "file");
}

/// Imports a damaged text: refused with its line, and the store stays empty.
fn refused(bench: &Bench, text: &str, line: usize) {
    let ran = bench.run_with(&["import", "-"], text);
    assert_eq!(ran.code, 9, "{}", ran.err);
    assert!(ran.err.contains(&format!("line {line}: ")), "line {line}: {}", ran.err);
    assert_eq!(bench.text(&["skill", "list"]), "none\n");
}

#[test]
fn truncated_exports_are_refused() {
    let (_, text) = exported();
    let bench = Bench::new();
    let lines: Vec<&str> = text.lines().collect();
    for kept in 0..lines.len() {
        let cut: String = lines[..kept].iter().map(|line| format!("{line}\n")).collect();
        refused(&bench, &cut, kept + 1);
        refused(&bench, &format!("{cut}{}", &lines[kept][..lines[kept].len() / 2]), kept + 1);
    }
    refused(&bench, text.trim_end(), lines.len());
}

#[test]
fn altered_exports_are_refused_with_the_line() {
    let (_, text) = exported();
    let bench = Bench::new();
    let lines: Vec<&str> = text.lines().collect();
    let joined = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    for at in 0..lines.len() {
        let altered = lines[at].replacen(|c: char| c.is_ascii_digit() && c != '7', "7", 99);
        let mut changed = lines.clone();
        changed[at] = &altered;
        refused(&bench, &joined(&changed), at + 1);
        let mut lost = lines.clone();
        lost.remove(at);
        refused(&bench, &joined(&lost), at + 1);
        let mut twice = lines.clone();
        twice.insert(at, lines[at]);
        refused(&bench, &joined(&twice), at + 2);
    }
    refused(&bench, &format!("{text}\n"), lines.len() + 1);
    let ran = bench.run_with(&["import", "-"], &text);
    assert_eq!(ran.code, 0, "{}", ran.err);
}

#[test]
fn exports_are_compressed_as_their_names_say() {
    let (bench, text) = exported();
    for name in ["a.jsonl.gz", "a.jsonl.zst"] {
        if name.ends_with(".zst") && !cfg!(feature = "zstd") {
            continue;
        }
        let file = bench.path(name).display().to_string();
        bench.text(&["export", &file]);
        let packed = std::fs::read(&file).unwrap();
        assert!(packed.len() < text.len());
        let other = Bench::new();
        other.json(&["import", &file]);
        assert_eq!(other.text(&["export"]), text);

        // Cut off or with one bit flipped anywhere, it is refused, and nothing arrives.
        let empty = Bench::new();
        let refused = |packed: &[u8]| {
            std::fs::write(&file, packed).unwrap();
            let ran = empty.run(&["import", &file]);
            assert_eq!(ran.code, 9, "{}", ran.err);
            assert!(ran.err.contains("line "), "{}", ran.err);
            assert_eq!(empty.text(&["skill", "list"]), "none\n");
        };
        let step = packed.len() / 7;
        for at in (20..packed.len()).step_by(step) {
            refused(&packed[..at]);
            let mut altered = packed.clone();
            altered[at] ^= 1;
            refused(&altered);
        }
        refused(&packed[..packed.len() - 1]);
        refused(text.as_bytes());
    }
}

/// A small file that grows to a line without end is refused as soon as the line is too long.
#[test]
fn a_decompression_bomb_is_a_line_that_is_too_long() {
    let bench = Bench::new();
    let file = std::fs::File::create(bench.path("bomb.gz")).unwrap();
    let mut packer = flate2::write::GzEncoder::new(file, flate2::Compression::best());
    let zeros = vec![b'0'; 1 << 20];
    for _ in 0..130 {
        std::io::Write::write_all(&mut packer, &zeros).unwrap();
    }
    packer.finish().unwrap();
    let file = bench.path("bomb.gz").display().to_string();
    assert!(std::fs::metadata(&file).unwrap().len() < 1 << 20);
    let error = bench.fails(9, &["import", &file]);
    assert!(error["message"].as_str().unwrap().contains("line 1: line: is longer than"), "{error}");
}
