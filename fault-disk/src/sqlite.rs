//! The layer below SQLite: a VFS around the system's, and the process's default from the first [`mount`] on.
//!
//! Only files below a mounted directory are wrapped. Every other file is the system's own, at its own speed.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::io;
use std::mem::size_of;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use rusqlite::ffi;

use crate::{Disk, Handle};

/// Puts a disk below every file that SQLite opens from now on in `directory` or below it, in the whole process, until
/// the mount is dropped. Of several mounts over a file the last counts. A file that is open keeps its disk.
///
/// # Errors
/// When SQLite does not take the layer; when the directory is not there.
pub fn mount(directory: &Path, disk: Arc<dyn Disk>) -> io::Result<Mount> {
    register()?;
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    MOUNTS.write().push(Mounted { number, directory: directory.canonicalize()?, disk });
    Ok(Mount { number })
}

/// A disk in its place; taken away when this is dropped.
#[derive(Debug)]
#[must_use = "the disk is taken away again when the mount is dropped"]
pub struct Mount {
    number: u64,
}

impl Drop for Mount {
    fn drop(&mut self) {
        MOUNTS.write().retain(|mounted| mounted.number != self.number);
    }
}

struct Mounted {
    number: u64,
    directory: PathBuf,
    disk: Arc<dyn Disk>,
}

static MOUNTS: RwLock<Vec<Mounted>> = RwLock::new(Vec::new());

fn disk_of(path: &Path) -> Option<Arc<dyn Disk>> {
    let mounts = MOUNTS.read();
    let over = mounts.iter().rfind(|mounted| path.starts_with(&mounted.directory))?;
    Some(Arc::clone(&over.disk))
}

/// The system's VFS, below ours.
struct System(*mut ffi::sqlite3_vfs);

// SAFETY: SQLite's VFS objects are made to be used from all threads, and the system's lives as long as the process.
unsafe impl Send for System {}
// SAFETY: as above; nothing here changes it.
unsafe impl Sync for System {}

static SYSTEM: OnceLock<System> = OnceLock::new();

/// Lets SQLite not count the memory that it uses, which it does behind one lock for the whole process: for who works on
/// many stores at once.
///
/// # Errors
/// When SQLite was used before.
pub fn count_no_memory() -> io::Result<()> {
    // SAFETY: the option takes one integer; SQLite refuses the call once it is initialised, and no other thread of the
    // caller's can be in it before.
    answer(unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0 as c_int) })
}

/// Makes ours the default VFS, the first time.
fn register() -> io::Result<()> {
    static REGISTERED: OnceLock<c_int> = OnceLock::new();
    let result = *REGISTERED.get_or_init(|| {
        // SAFETY: a null name asks for the default; SQLite initialises itself for it.
        let system = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
        if system.is_null() {
            return ffi::SQLITE_ERROR;
        }
        let system = &SYSTEM.get_or_init(|| System(system)).0;
        // All but opening and deleting is the system's own code, which finds its data in the copy as in the original.
        // SAFETY: SQLite gave the pointer, and its default VFS is never freed.
        let ours = unsafe {
            ffi::sqlite3_vfs {
                szOsFile: size_of::<File>() as c_int + (**system).szOsFile,
                pNext: std::ptr::null_mut(),
                zName: c"fault-disk".as_ptr(),
                xOpen: Some(open),
                xDelete: Some(delete),
                ..**system
            }
        };
        // SAFETY: ours is never freed, as SQLite asks for.
        unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(ours)), 1) }
    });
    if result == ffi::SQLITE_OK { Ok(()) } else { Err(Code(result).into()) }
}

/// A result code of SQLite, on its way through a disk and back.
#[derive(Debug, thiserror::Error)]
#[error("SQLite's code {0}")]
struct Code(c_int);

impl From<Code> for io::Error {
    fn from(code: Code) -> Self {
        io::Error::other(code)
    }
}

/// What the system answered, for a disk.
fn answer(code: c_int) -> io::Result<()> {
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(Code(code).into()) }
}

/// What a disk answered, for SQLite; `failed` is what a failure of its own means.
fn code(answer: io::Result<()>, failed: c_int) -> c_int {
    let Err(error) = answer else { return ffi::SQLITE_OK };
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Code>()) {
        Some(Code(code)) => *code,
        None if error.kind() == io::ErrorKind::StorageFull => ffi::SQLITE_FULL,
        None => failed,
    }
}

