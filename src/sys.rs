//! What the operating system must be asked for by hand: signal masks, fork detection, files opened with care, the lock
//! of a state directory.
//!
//! Beside `ffi` and the SIMD kernels this is the only place with `unsafe`, and the only one that names `libc`.

use crate::error::{Error, Result};
use arc_swap::ArcSwapOption;
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Stack of the library's own threads, set so that `ulimit -s` or RUST_MIN_STACK changes nothing.
const THREAD_STACK: usize = 1 << 20;

/// How often this process is a fork of one that had loaded the library, plus one.
static FORK_GENERATION: AtomicU32 = AtomicU32::new(1);

/// A number that differs between a process and its forked children. Costs a load; call [`watch_forks`] first.
pub fn fork_generation() -> u32 {
    FORK_GENERATION.load(Ordering::Relaxed)
}

/// How long a lock may be awaited in a forked process: a thread that held it at the fork is not there to give it back.
const ABANDONED: Duration = Duration::from_secs(1);

/// Takes a lock that is only ever held for moments. `None`: the lock was held at a fork by a thread that does not exist in
/// this child, and will never be free. A holder that panicked left whole values behind: each is changed in one step.
pub fn lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    if fork_generation() == 1 {
        return Some(mutex.lock().unwrap_or_else(PoisonError::into_inner));
    }
    let began = Instant::now();
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(guard)) => return Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) if began.elapsed() > ABANDONED => return None,
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Makes [`fork_generation`] change in forked children, from now on; `in_child` runs there before anything else does. It
/// may only use atomics and try locks.
pub fn watch_forks(in_child: fn()) {
    static WATCHED: Once = Once::new();
    static HOOK: once_cell::sync::OnceCell<fn()> = once_cell::sync::OnceCell::new();
    extern "C" fn child() {
        FORK_GENERATION.fetch_add(1, Ordering::Relaxed);
        free_sqlite_mutexes();
        if let Some(hook) = HOOK.get() {
            hook();
        }
    }
    let _ = HOOK.set(in_child);
    WATCHED.call_once(|| {
        // Now rather than in the worker thread: a child could not finish what that had begun.
        // SAFETY: takes nothing, may be called by any thread; a failure is told by the first use.
        unsafe { sqlite3_initialize() };
        // SAFETY: the handler only touches atomics and tries locks, which is allowed after fork, and the object that holds its code is
        // never unmapped (linked with -z nodelete).
        unsafe { libc::pthread_atfork(None, None, Some(child)) };
    });
}

unsafe extern "C" {
    fn sqlite3_initialize() -> libc::c_int;
    fn sqlite3_mutex_alloc(id: libc::c_int) -> *mut libc::c_void;
    fn sqlite3_mutex_try(mutex: *mut libc::c_void) -> libc::c_int;
    fn sqlite3_mutex_leave(mutex: *mut libc::c_void);
}

/// Frees SQLite's own mutexes in a forked child: the worker thread may have held one (each allocation takes one), and
/// does not exist here to give it back. What they guard is whole at any instruction: counters, a random state, a list of
/// open files that is only ever changed by one pointer.
fn free_sqlite_mutexes() {
    // SQLITE_MUTEX_STATIC_MAIN to SQLITE_MUTEX_STATIC_VFS3: there from the start, never allocated, never freed.
    for id in 2..=13 {
        // SAFETY: a static mutex, held by nobody who lives in this process: now by this thread, or by one that is gone.
        unsafe {
            let mutex = sqlite3_mutex_alloc(id);
            if !mutex.is_null() {
                sqlite3_mutex_try(mutex);
                sqlite3_mutex_leave(mutex);
            }
        }
    }
}

/// Starts a thread that receives no signal but those its own faults cause.
///
/// # Errors
/// [`Error::Io`] if the system refuses a thread.
pub fn spawn<F: FnOnce() + Send + 'static>(name: &str, body: F) -> Result<JoinHandle<()>> {
    let mask = BlockedSignals::new();
    let spawned =
        std::thread::Builder::new().name(name.to_owned()).stack_size(THREAD_STACK).spawn(body);
    drop(mask);
    spawned.map_err(|error| Error::Io(format!("cannot start the thread {name}: {error}")))
}

