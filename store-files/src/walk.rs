//! Finds the definition files below a directory and reads them.
//!
//! The order is that of the paths, so that two runs over one tree say the same in the same order. Hidden
//! files and directories (`.git`) are left out. A symbolic link is followed, but no directory is entered
//! twice, and none that holds the one the walk began in: cycles end. A file reached in two ways is
//! reported once, under its own path where the walk comes by it. What cannot be read is reported and does
//! not end the walk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::file::{AgentFile, FileError, SkillFile, parse_agent, parse_skill};
use crate::front_matter;

/// The largest file that is read.
pub const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;
/// How many directories below the first a walk goes down.
pub const MAX_WALK_DEPTH: usize = 32;
/// How many files and directories a walk looks at before it gives up.
pub const MAX_WALK_ENTRIES: usize = 200_000;

/// What to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `SKILL.md` in any case, in any directory.
    Skills,
    /// `*.md`, in any directory, other than `SKILL.md`.
    Agents,
}

/// A file that was left out, and why. Not an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// What a walk found. All three are sorted by path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Walk {
    /// The files, each once.
    pub files: Vec<PathBuf>,
    /// What could not be looked at.
    pub errors: Vec<FileError>,
    /// What was left out.
    pub skipped: Vec<Skipped>,
}

/// The definitions in one directory. All three are sorted by path.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Collection<T> {
    /// The definitions, no two of one name.
    pub files: Vec<T>,
    /// What was refused or could not be read.
    pub refused: Vec<FileError>,
    /// What was left out.
    pub skipped: Vec<Skipped>,
}

impl<T> Default for Collection<T> {
    fn default() -> Self {
        Self { files: Vec::new(), refused: Vec::new(), skipped: Vec::new() }
    }
}

/// What the files of skills and of agents have in common.
pub trait DefinitionFile {
    /// Its name.
    fn name(&self) -> &str;
    /// Its file.
    fn path(&self) -> &Path;
}

impl DefinitionFile for SkillFile {
    fn name(&self) -> &str {
        &self.name
    }
    fn path(&self) -> &Path {
        &self.path
    }
}

impl DefinitionFile for AgentFile {
    fn name(&self) -> &str {
        &self.name
    }
    fn path(&self) -> &Path {
        &self.path
    }
}

/// Finds the files of a kind below `dir`, without reading them. The paths begin with `dir`.
pub fn walk(dir: impl AsRef<Path>, kind: Kind) -> Walk {
    let dir = dir.as_ref();
    let mut walk = Walk::default();
    let root = match fs::canonicalize(dir).and_then(|root| fs::metadata(&root).map(|m| (root, m))) {
        Ok((root, metadata)) if metadata.is_dir() => root,
        Ok(_) => {
            walk.errors.push(FileError::new(dir, None, "not a directory"));
            return walk;
        }
        Err(e) => {
            walk.errors.push(FileError::new(dir, None, format!("cannot be opened: {e}")));
            return walk;
        }
    };
    let mut walker = Walker { kind, root, seen: BTreeSet::new(), entries: 0, links: BTreeSet::new(), walk };
    walker.directory(dir, 0);
    // Links come last, so that what lies in the tree is reported under its own path.
    while let Some((path, depth)) = walker.links.pop_first() {
        walker.link(&path, depth);
    }
    let Walker { mut walk, .. } = walker;
    walk.files.sort();
    walk.errors.sort_by(|a, b| (&a.path, &a.reason).cmp(&(&b.path, &b.reason)));
    walk.skipped.sort_by(|a, b| a.path.cmp(&b.path));
    walk
}