/// A file as SQLite holds it. The system's file lies behind it in the same memory.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    /// From a `Box`, freed when the file is closed.
    state: *mut State,
}

struct State {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    /// Whether the next flush makes the file's name last too: the system does that once for each journal it opens.
    new_journal: AtomicBool,
}

/// The system's file behind ours.
///
/// # Safety
/// `file` must be one that SQLite made room for, for our VFS.
unsafe fn below(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: `szOsFile` makes SQLite allocate ours and the system's, one behind the other; the size of ours is a
    // multiple of a pointer's.
    unsafe { file.cast::<File>().add(1).cast() }
}

/// Calls a method of the system's file behind ours; gives `$absent` when it has no such method.
macro_rules! forward {
    ($file:expr, $method:ident($($argument:expr),*) else $absent:expr) => {{
        // SAFETY: SQLite calls a method of a file only while it is open; the system has set its methods then, and
        // they live as long as the process.
        let below = unsafe { below($file) };
        // SAFETY: as above.
        match unsafe { (*(*below).pMethods).$method } {
            // SAFETY: the arguments are SQLite's own, passed on as they came.
            Some(method) => unsafe { method(below, $($argument),*) },
            None => $absent,
        }
    }};
}

/// An open file, for the length of one call.
struct Open<'f> {
    file: *mut ffi::sqlite3_file,
    state: &'f State,
    /// How SQLite wants it flushed.
    flags: c_int,
}

impl<'f> Open<'f> {
    /// # Safety
    /// `file` must be an open file of ours that is not closed for as long as the result is used.
    unsafe fn of(file: *mut ffi::sqlite3_file) -> Self {
        // SAFETY: `open` has set the state, and `close` alone frees it.
        Open { file, state: unsafe { &*(*file.cast::<File>()).state }, flags: ffi::SQLITE_SYNC_NORMAL }
    }
}

/// A length in bytes as SQLite counts it.
fn amount(length: usize) -> io::Result<c_int> {
    c_int::try_from(length).map_err(io::Error::other)
}

fn position(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(io::Error::other)
}

impl Handle for Open<'_> {
    fn path(&self) -> &Path {
        &self.state.path
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (length, offset) = (amount(out.len())?, position(offset)?);
        answer(
            forward!(self.file, xRead(out.as_mut_ptr().cast(), length, offset) else ffi::SQLITE_IOERR_READ),
        )
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (length, offset) = (amount(data.len())?, position(offset)?);
        answer(forward!(self.file, xWrite(data.as_ptr().cast(), length, offset) else ffi::SQLITE_IOERR_WRITE))
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = position(len)?;
        answer(forward!(self.file, xTruncate(len) else ffi::SQLITE_IOERR_TRUNCATE))
    }
    fn sync(&self) -> io::Result<()> {
        answer(forward!(self.file, xSync(self.flags) else ffi::SQLITE_IOERR_FSYNC))
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let Some(System(system)) = SYSTEM.get() else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: the system's VFS lives as long as the process.
    let Some(open) = (unsafe { (**system).xOpen }) else { return ffi::SQLITE_CANTOPEN };
    let named = (!name.is_null()).then(|| {
        // SAFETY: a name that is there is a string that outlives the file.
        Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()))
    });
    let Some((path, disk)) = named.and_then(|path| Some((path, disk_of(path)?))) else {
        // SAFETY: SQLite's own arguments; there is room for the system's file, as it is smaller than ours.
        return unsafe { open(*system, name, file, flags, out_flags) };
    };
    // As the system sees it: one that it may create, be it there already.
    let journal = flags & (ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL) != 0;
    let new_journal = journal && flags & ffi::SQLITE_OPEN_CREATE != 0;
    // SAFETY: SQLite made room for both files. Without methods a file counts as not open, and is not closed.
    unsafe { (*file).pMethods = std::ptr::null() };
    let opened = disk.open(path, &mut || {
        // SAFETY: as above.
        answer(unsafe { open(*system, name, below(file), flags, out_flags) })
    });
    if opened.is_err() {
        return code(opened, ffi::SQLITE_CANTOPEN);
    }
    let state = State { path: path.to_owned(), disk, new_journal: AtomicBool::new(new_journal) };
    let ours = File { base: ffi::sqlite3_file { pMethods: &METHODS }, state: Box::into_raw(Box::new(state)) };
    // SAFETY: as above.
    unsafe { file.cast::<File>().write(ours) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync_directory: c_int) -> c_int {
    let Some(System(system)) = SYSTEM.get() else { return ffi::SQLITE_IOERR_DELETE };
    // SAFETY: the system's VFS lives as long as the process.
    let Some(delete) = (unsafe { (**system).xDelete }) else { return ffi::SQLITE_IOERR_DELETE };
    // SAFETY: SQLite's own arguments.
    let delete = || unsafe { delete(*system, name, sync_directory) };
    // SAFETY: SQLite names the file to delete.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
    let Some(disk) = disk_of(path) else { return delete() };
    let deleted = disk.delete(path, &mut || answer(delete()));
    if deleted.is_ok() && sync_directory != 0 {
        disk.directory_synced(directory_of(path));
    }
    code(deleted, ffi::SQLITE_IOERR_DELETE)
}