/// Runs `body` for every number below `count` at once, each in a thread that receives no signal; number 0 in the calling
/// thread, and what the system refuses a thread as well. A panic of one of them is the caller's.
pub fn at_once<T: Send>(count: usize, body: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let mask = BlockedSignals::new();
        let body = &body;
        let others: Vec<_> = (1..count)
            .map(|number| {
                let thread = std::thread::Builder::new()
                    .name("mlbridge-batch".to_owned())
                    .stack_size(THREAD_STACK);
                thread.spawn_scoped(scope, move || body(number)).map_err(|_| number)
            })
            .collect();
        drop(mask);
        let mut results = vec![body(0)];
        results.extend(others.into_iter().map(|other| match other {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(number) => body(number),
        }));
        results
    })
}

/// Blocks the calling thread's signals for its life. A thread inherits its maker's mask, so there is no moment at which
/// a new thread could take a signal meant for the host.
struct BlockedSignals(libc::sigset_t);

impl BlockedSignals {
    fn new() -> BlockedSignals {
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigfillset and pthread_sigmask initialise the sets they are given; none of these calls can fail with
        // these arguments.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT] {
                libc::sigdelset(all.as_mut_ptr(), fault);
            }
            libc::sigemptyset(before.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            BlockedSignals(before.assume_init())
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set was filled by pthread_sigmask.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

/// Refuses what users other than the owner may write to.
fn refuse_shared(path: &Path, metadata: &std::fs::Metadata) -> Result<()> {
    if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o777;
        return Err(Error::file(
            path,
            format!("mode {mode:03o} lets others write to it; run chmod go-w"),
        ));
    }
    Ok(())
}

/// Reads a file that decides what the library does; nobody but its owner may be able to write to it.
///
/// # Errors
/// [`Error::Io`] that names the file: unreadable, writable for others, not a regular file, or over `limit` bytes.
pub fn read_trusted_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, metadata) = open_regular(path)?;
    refuse_shared(path, &metadata)?;
    read_limited(path, file, limit)
}

/// Reads a whole regular file.
///
/// # Errors
/// [`Error::Io`] that names the file: unreadable, not a regular file, or over `limit` bytes.
pub fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, _) = open_regular(path)?;
    read_limited(path, file, limit)
}

/// Opens a regular file for reading, whatever stands in its place.
///
/// # Errors
/// [`Error::Io`] that names the file: unreadable, or not a regular file.
pub fn open_regular(path: &Path) -> Result<(File, std::fs::Metadata)> {
    // Non-blocking, so that a FIFO in the file's place cannot stop the host.
    let opened =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
    let file = opened.map_err(|error| Error::file(path, error))?;
    let metadata = file.metadata().map_err(|error| Error::file(path, error))?;
    if !metadata.is_file() {
        return Err(Error::file(path, "not a regular file"));
    }
    Ok((file, metadata))
}

fn read_limited(path: &Path, file: File, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| Error::file(path, error))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(Error::file(path, format!("over {limit} bytes")));
    }
    Ok(bytes)
}

/// Replaces a file by a new one in one step; readers see the old or the new text whole.
///
/// # Errors
/// [`Error::Io`] that names the file.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let write = || -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
        options.open(&temporary)?.write_all(bytes)?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| Error::file(path, error))
}

/// Identity of a directory, however its path is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DirectoryId(u64, u64);

/// Which files stand at these paths now, each named by device and inode; `None` where there is none. Opens nothing.
pub fn files_at<const COUNT: usize>(paths: [&Path; COUNT]) -> [Option<(u64, u64)>; COUNT] {
    paths.map(|path| {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    })
}