/// Reads a file of at most [`MAX_FILE_BYTES`].
pub fn read_file(path: impl AsRef<Path>) -> Result<Vec<u8>, FileError> {
    let path = path.as_ref();
    let cannot = |e: std::io::Error| FileError::new(path, None, format!("cannot be read: {e}"));
    // Opening a pipe would wait for a writer.
    if !fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(FileError::new(path, None, "not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::new(path, None, format!("longer than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

/// Reads every skill below `dir`. Of two with one name the second is refused.
pub fn read_skills(dir: impl AsRef<Path>) -> Collection<SkillFile> {
    collect(dir.as_ref(), Kind::Skills, |path, bytes| parse_skill(path, bytes))
}

/// Reads every agent below `dir`. Of two with one name the second is refused. A `README.md` without front
/// matter is skipped.
pub fn read_agents(dir: impl AsRef<Path>) -> Collection<AgentFile> {
    collect(dir.as_ref(), Kind::Agents, |path, bytes| parse_agent(path, bytes))
}

fn collect<T: DefinitionFile>(
    dir: &Path,
    kind: Kind,
    parse: impl Fn(&Path, &[u8]) -> Result<T, FileError>,
) -> Collection<T> {
    let Walk { files, errors, skipped } = walk(dir, kind);
    let mut collection = Collection { files: Vec::new(), refused: errors, skipped };
    let mut names: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in files {
        let read = read_file(&path).and_then(|bytes| {
            if kind == Kind::Agents && is_named(&path, "readme.md") && has_no_front_matter(&bytes) {
                return Ok(None);
            }
            parse(&path, &bytes).map(Some)
        });
        match read {
            Ok(None) => collection.skipped.push(Skipped { path, reason: "no front matter".to_owned() }),
            Ok(Some(file)) => match names.get(file.name()) {
                Some(first) => {
                    let reason = format!("the name `{}` is taken by {}", file.name(), first.display());
                    collection.refused.push(FileError::new(path, None, reason));
                }
                None => {
                    names.insert(file.name().to_owned(), path);
                    collection.files.push(file);
                }
            },
            Err(error) => collection.refused.push(error),
        }
    }
    collection.refused.sort_by(|a, b| (&a.path, &a.reason).cmp(&(&b.path, &b.reason)));
    collection.skipped.sort_by(|a, b| a.path.cmp(&b.path));
    collection
}

fn has_no_front_matter(bytes: &[u8]) -> bool {
    front_matter::split(bytes).is_ok_and(|parts| parts.yaml.is_none())
}

fn is_named(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|n| n.eq_ignore_ascii_case(name))
}

struct Walker {
    kind: Kind,
    root: PathBuf,
    /// Directories entered and linked files found, by their real paths.
    seen: BTreeSet<PathBuf>,
    entries: usize,
    links: BTreeSet<(PathBuf, usize)>,
    walk: Walk,
}

impl Walker {
    fn error(&mut self, path: &Path, reason: impl Into<String>) {
        self.walk.errors.push(FileError::new(path, None, reason));
    }

    /// Goes through a directory. The recursion is at most [`MAX_WALK_DEPTH`] deep.
    fn directory(&mut self, dir: &Path, depth: usize) {
        match fs::canonicalize(dir) {
            Ok(real) => {
                if !self.seen.insert(real) {
                    return;
                }
            }
            Err(e) => return self.error(dir, format!("cannot be opened: {e}")),
        }
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) => return self.error(dir, format!("cannot be opened: {e}")),
        };
        let mut paths = Vec::new();
        for entry in entries {
            if self.entries >= MAX_WALK_ENTRIES {
                return self
                    .error(dir, format!("not searched: more than {MAX_WALK_ENTRIES} files and directories"));
            }
            self.entries += 1;
            match entry {
                Ok(entry) if entry.file_name().as_encoded_bytes().starts_with(b".") => {}
                Ok(entry) => match entry.file_type() {
                    Ok(kind) => paths.push((entry.path(), kind)),
                    Err(e) => self.error(&entry.path(), format!("cannot be looked at: {e}")),
                },
                Err(e) => self.error(dir, format!("cannot be listed: {e}")),
            }
        }
        paths.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, kind) in paths {
            if kind.is_symlink() {
                self.links.insert((path, depth));
            } else if kind.is_dir() {
                self.below(&path, depth);
            } else {
                self.file(path, kind.is_file());
            }
        }
    }

    fn below(&mut self, dir: &Path, depth: usize) {
        if depth >= MAX_WALK_DEPTH {
            self.error(dir, format!("not searched: more than {MAX_WALK_DEPTH} directories down"));
        } else {
            self.directory(dir, depth + 1);
        }
    }

    fn link(&mut self, path: &Path, depth: usize) {
        let target = fs::canonicalize(path).and_then(|real| fs::metadata(&real).map(|m| (real, m)));
        match target {
            Ok((real, metadata)) if metadata.is_dir() => {
                if self.root.starts_with(&real) {
                    let reason = "a link to a directory that holds this one";
                    self.walk.skipped.push(Skipped { path: path.to_owned(), reason: reason.to_owned() });
                } else {
                    self.below(path, depth);
                }
            }
            Ok((real, metadata)) => {
                // A file in the tree is found there, and a second link to one outside adds nothing.
                let found = real.parent().is_some_and(|p| self.seen.contains(p)) && self.wants(&real);
                if self.wants(path) && !found && self.seen.insert(real) {
                    self.file(path.to_owned(), metadata.is_file());
                }
            }
            Err(e) if self.wants(path) || path.extension().is_none() => {
                self.error(path, format!("a link that leads nowhere: {e}"));
            }
            Err(_) => {}
        }
    }

    fn wants(&self, path: &Path) -> bool {
        match self.kind {
            Kind::Skills => is_named(path, "skill.md"),
            Kind::Agents => path.extension().is_some_and(|e| e.eq_ignore_ascii_case("md")),
        }
    }

    fn file(&mut self, path: PathBuf, is_regular: bool) {
        if !self.wants(&path) {
        } else if self.kind == Kind::Agents && is_named(&path, "skill.md") {
            self.walk.skipped.push(Skipped { path, reason: "a skill, not an agent".to_owned() });
        } else if is_regular {
            self.walk.files.push(path);
        } else {
            self.error(&path, "not a regular file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(files: &[(&str, &str)]) -> Self {
            let tree = Self(tempfile::tempdir().expect("a directory"));
            for (path, text) in files {
                tree.write(path, text);
            }
            tree
        }

        fn root(&self) -> &Path {
            self.0.path()
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.root().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            fs::write(path, text).expect("written");
        }

        fn short(&self, path: &Path) -> String {
            path.strip_prefix(self.root()).expect("below the root").display().to_string()
        }

        fn found(&self, kind: Kind) -> Vec<String> {
            walk(self.root(), kind).files.iter().map(|p| self.short(p)).collect()
        }

        #[cfg(unix)]
        fn link(&self, target: &str, path: &str) {
            std::os::unix::fs::symlink(self.root().join(target), self.root().join(path)).expect("linked");
        }
    }

    const FILE: &str = "---\ndescription: x\n---\n";

    #[test]
    fn finds_skills_in_order() {
        let tree = Tree::new(&[
            ("b/SKILL.md", FILE),
            ("a/skill.md", FILE),
            ("a/deep/er/Skill.MD", FILE),
            ("a/other.md", FILE),
            ("SKILL.md", FILE),
            (".git/x/SKILL.md", FILE),
            ("c/.hidden/SKILL.md", FILE),
            ("d/SKILL.md.bak", FILE),
            ("e/SKILL.md/inside.md", FILE),
        ]);
        assert_eq!(tree.found(Kind::Skills), ["SKILL.md", "a/deep/er/Skill.MD", "a/skill.md", "b/SKILL.md"]);
    }

    #[test]
    fn finds_agents_in_order() {
        let tree = Tree::new(&[
            ("z.md", FILE),
            ("team/a.MD", FILE),
            ("._z.md", FILE),
            ("notes.txt", FILE),
            ("s/SKILL.md", FILE),
        ]);
        assert_eq!(tree.found(Kind::Agents), ["team/a.MD", "z.md"]);
        let skipped = walk(tree.root(), Kind::Agents).skipped;
        assert_eq!(tree.short(&skipped[0].path), "s/SKILL.md");
    }

    #[test]
    fn no_directory() {
        let tree = Tree::new(&[("file.md", FILE)]);
        let errors = walk(tree.root().join("missing"), Kind::Skills).errors;
        assert!(errors[0].reason.starts_with("cannot be opened"), "{errors:?}");
        assert_eq!(walk(tree.root().join("file.md"), Kind::Skills).errors[0].reason, "not a directory");
    }

    #[cfg(unix)]
    #[test]
    fn links() {
        let outside = Tree::new(&[("far/SKILL.md", FILE), ("one.md", FILE)]);
        let tree = Tree::new(&[("z/a/SKILL.md", FILE)]);
        tree.link(".", "loop");
        tree.link("z", "z/a/up");
        tree.link("z", "again");
        tree.link("/", "everything");
        tree.link("nowhere", "gone");
        tree.link("nowhere.txt", "gone.txt");
        std::os::unix::fs::symlink(outside.root().join("far"), tree.root().join("linked")).expect("linked");
        std::os::unix::fs::symlink(outside.root().join("far"), tree.root().join("linked-2")).expect("linked");
        assert_eq!(tree.found(Kind::Skills), ["linked/SKILL.md", "z/a/SKILL.md"]);
        let walked = walk(tree.root(), Kind::Skills);
        let skipped: Vec<_> = walked.skipped.iter().map(|s| tree.short(&s.path)).collect();
        assert_eq!(skipped, ["everything", "loop"]);
        let errors: Vec<_> = walked.errors.iter().map(|s| tree.short(&s.path)).collect();
        assert_eq!(errors, ["gone"]);

        let tree = Tree::new(&[("a/x.md", FILE)]);
        tree.link("a/x.md", "a-link.md");
        for name in ["far-1.md", "far-2.md"] {
            std::os::unix::fs::symlink(outside.root().join("one.md"), tree.root().join(name))
                .expect("linked");
        }
        assert_eq!(tree.found(Kind::Agents), ["a/x.md", "far-1.md"]);
    }

    #[test]
    fn depth_is_bounded() {
        let tree = Tree::new(&[]);
        tree.write(&format!("{}SKILL.md", "d/".repeat(MAX_WALK_DEPTH)), FILE);
        tree.write(&format!("{}SKILL.md", "d/".repeat(MAX_WALK_DEPTH + 1)), FILE);
        let walked = walk(tree.root(), Kind::Skills);
        assert_eq!(walked.files.len(), 1);
        assert_eq!(walked.errors.len(), 1);
        assert!(walked.errors[0].reason.contains("directories down"));
    }

    #[test]
    fn size_is_bounded() {
        let tree = Tree::new(&[("a/SKILL.md", FILE)]);
        let path = tree.root().join("a/SKILL.md");
        let file = File::options().write(true).open(&path).expect("opens");
        file.set_len(MAX_FILE_BYTES).expect("grows");
        assert_eq!(read_file(&path).map(|b| b.len() as u64), Ok(MAX_FILE_BYTES));
        file.set_len(MAX_FILE_BYTES + 1).expect("grows");
        assert_eq!(read_skills(tree.root()).refused[0].reason, "longer than 8388608 bytes");
        assert_eq!(read_file(tree.root()).expect_err("a directory").reason, "not a regular file");
    }

    #[test]
    fn collections() {
        let tree = Tree::new(&[
            ("a/SKILL.md", "---\nname: one\ndescription: x\n---\n"),
            ("b/SKILL.md", "---\nname: [x]\n---\n"),
            ("c/SKILL.md", "---\nname: one\n---\n"),
            ("d/SKILL.md", FILE),
        ]);
        let skills = read_skills(tree.root());
        assert_eq!(skills.files.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["one", "d"]);
        let refused: Vec<_> = skills.refused.iter().map(|e| (tree.short(&e.path), e.line)).collect();
        assert_eq!(refused, [("b/SKILL.md".to_owned(), Some(2)), ("c/SKILL.md".to_owned(), None)]);
        let first = tree.root().join("a/SKILL.md");
        assert_eq!(skills.refused[1].reason, format!("the name `one` is taken by {}", first.display()));
    }

    #[test]
    fn readme_is_skipped_only_without_front_matter() {
        let tree = Tree::new(&[
            ("README.md", "# Agents\n"),
            ("notes.md", "# Notes\n"),
            ("team/readme.md", "---\nname: reader\n---\n"),
            ("team/sub/ReadMe.md", "---\nname: reader\n"),
        ]);
        let agents = read_agents(tree.root());
        assert_eq!(agents.files.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), ["reader"]);
        let refused: Vec<_> = agents.refused.iter().map(|e| tree.short(&e.path)).collect();
        assert_eq!(refused, ["notes.md", "team/sub/ReadMe.md"]);
        assert_eq!(agents.skipped.len(), 1);
        assert_eq!(agents.skipped[0].reason, "no front matter");
    }
}
