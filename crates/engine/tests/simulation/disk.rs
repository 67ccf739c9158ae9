//! A disk that fails when it is told to: SQLite's own file layer with a layer in front of it.
//!
//! It keeps what was written since the last sync, so that a power cut can take some of it back. Only the
//! ledger's files are touched. Nothing in the product knows of it: it becomes SQLite's default.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rusqlite::ffi;

/// What a sync takes on a slow disk.
const SLOW: Duration = Duration::from_millis(2);

/// How the disk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    #[default]
    Sound,
    /// As it should be, but every sync takes its time.
    Slow,
    /// Without room: no write succeeds.
    Full,
    /// No sync succeeds; what was written may be there or not.
    SyncFails,
    /// The next write is cut in half, and everything after it fails.
    Torn,
    /// Nothing succeeds any more.
    Dead,
}

#[derive(Default)]
struct Disk {
    state: State,
    /// After so many writes it gets into the next state.
    fuse: Option<(u32, State)>,
    /// By file, what each write since the last sync replaced: where, what was there, how long the file was.
    unsynced: HashMap<String, Vec<(u64, Vec<u8>, u64)>>,
}

static DISK: OnceLock<Mutex<Disk>> = OnceLock::new();
static REAL: OnceLock<usize> = OnceLock::new();

fn disk() -> MutexGuard<'static, Disk> {
    DISK.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The disk gets into this state after so many more writes.
pub fn break_after(writes: u32, into: State) {
    disk().fuse = Some((writes, into));
}

/// Whether everything that is written and synced is there.
pub fn is_sound() -> bool {
    matches!(disk().state, State::Sound | State::Slow)
}

/// Nothing succeeds from now on.
pub fn cut_power() {
    disk().state = State::Dead;
}

/// What was not synced is there or not, write by write up to some point; `draw` decides. To be called when
/// nobody has the files open.
pub fn lose_unsynced(mut draw: impl FnMut(u64) -> u64) {
    let unsynced = std::mem::take(&mut disk().unsynced);
    for (path, writes) in unsynced {
        let Ok(file) = File::options().write(true).open(&path) else { continue };
        let kept = draw(writes.len() as u64 + 1) as usize;
        for (at, (offset, before, length)) in writes.iter().enumerate().skip(kept).rev() {
            // The first that is lost may be there in part.
            let torn = if at == kept { draw(before.len() as u64 + 1) as usize } else { 0 };
            file.write_all_at(&before[torn..], offset + torn as u64).unwrap();
            if torn == 0 {
                file.set_len(*length).unwrap();
            }
        }
    }
}

/// As it should be again; what was written is there.
pub fn mend() {
    *disk() = Disk::default();
}

/// Puts the layer in front of SQLite's own; to be called before the first file is opened.
pub fn install() {
    REAL.get_or_init(|| {
        // SAFETY: the default layer lives as long as the process; the copy differs in what is named below.
        unsafe {
            ffi::sqlite3_initialize();
            let real = ffi::sqlite3_vfs_find(std::ptr::null());
            let mut ours = *real;
            ours.zName = c"card4e-simulation".as_ptr();
            ours.pNext = std::ptr::null_mut();
            ours.szOsFile = (FRONT + (*real).szOsFile as usize) as c_int;
            ours.xOpen = Some(open);
            ours.xDelete = Some(delete);
            let ours = Box::leak(Box::new(ours));
            assert_eq!(ffi::sqlite3_vfs_register(ours, 1), ffi::SQLITE_OK);
            real as usize
        }
    });
}

/// A file of ours; the real one is behind it in the same memory.
#[repr(C)]
struct Front {
    base: ffi::sqlite3_file,
    /// Path of a file of the ledger; null: of no interest.
    path: *const c_char,
}

const FRONT: usize = size_of::<Front>().next_multiple_of(16);

/// The layer below, of the process.
fn real_vfs() -> *mut ffi::sqlite3_vfs {
    *REAL.get().unwrap() as *mut ffi::sqlite3_vfs
}

unsafe fn below(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: `szOsFile` has room for both.
    unsafe { file.cast::<u8>().add(FRONT).cast() }
}

/// Calls a method of the real file.
macro_rules! pass {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: SQLite calls methods of a file only between its opening and its closing.
        unsafe {
            let real = below($file);
            (*(*real).pMethods).$method.unwrap()(real $(, $argument)*)
        }
    }};
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: as SQLite calls it; `name` lives as long as the file.
    unsafe {
        let front = file.cast::<Front>();
        let opened = (*real_vfs()).xOpen.unwrap()(real_vfs(), name, below(file), flags, out);
        let is_ledger = !name.is_null() && CStr::from_ptr(name).to_string_lossy().contains("ledger.db");
        (*front).path = if is_ledger { name } else { std::ptr::null() };
        (*front).base.pMethods = if opened == ffi::SQLITE_OK { &METHODS } else { std::ptr::null() };
        opened
    }
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: as SQLite calls it.
    unsafe {
        let path = CStr::from_ptr(name).to_string_lossy().into_owned();
        let mut disk = disk();
        if path.contains("ledger.db") && disk.state == State::Dead {
            return ffi::SQLITE_IOERR_DELETE;
        }
        disk.unsynced.remove(&path);
        (*real_vfs()).xDelete.unwrap()(real_vfs(), name, sync)
    }
}