/// The third version of the methods is what the system's files have: shared memory for the WAL, and pages mapped in.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 3,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: Some(fetch),
    xUnfetch: Some(unfetch),
};

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let closed = forward!(file, xClose() else ffi::SQLITE_OK);
    // SAFETY: `open` made the state from a box; SQLite closes a file once, and calls no method of it afterwards.
    drop(unsafe { Box::from_raw((*file.cast::<File>()).state) });
    closed
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    to: *mut c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite calls a method of an open file, which stays open meanwhile, and has `length` bytes at `to` that
    // nobody else uses.
    let (open, out) =
        unsafe { (Open::of(file), std::slice::from_raw_parts_mut(to.cast::<u8>(), length as usize)) };
    code(open.state.disk.read(&open, offset as u64, out), ffi::SQLITE_IOERR_READ)
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: as for `read`; nobody changes the bytes meanwhile.
    let (open, data) =
        unsafe { (Open::of(file), std::slice::from_raw_parts(from.cast::<u8>(), length as usize)) };
    code(open.state.disk.write(&open, offset as u64, data), ffi::SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    // SAFETY: SQLite calls a method of an open file, which stays open meanwhile.
    let open = unsafe { Open::of(file) };
    code(open.state.disk.set_len(&open, len as u64), ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: as for `truncate`.
    let open = Open { flags, ..unsafe { Open::of(file) } };
    let synced = open.state.disk.sync(&open);
    if synced.is_ok() && open.state.new_journal.swap(false, Ordering::Relaxed) {
        open.state.disk.directory_synced(directory_of(&open.state.path));
    }
    code(synced, ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    forward!(file, xFileSize(size) else ffi::SQLITE_IOERR_FSTAT)
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    forward!(file, xLock(level) else ffi::SQLITE_IOERR_LOCK)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    forward!(file, xUnlock(level) else ffi::SQLITE_IOERR_UNLOCK)
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, held: *mut c_int) -> c_int {
    forward!(file, xCheckReservedLock(held) else ffi::SQLITE_IOERR_CHECKRESERVEDLOCK)
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, what: c_int, with: *mut c_void) -> c_int {
    forward!(file, xFileControl(what, with) else ffi::SQLITE_NOTFOUND)
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    forward!(file, xSectorSize() else 4096)
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    forward!(file, xDeviceCharacteristics() else 0)
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    mapped: *mut *mut c_void,
) -> c_int {
    forward!(file, xShmMap(region, size, extend, mapped) else ffi::SQLITE_IOERR_SHMMAP)
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    forward!(file, xShmLock(offset, count, flags) else ffi::SQLITE_IOERR_SHMLOCK)
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    forward!(file, xShmBarrier() else ())
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    forward!(file, xShmUnmap(delete) else ffi::SQLITE_OK)
}

unsafe extern "C" fn fetch(
    file: *mut ffi::sqlite3_file,
    offset: i64,
    length: c_int,
    page: *mut *mut c_void,
) -> c_int {
    forward!(file, xFetch(offset, length, page) else {
        // SAFETY: SQLite gives a place for the answer, which is that the page has to be read.
        unsafe { *page = std::ptr::null_mut() };
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn unfetch(file: *mut ffi::sqlite3_file, offset: i64, page: *mut c_void) -> c_int {
    forward!(file, xUnfetch(offset, page) else ffi::SQLITE_OK)
}