/// Looks at a state directory without touching it. `None`: it is not there yet.
///
/// # Errors
/// [`Error::Io`] if it is something else than a directory that only its owner may write to.
pub fn check_directory(path: &Path) -> Result<Option<DirectoryId>> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file(path, error)),
    };
    if metadata.is_symlink() {
        return Err(Error::file(path, "is a symbolic link; give the directory itself"));
    }
    if !metadata.is_dir() {
        return Err(Error::file(path, "is not a directory"));
    }
    refuse_shared(path, &metadata)?;
    Ok(Some(DirectoryId(metadata.dev(), metadata.ino())))
}

/// Whether this process could write into a directory, or could make it.
pub fn can_write(path: &Path) -> bool {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let target = if path.exists() { path } else { parent.unwrap_or(Path::new(".")) };
    let Ok(text) = std::ffi::CString::new(target.as_os_str().as_encoded_bytes()) else {
        return false;
    };
    // SAFETY: the string is NUL-terminated and outlives the call.
    unsafe { libc::access(text.as_ptr(), libc::W_OK | libc::X_OK) == 0 }
}

/// The lock of a state directory: a POSIX (fcntl) lock on its file `lock`. It is not inherited by fork, dies with its
/// process, and tells who holds it.
///
/// Closing *any* descriptor of the file would drop such a lock, so a process opens the file at most once at a time:
/// a second attempt in the same process is told that this process holds it.
#[derive(Debug)]
pub struct DirectoryLock {
    directory: DirectoryId,
    file: Option<File>,
    generation: u32,
}

/// Directories locked by this process.
struct LockedHere {
    /// The fork generation in which they were locked: a child inherits the table, but no lock.
    generation: u32,
    directories: Mutex<HashSet<DirectoryId>>,
}

static LOCKED_HERE: ArcSwapOption<LockedHere> = ArcSwapOption::const_empty();

impl DirectoryLock {
    /// Makes the directory (mode 0700) if it is missing, and takes its lock.
    ///
    /// # Errors
    /// [`Error::Busy`] with the holder's process id, or [`Error::Io`].
    pub fn take(path: &Path) -> Result<DirectoryLock> {
        let directory = match check_directory(path)? {
            Some(directory) => directory,
            None => {
                let made = std::fs::DirBuilder::new().mode(0o700).create(path);
                made.map_err(|error| Error::file(path, format!("cannot be created: {error}")))?;
                check_directory(path)?.ok_or_else(|| Error::file(path, "vanished"))?
            }
        };
        let table = locked_here();
        let mut locked = lock(&table.directories).ok_or(Error::Forked)?;
        if locked.contains(&directory) {
            return Err(busy(path, std::process::id()));
        }
        let path_of_lock = path.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
        let mut file =
            options.open(&path_of_lock).map_err(|error| Error::file(&path_of_lock, error))?;
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(Error::file(&path_of_lock, "not a regular file"));
        }
        if let Some(holder) =
            lock_whole_file(&file).map_err(|error| Error::file(&path_of_lock, error))?
        {
            return Err(busy(path, holder));
        }
        // The id is written for people who look; the lock itself is what counts.
        let text = format!("{}\n", std::process::id());
        let _ = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(text.as_bytes()));
        locked.insert(directory);
        Ok(DirectoryLock { directory, file: Some(file), generation: fork_generation() })
    }

    /// The process that holds the lock of a directory, found without touching anything.
    /// Never asks about a directory that this process has locked (see the type's comment).
    pub fn holder(path: &Path) -> Option<u32> {
        let directory = check_directory(path).ok().flatten()?;
        let table = locked_here();
        let locked = lock(&table.directories)?;
        if locked.contains(&directory) {
            return Some(std::process::id());
        }
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
        let file = options.open(path.join("lock")).ok()?;
        query_lock(&file).ok().flatten()
    }

    /// Whether the file that holds the lock has no name any more.
    pub fn is_removed(&self) -> bool {
        let metadata = self.file.as_ref().map(File::metadata);
        matches!(metadata, Some(Ok(metadata)) if metadata.nlink() == 0)
    }

    /// Whether the directory at the path is the one that is locked.
    pub fn is_of(&self, path: &Path) -> bool {
        check_directory(path).is_ok_and(|directory| directory == Some(self.directory))
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        if self.generation != fork_generation() {
            return;
        }
        let table = locked_here();
        let Some(mut locked) = lock(&table.directories) else { return };
        // Closed before the table lets go of it: a close after another thread's open would drop that one's lock.
        self.file = None;
        locked.remove(&self.directory);
    }
}