fn path_of(file: *mut ffi::sqlite3_file) -> Option<String> {
    // SAFETY: a file that `open` made.
    let path = unsafe { (*file.cast::<Front>()).path };
    // SAFETY: SQLite keeps the name as long as the file.
    (!path.is_null()).then(|| unsafe { CStr::from_ptr(path) }.to_string_lossy().into_owned())
}

fn size_of_file(file: *mut ffi::sqlite3_file) -> u64 {
    let mut size = 0;
    pass!(file, xFileSize, &mut size);
    size as u64
}

/// Notes what is about to be replaced.
fn note(disk: &mut Disk, file: *mut ffi::sqlite3_file, path: String, offset: i64, bytes: usize) {
    let mut before = vec![0; bytes];
    // What is beyond the end reads as zeros.
    pass!(file, xRead, before.as_mut_ptr().cast(), bytes as c_int, offset);
    let length = size_of_file(file);
    disk.unsynced.entry(path).or_default().push((offset as u64, before, length));
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    bytes: c_int,
    offset: i64,
) -> c_int {
    let Some(path) = path_of(file) else { return pass!(file, xWrite, from, bytes, offset) };
    let mut disk = disk();
    if let Some((left, into)) = &mut disk.fuse {
        *left = left.saturating_sub(1);
        if *left == 0 {
            disk.state = *into;
            disk.fuse = None;
        }
    }
    match disk.state {
        State::Sound | State::Slow | State::SyncFails => {
            note(&mut disk, file, path, offset, bytes as usize);
            pass!(file, xWrite, from, bytes, offset)
        }
        State::Full => ffi::SQLITE_FULL,
        State::Torn => {
            note(&mut disk, file, path, offset, bytes as usize);
            pass!(file, xWrite, from, bytes / 2, offset);
            disk.state = State::Dead;
            ffi::SQLITE_IOERR_WRITE
        }
        State::Dead => ffi::SQLITE_IOERR_WRITE,
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    let Some(path) = path_of(file) else { return pass!(file, xSync, flags) };
    let mut disk = disk();
    match disk.state {
        State::Sound | State::Slow | State::Full => {
            if disk.state == State::Slow {
                std::thread::sleep(SLOW);
            }
            // The real disk is not under test: that this layer knows of it is as good.
            disk.unsynced.remove(&path);
            ffi::SQLITE_OK
        }
        State::SyncFails | State::Torn | State::Dead => ffi::SQLITE_IOERR_FSYNC,
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    let Some(path) = path_of(file) else { return pass!(file, xTruncate, size) };
    let mut disk = disk();
    if disk.state == State::Dead {
        return ffi::SQLITE_IOERR_TRUNCATE;
    }
    let length = size_of_file(file);
    if (size as u64) < length {
        note(&mut disk, file, path, size, (length - size as u64) as usize);
    }
    pass!(file, xTruncate, size)
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    pass!(file, xClose)
}
unsafe extern "C" fn read(f: *mut ffi::sqlite3_file, to: *mut c_void, bytes: c_int, at: i64) -> c_int {
    pass!(f, xRead, to, bytes, at)
}
unsafe extern "C" fn file_size(f: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    pass!(f, xFileSize, size)
}
unsafe extern "C" fn lock(f: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    pass!(f, xLock, level)
}
unsafe extern "C" fn unlock(f: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    pass!(f, xUnlock, level)
}
unsafe extern "C" fn reserved(f: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    pass!(f, xCheckReservedLock, out)
}
unsafe extern "C" fn control(f: *mut ffi::sqlite3_file, what: c_int, with: *mut c_void) -> c_int {
    pass!(f, xFileControl, what, with)
}
unsafe extern "C" fn sector_size(f: *mut ffi::sqlite3_file) -> c_int {
    pass!(f, xSectorSize)
}
unsafe extern "C" fn characteristics(f: *mut ffi::sqlite3_file) -> c_int {
    pass!(f, xDeviceCharacteristics)
}
unsafe extern "C" fn shm_map(
    f: *mut ffi::sqlite3_file,
    page: c_int,
    bytes: c_int,
    extend: c_int,
    at: *mut *mut c_void,
) -> c_int {
    pass!(f, xShmMap, page, bytes, extend, at)
}
unsafe extern "C" fn shm_lock(f: *mut ffi::sqlite3_file, offset: c_int, n: c_int, flags: c_int) -> c_int {
    pass!(f, xShmLock, offset, n, flags)
}
unsafe extern "C" fn shm_barrier(f: *mut ffi::sqlite3_file) {
    pass!(f, xShmBarrier);
}
unsafe extern "C" fn shm_unmap(f: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    pass!(f, xShmUnmap, delete)
}

/// Version 2: without memory mapping of the files themselves, whose writes nobody would see.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(reserved),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};
