//! A directory as it stands: every name in it with what it is, its rights, its bytes, and when it was written to.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};

/// What stands at a path.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    inode: u64,
    /// Seconds and nanoseconds of the last write.
    written: (i64, i64),
    /// Of a file its bytes, of a link where it leads.
    content: Vec<u8>,
}

/// Everything under a directory, by path.
#[derive(Debug)]
pub(super) struct Tree(BTreeMap<PathBuf, Entry>);

impl Tree {
    pub(super) fn of(directory: &Path) -> io::Result<Tree> {
        let mut tree = BTreeMap::new();
        walk(directory, &mut tree)?;
        Ok(Tree(tree))
    }

    /// The first thing that has changed since.
    pub(super) fn difference(&self, directory: &Path) -> io::Result<Option<String>> {
        let now = Tree::of(directory)?;
        for (path, entry) in &self.0 {
            let change = match now.0.get(path) {
                None => "is gone",
                Some(found) if found.content != entry.content => "has other bytes",
                Some(found) if found.inode != entry.inode => "was replaced",
                Some(found) if found.mode != entry.mode => "has other rights",
                Some(found) if found.written != entry.written => "was written to",
                Some(_) => continue,
            };
            return Ok(Some(format!("{} {change}", path.display())));
        }
        let new = now.0.keys().find(|path| !self.0.contains_key(*path));
        Ok(new.map(|path| format!("{} was left behind", path.display())))
    }
}

fn walk(path: &Path, tree: &mut BTreeMap<PathBuf, Entry>) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    let content = if found.is_file() {
        fs::read(path)?
    } else if found.is_symlink() {
        fs::read_link(path)?.into_os_string().into_encoded_bytes()
    } else {
        Vec::new()
    };
    // A file that came and went leaves its directory written to, and nothing else.
    let written = if found.is_dir() { (0, 0) } else { (found.mtime(), found.mtime_nsec()) };
    tree.insert(path.to_owned(), Entry { mode: found.mode(), inode: found.ino(), written, content });
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), tree)?;
        }
    }
    Ok(())
}

/// Whether this process has every right.
pub(super) fn is_root() -> io::Result<bool> {
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}

/// Gives everything under a directory to the user that owns nothing, if that is possible.
pub(super) fn give_to_nobody(path: &Path) -> io::Result<()> {
    if !is_root()? {
        return Ok(());
    }
    let owner = Some(super::NOBODY);
    let found = fs::symlink_metadata(path)?;
    if found.is_symlink() {
        return lchown(path, owner, owner);
    }
    chown(path, owner, owner)?;
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            give_to_nobody(&entry?.path())?;
        }
    }
    Ok(())
}

pub(super) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Gives a directory back the rights without which it cannot be removed.
pub(super) fn make_removable(directory: &Path) -> io::Result<()> {
    set_mode(directory, 0o700)
}