/// The table of locked directories; a child begins with one of its own, since the parent's may have been held.
fn locked_here() -> Arc<LockedHere> {
    loop {
        let generation = fork_generation();
        let known = LOCKED_HERE.load_full();
        if let Some(table) = known.as_ref().filter(|table| table.generation == generation) {
            return Arc::clone(table);
        }
        // Never freed: a thread that is not here may have been changing it.
        std::mem::forget(known.clone());
        let table = LockedHere { generation, directories: Mutex::default() };
        LOCKED_HERE.compare_and_swap(&known, Some(Arc::new(table)));
    }
}

fn busy(path: &Path, holder: u32) -> Error {
    Error::Busy(format!("{}: the store is held by process {holder}", path.display()))
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    // SAFETY: flock is a plain C struct; all zeroes mean "from the first byte to the end of the file".
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::c_short::try_from(kind).unwrap_or(0);
    lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or(0);
    lock
}

/// Takes the lock; gives the holder's process id if another process has it.
fn lock_whole_file(file: &File) -> std::io::Result<Option<u32>> {
    let lock = whole_file(libc::F_WRLCK);
    // SAFETY: the descriptor is open and the struct lives through the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &lock) } == 0 {
        return Ok(None);
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EAGAIN) => Ok(Some(query_lock(file)?.unwrap_or(0))),
        _ => Err(error),
    }
}

fn query_lock(file: &File) -> std::io::Result<Option<u32>> {
    let mut lock = whole_file(libc::F_WRLCK);
    // SAFETY: the descriptor is open and the struct lives through the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &mut lock) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(if lock.l_type == libc::c_short::try_from(libc::F_UNLCK).unwrap_or(2) {
        None
    } else {
        u32::try_from(lock.l_pid).ok()
    })
}

/// The machine's name, as the kernel has it.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

/// Becomes the owner of a directory, if this is root and the owner is not: the command line then leaves no file behind
/// that the DNS server's user could not write.
///
/// # Errors
/// [`Error::Io`] if the directory cannot be looked at or the system refuses.
pub fn become_owner_of(path: &Path) -> Result<()> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::file(path, error))?;
    // SAFETY: these calls take plain numbers; groups first, because a user who is not root may not drop them.
    let refused = unsafe {
        libc::geteuid() == 0
            && metadata.uid() != 0
            && (libc::setgroups(0, std::ptr::null()) != 0
                || libc::setgid(metadata.gid()) != 0
                || libc::setuid(metadata.uid()) != 0)
    };
    if refused {
        return Err(Error::file(
            path,
            format!("cannot become its owner: {}", std::io::Error::last_os_error()),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings");
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).unwrap();
        let error = read_trusted_file(&path, 10).unwrap_err().to_string();
        assert!(error.contains("mode 660 lets others write to it"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read_trusted_file(&path, 10).unwrap(), b"x");
        assert!(read_trusted_file(folder.path(), 10).is_err());
        assert!(read_file(&path, 0).is_err());
    }

    #[test]
    fn a_directory_is_locked_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert_eq!(DirectoryLock::holder(&path), None);
        let lock = DirectoryLock::take(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert_eq!(DirectoryLock::holder(&path), Some(std::process::id()));
        assert!(matches!(DirectoryLock::take(&path), Err(Error::Busy(_))));
        drop(lock);
        assert_eq!(DirectoryLock::holder(&path), None);
        DirectoryLock::take(&path).unwrap();
    }

    #[test]
    fn a_link_in_place_of_the_directory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        assert!(DirectoryLock::take(&link).is_err());
    }
}
