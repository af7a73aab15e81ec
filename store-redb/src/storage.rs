//! What lies between redb and the file: whether a flush is one, and a view of the file that writes nothing.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::path::PathBuf;

use parking_lot::Mutex;
use redb::{BackendError, StorageBackend};
use safe_files::recovery::mark_because;

type Locked<T> = std::result::Result<T, BackendError>;

/// The locks of a storage are those of the one below it, in the field of this name.
macro_rules! passes_locks_on {
    ($below:ident) => {
        fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
            self.$below.try_lock_range(start, end)
        }
        fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
            self.$below.try_lock_shared_range(start, end)
        }
        fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
            self.$below.lock_range(start, end)
        }
        fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
            self.$below.lock_shared_range(start, end)
        }
        fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
            self.$below.unlock_range(start, end)
        }
        fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
            self.$below.query_lock_range(start, end)
        }
    };
}

/// The storage of an open store.
#[derive(Debug)]
pub(crate) struct Storage<B> {
    pub(crate) inner: B,
    /// The path of the store.
    pub(crate) path: PathBuf,
    /// Whether a flush waits for the disk. Without it what was written survives the process, not the power.
    pub(crate) flushes: bool,
}

impl<B: StorageBackend> Storage<B> {
    /// Flushes. When that fails the next open is told, because what is on disk is not what can be read (law DUR-2).
    fn flush(&self) -> io::Result<()> {
        self.inner.sync_data().map_err(|e| io::Error::new(e.kind(), mark_because(&self.path, e.to_string())))
    }
}

impl<B: StorageBackend> StorageBackend for Storage<B> {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.flushes { self.flush() } else { Ok(()) }
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }
    /// Flushes in any case: what was acknowledged is on disk when a store is closed.
    fn close(&self) -> io::Result<()> {
        let flushed = if self.flushes { Ok(()) } else { self.flush() };
        self.inner.close().and(flushed)
    }
    passes_locks_on!(inner);
}

/// A file that redb is not to lock, because its owner has it locked already.
#[derive(Debug)]
pub(crate) struct Unlocked<B>(pub(crate) B);

impl<B: StorageBackend> StorageBackend for Unlocked<B> {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// How much of the file is copied at once when a part of it is written to.
const BLOCK: u64 = 4096;

/// A file as it stands, with writes kept in memory: redb can check and repair it here, and the file is not touched.
#[derive(Debug)]
pub(crate) struct Overlay<B> {
    file: B,
    layers: Mutex<Layers>,
}

#[derive(Debug)]
struct Layers {
    /// How much of the file shows through. What was cut off once reads as zeros when the length grows again.
    shown: u64,
    len: u64,
    /// Blocks that were written to, by number.
    written: BTreeMap<u64, Vec<u8>>,
}

impl<B: StorageBackend> Overlay<B> {
    pub(crate) fn over(file: B) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Overlay { file, layers: Mutex::new(Layers { shown: len, len, written: BTreeMap::new() }) })
    }
}

impl Layers {
    /// The file's bytes from `offset` on, zeros where it has none.
    fn read_file(&self, file: &impl StorageBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(self.shown.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (there, beyond) = out.split_at_mut(there);
        beyond.fill(0);
        file.read(offset, there)
    }

    fn block(&mut self, file: &impl StorageBackend, number: u64) -> io::Result<&mut Vec<u8>> {
        if !self.written.contains_key(&number) {
            let mut block = vec![0; usize::try_from(BLOCK).map_err(io::Error::other)?];
            self.read_file(file, number * BLOCK, &mut block)?;
            self.written.insert(number, block);
        }
        self.written.get_mut(&number).ok_or_else(|| io::Error::other("a block is gone"))
    }

    /// The blocks that `length` bytes from `offset` on touch: number, begin inside the block, bytes.
    fn blocks(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let at = offset + done as u64;
            let begin = (at % BLOCK) as usize;
            let part = (length - done).min(BLOCK as usize - begin);
            done += part;
            (part > 0).then_some((at / BLOCK, begin, part))
        })
    }
}

impl<B: StorageBackend> StorageBackend for Overlay<B> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.layers.lock().len)
    }

    fn read(&self, offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        let layers = self.layers.lock();
        if offset.saturating_add(out.len() as u64) > layers.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, begin, part) in Layers::blocks(offset, out.len()) {
            let (now, later) = out.split_at_mut(part);
            match layers.written.get(&number).and_then(|block| block.get(begin..begin + part)) {
                Some(block) => now.copy_from_slice(block),
                None => layers.read_file(&self.file, number * BLOCK + begin as u64, now)?,
            }
            out = later;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut layers = self.layers.lock();
        layers.shown = layers.shown.min(len);
        layers.written.retain(|number, _| number * BLOCK < len);
        if len < layers.len
            && let Some(block) = layers.written.get_mut(&(len / BLOCK))
            && let Some(cut) = block.get_mut((len % BLOCK) as usize..)
        {
            cut.fill(0);
        }
        layers.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, mut data: &[u8]) -> io::Result<()> {
        let mut layers = self.layers.lock();
        for (number, begin, part) in Layers::blocks(offset, data.len()) {
            let (now, later) = data.split_at(part);
            if let Some(block) = layers.block(&self.file, number)?.get_mut(begin..begin + part) {
                block.copy_from_slice(now);
            }
            data = later;
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    passes_locks_on!(file);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use redb::backends::FileBackend;
    use std::io::Write;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// An overlay behaves as a plain vector of bytes does, and the file below stays as it was.
        #[test]
        fn an_overlay_reads_what_was_written(
            below in proptest::collection::vec(any::<u8>(), 0..10_000),
            steps in proptest::collection::vec((0usize..12_000, 0usize..6_000, any::<u8>(), any::<bool>()), 0..12),
        ) {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&below).unwrap();
            let overlay = Overlay::over(FileBackend::new(file.reopen().unwrap()).unwrap()).unwrap();
            let mut model = below.clone();
            for (at, length, byte, resize) in steps {
                if resize {
                    overlay.set_len(at as u64).unwrap();
                    model.resize(at, 0);
                } else if at + length <= model.len() {
                    overlay.write(at as u64, &vec![byte; length]).unwrap();
                    model[at..at + length].fill(byte);
                }
                prop_assert_eq!(overlay.len().unwrap(), model.len() as u64);
                let mut read = vec![0; model.len()];
                overlay.read(0, &mut read).unwrap();
                prop_assert!(read == model);
            }
            prop_assert!(std::fs::read(file.path()).unwrap() == below);
        }
    }
}
