//! The C ABI: thin adapters over [`crate::engine`]. Nothing else in the crate knows that C exists.
//!
//! Their comments become those of `include/mlbridge.h`, which cbindgen generates from this folder; a test keeps the two
//! equal.
#![allow(
    non_camel_case_types,
    clippy::missing_safety_doc,
    reason = "names and comments are the header's"
)]

mod args;
mod guard;
mod types;

pub use types::*;

use crate::config::Config;
use crate::engine::{self, Engine};
use crate::error::Error;
use crate::name::Name;
use crate::sys;
use crate::verdict::Verdict;
use guard::{Failure, caught, guard, silence_panics};
use mlb_status::{MLB_E_INVALID, MLB_OK};
use std::ffi::{c_char, c_int};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Largest out_size that mlb_stats_get() takes: a larger one is no size of a struct.
const MAX_STATS: usize = 1 << 16;

/// Names of a batch that are worth a thread.
const LEAST_SHARE: usize = 1024;

type Outcome<T = ()> = Result<T, Failure>;

/// The version of the ABI that the library has. Never fails.
#[unsafe(no_mangle)]
pub extern "C" fn mlb_abi_version() -> u32 {
    MLB_ABI_VERSION
}

/// The version of the library, for example "0.1.0". Static text.
#[unsafe(no_mangle)]
pub extern "C" fn mlb_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// What a status means, in a few words. Static text, never NULL, whatever the number.
#[unsafe(no_mangle)]
pub extern "C" fn mlb_strerror(status: c_int) -> *const c_char {
    let text = match status {
        0 => "ok\0",
        1 => "null or impossible argument\0",
        2 => "not a domain name\0",
        3 => "bad setting\0",
        4 => "file, directory or store cannot be used\0",
        5 => "model cannot be loaded or failed\0",
        6 => "not done in time\0",
        7 => "buffer too small\0",
        8 => "process is a fork of the engine's\0",
        9 => "held by another process\0",
        10 => "panic caught\0",
        _ => "unknown status\0",
    };
    text.as_ptr().cast()
}

/// Makes settings with all defaults. Free them with mlb_config_free().
/// MLB_E_INVALID if out is NULL.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlb_config_new(out: *mut *mut mlb_config) -> mlb_status {
    silence_panics();
    let made = guard(|| {
        if out.is_null() { Err(Failure::Argument("out")) } else { Ok(Box::new(Config::default())) }
    });
    match made {
        Ok(config) => {
            // SAFETY: not NULL; writable by the header's contract.
            unsafe { out.write_unaligned(Box::into_raw(config).cast()) };
            MLB_OK
        }
        Err(failure) => failure.status(),
    }
}

/// Sets one setting. Keys and values are those of the README's table; a list is separated by commas; a later value
/// replaces an earlier one.
/// MLB_E_CONFIG for an unknown key or a bad value (the settings are then unchanged), MLB_E_INVALID for NULL or for text
/// that is not UTF-8. err (may be NULL with 0) gets a text that names the key and the value.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlb_config_set(
    cfg: *mut mlb_config,
    key: *const c_char,
    value: *const c_char,
    err: *mut c_char,
    err_len: usize,
) -> mlb_status {
    let body = || -> Outcome {
        // SAFETY: cfg came from mlb_config_new and one thread uses it at a time; the strings are NUL-terminated: the
        // header's contract.
        let (config, key, value) = unsafe {
            (
                config_mut(cfg)?,
                args::text(key, "key: NULL or not UTF-8")?,
                args::text(value, "value: NULL or not UTF-8")?,
            )
        };
        Ok(config.set(key, value)?)
    };
    // SAFETY: err is NULL or err_len bytes long, by the header's contract.
    unsafe { finish(guard(body), err, err_len) }
}

/// Reads settings from a TOML file, whose tables and keys are the README's; relative paths in it begin at its folder.
/// All of it counts, or nothing.
/// MLB_E_IO if it cannot be read or if others than its owner may write to it, MLB_E_CONFIG for what it says,
/// MLB_E_INVALID for NULL. err gets a text that names file, key and value.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlb_config_load(
    cfg: *mut mlb_config,
    path: *const c_char,
    err: *mut c_char,
    err_len: usize,
) -> mlb_status {
    let body = || -> Outcome {
        // SAFETY: as in mlb_config_set.
        let (config, path) = unsafe { (config_mut(cfg)?, args::path(path, "path: NULL")?) };
        Ok(config.load(&path)?)
    };
    // SAFETY: err is NULL or err_len bytes long, by the header's contract.
    unsafe { finish(guard(body), err, err_len) }
}

/// Frees settings; engines made from them do not need them. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlb_config_free(cfg: *mut mlb_config) {
    if is_handle(cfg) {
        // SAFETY: made by mlb_config_new and freed once, by the header's contract.
        let config = unsafe { Box::from_raw(cfg.cast::<Config>()) };
        let _ = guard(|| {
            drop(config);
            Ok(())
        });
    }
}

/// Makes an engine, or another handle to the one of the same instance and settings (rule 6). cfg NULL: all defaults, the
/// embedded model, nothing written. Reads files, connects to nothing, starts no thread, leaves nothing behind.
/// MLB_E_CONFIG, MLB_E_IO or MLB_E_MODEL with a text in err; *out is then NULL. MLB_E_INVALID if out is NULL.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlb_init(
    cfg: *const mlb_config,
    out: *mut *mut mlb_engine,
    err: *mut c_char,
    err_len: usize,
) -> mlb_status {
    silence_panics();
    let body = || -> Outcome<Arc<Engine>> {
        if out.is_null() {
            return Err(Failure::Argument("out: NULL"));
        }
        if cfg.is_null() {
            return Ok(engine::open(&Config::default())?);
        }
        // SAFETY: cfg came from mlb_config_new and nobody changes it meanwhile, by the header's contract.
        let config = unsafe { config_mut(cfg.cast_mut())? };
        Ok(engine::open(config)?)
    };
    // SAFETY: out is NULL or writable, err is NULL or err_len bytes long, by the header's contract.
    unsafe { finish_handle(guard(body), out, err, err_len) }
}

/// Puts other settings in force in one step, in every thread. On an error the old ones stay. instance and state_dir
/// cannot change.
/// MLB_E_CONFIG, MLB_E_IO or MLB_E_MODEL with a text in err; MLB_E_INVALID if engine is NULL. cfg NULL: all defaults.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlb_reload(
    engine: *const mlb_engine,
    cfg: *const mlb_config,
    err: *mut c_char,
    err_len: usize,
) -> mlb_status {
    let body = |engine: &Arc<Engine>| -> Outcome {
        if cfg.is_null() {
            return Ok(engine.reload(&Config::default())?);
        }
        // SAFETY: as in mlb_init.
        let config = unsafe { config_mut(cfg.cast_mut())? };
        Ok(engine.reload(config)?)
    };
    // SAFETY: engine is NULL or live; err is NULL or err_len bytes long: the header's contract.
    unsafe { finish(with_engine(engine, body, Err), err, err_len) }
}

/// Gives a handle back. With the last one of an engine, what is queued is stored and the worker thread ends; that takes
/// close_timeout_ms at most, and nothing in a forked child. NULL is fine. Call it only after the last call with this
/// handle has returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlb_free(engine: *mut mlb_engine) {
    if is_handle(engine) {
        // SAFETY: made by mlb_init or mlb_attach and freed once, by the header's contract.
        let engine = unsafe { Arc::from_raw(engine.cast::<Engine>()) };
        let _ = guard(|| {
            engine::release(&engine);
            drop(engine);
            Ok(())
        });
    }
}

/// Another handle to the newest engine of an instance, also to one at rest (rule 6). Never fails for the store's sake.
/// MLB_E_INVALID if the instance never had an engine, or for NULL; *out is then NULL.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlb_attach(
    instance: *const c_char,
    out: *mut *mut mlb_engine,
) -> mlb_status {
    silence_panics();
    let body = || -> Outcome<Arc<Engine>> {
        if out.is_null() {
            return Err(Failure::Argument("out: NULL"));
        }
        // SAFETY: NUL-terminated by the header's contract.
        let instance = unsafe { args::text(instance, "instance: NULL or not UTF-8")? };
        Ok(engine::attach(instance)?)
    };
    // SAFETY: out is NULL or writable, by the header's contract.
    unsafe { finish_handle(guard(body), out, std::ptr::null_mut(), 0) }
}

/// The verdict on a name in text form: name_len bytes, final dot optional, master-file escapes decoded, Unicode
/// converted to A-labels. client: 0, 4 or 16 bytes in network order (NULL with 0). qtype is recorded and decides
/// nothing. Never waits, does no I/O.
/// MLB_E_NAME if it is no name, MLB_E_INVALID for an impossible argument, MLB_E_PANIC; *out is then all zero.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlb_classify(
    engine: *const mlb_engine,
    name: *const c_char,
    name_len: usize,
    client: *const u8,
    client_len: usize,
    qtype: u16,
    out: *mut mlb_verdict,
) -> mlb_status {
    let body = |engine: &Arc<Engine>| -> Outcome<Verdict> {
        // SAFETY: name_len and client_len bytes are readable, by the header's contract.
        let (text, client) = unsafe {
            (args::bytes(name.cast(), name_len, "name: NULL")?, args::client(client, client_len)?)
        };
        let mut name = Name::ROOT;
        name.read_text(text)?;
        Ok(engine.classify(&name, client, qtype))
    };
    // SAFETY: engine is NULL or live, out is NULL or writable, by the header's contract.
    unsafe { finish_verdict(engine, body, out) }
}

/// As mlb_classify(), for a name in uncompressed wire form, root label included.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlb_classify_wire(
    engine: *const mlb_engine,
    qname: *const u8,
    qname_len: usize,
    client: *const u8,
    client_len: usize,
    qtype: u16,
    out: *mut mlb_verdict,
) -> mlb_status {
    let body = |engine: &Arc<Engine>| -> Outcome<Verdict> {
        // SAFETY: qname_len and client_len bytes are readable, by the header's contract.
        let (wire, client) = unsafe {
            (args::bytes(qname, qname_len, "qname: NULL")?, args::client(client, client_len)?)
        };
        let mut name = Name::ROOT;
        name.read_wire(wire)?;
        Ok(engine.classify(&name, client, qtype))
    };
    // SAFETY: engine is NULL or live, out is NULL or writable, by the header's contract.
    unsafe { finish_verdict(engine, body, out) }
}

/// The model's scores of count names in text form, 0 to 1; NaN where there is no name (NULL included). No policy, no
/// events, not counted. With batch.threads other than 1 it works in so many threads until it returns.
/// MLB_E_INVALID for NULL or an absurd count, MLB_E_MODEL if the model fails; nothing is then to be read from scores.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlb_score_batch(
    engine: *const mlb_engine,
    names: *const *const c_char,
    name_lens: *const usize,
    count: usize,
    scores: *mut f32,
) -> mlb_status {
    let body = |engine: &Arc<Engine>| -> Outcome {
        if count == 0 {
            return Ok(());
        }
        if names.is_null()
            || name_lens.is_null()
            || scores.is_null()
            || count > isize::MAX.unsigned_abs() / 16
        {
            return Err(Failure::Argument("names, name_lens or scores: NULL, or count: absurd"));
        }
        let batch = Batch { names, name_lens, scores };
        let threads = match engine.config().batch_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let shares = threads.min(count.div_ceil(LEAST_SHARE));
        let share = count.div_ceil(shares);
        let parts = sys::at_once(shares, |number| {
            let begin = (number * share).min(count);
            // SAFETY: the ranges lie below count and do not overlap.
            unsafe { batch.score(engine, begin..(begin + share).min(count)) }
        });
        parts.into_iter().collect()
    };
    // SAFETY: engine is NULL or live, by the header's contract.
    unsafe { finish(with_engine(engine, body, Err), std::ptr::null_mut(), 0) }
}

/// The arrays of a batch, each of the same length; readable and writable until the call returns.
struct Batch {
    names: *const *const c_char,
    name_lens: *const usize,
    scores: *mut f32,
}

// SAFETY: threads only read names and lengths, and write to scores in ranges of their own (see Batch::score).
unsafe impl Sync for Batch {}

impl Batch {
    /// Scores a range of the names.
    ///
    /// # Safety
    /// The range lies within the arrays, and no other thread has a part of it.
    unsafe fn score(&self, engine: &Engine, range: Range<usize>) -> Outcome {
        for at in range {
            // SAFETY: the arrays have an element there, and each name its length, by the header's contract.
            let text = unsafe {
                args::bytes(
                    self.names.add(at).read_unaligned().cast(),
                    self.name_lens.add(at).read_unaligned(),
                    "name",
                )
            };
            let name = text.ok().and_then(|text| Name::from_text(text).ok());
            let score = name.map_or(Ok(f32::NAN), |name| engine.score(&name))?;
            // SAFETY: as above; no other thread writes there.
            unsafe { self.scores.add(at).write_unaligned(score) };
        }
        Ok(())
    }
}

/// The verdict on a name with its reasons, as one JSON object in buf, NUL-terminated. Records nothing. *need (may be
/// NULL) gets the size needed, NUL included.
/// MLB_E_RANGE if buf_len is smaller than that (ask with NULL and 0), MLB_E_NAME, MLB_E_MODEL, MLB_E_INVALID.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlb_explain(
    engine: *const mlb_engine,
    name: *const c_char,
    name_len: usize,
    buf: *mut c_char,
    buf_len: usize,
    need: *mut usize,
) -> mlb_status {
    let body = |engine: &Arc<Engine>| -> Outcome {
        // SAFETY: name_len bytes are readable, by the header's contract.
        let text = unsafe { args::bytes(name.cast(), name_len, "name: NULL")? };
        let json = engine.explain(&Name::from_text(text)?)?;
        // SAFETY: buf is NULL or buf_len bytes long, need is NULL or writable, by the header's contract.
        unsafe { args::put_all(buf, buf_len, need, &json) }
    };
    // SAFETY: engine is NULL or live, by the header's contract.
    unsafe { finish(with_engine(engine, body, Err), std::ptr::null_mut(), 0) }
}

/// Waits until what was classified before is durable in the store; without state_dir, until the cluster acknowledged it.
/// MLB_E_TIMEOUT after timeout_ms, MLB_E_BUSY while another process holds the store, MLB_E_FORKED in a forked child,
/// MLB_E_IO for the store's error. Not for the path of a query.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlb_flush(engine: *const mlb_engine, timeout_ms: u32) -> mlb_status {
    let body = |engine: &Arc<Engine>| Ok(engine.flush(Duration::from_millis(timeout_ms.into()))?);
    // SAFETY: engine is NULL or live, by the header's contract.
    unsafe { finish(with_engine(engine, body, Err), std::ptr::null_mut(), 0) }
}

/// The counters. Fills the smaller of out_size and the library's own size, and zeroes the rest of out.
/// MLB_E_INVALID for NULL, or an out_size over 65536.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlb_stats_get(
    engine: *const mlb_engine,
    out: *mut mlb_stats,
    out_size: usize,
) -> mlb_status {
    let body = |engine: &Arc<Engine>| -> Outcome {
        if out.is_null() || out_size > MAX_STATS {
            return Err(Failure::Argument("out: NULL, or out_size: absurd"));
        }
        let stats = engine.stats();
        let filled = out_size.min(size_of::<mlb_stats>());
        // SAFETY: out_size bytes are writable, by the header's contract; the snapshot has mlb_stats's layout (asserted in
        // types.rs) and is at least `filled` bytes long.
        unsafe {
            let out = out.cast::<u8>();
            std::ptr::copy_nonoverlapping((&raw const stats).cast::<u8>(), out, filled);
            out.add(filled).write_bytes(0, out_size - filled);
        }
        Ok(())
    };
    // SAFETY: engine is NULL or live, by the header's contract.
    unsafe { finish(with_engine(engine, body, Err), std::ptr::null_mut(), 0) }
}

/// The counters as Prometheus text (exposition format 0.0.4), NUL-terminated. *need as for mlb_explain().
/// MLB_E_RANGE if buf_len is too small, MLB_E_INVALID.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlb_metrics(
    engine: *const mlb_engine,
    buf: *mut c_char,
    buf_len: usize,
    need: *mut usize,
) -> mlb_status {
    // SAFETY: buf is NULL or buf_len bytes long, need is NULL or writable, by the header's contract.
    let body =
        |engine: &Arc<Engine>| unsafe { args::put_all(buf, buf_len, need, &engine.metrics()) };
    // SAFETY: engine is NULL or live, by the header's contract.
    unsafe { finish(with_engine(engine, body, Err), std::ptr::null_mut(), 0) }
}

/// What keeps events from the store or the cluster, in words to act on; "" if nothing does. Cut to buf_len.
/// MLB_E_INVALID for NULL or 0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlb_sink_error(
    engine: *const mlb_engine,
    buf: *mut c_char,
    buf_len: usize,
) -> mlb_status {
    let body = |engine: &Arc<Engine>| -> Outcome {
        if buf.is_null() || buf_len == 0 {
            return Err(Failure::Argument("buf: NULL or empty"));
        }
        // SAFETY: buf is buf_len bytes long, by the header's contract.
        unsafe { args::put_text(buf, buf_len, &engine.hub().sink_error()) };
        Ok(())
    };
    // SAFETY: engine is NULL or live, by the header's contract.
    unsafe { finish(with_engine(engine, body, Err), std::ptr::null_mut(), 0) }
}

/// The next message for the host's log, cut to buf_len, and its syslog level in *level (may be NULL): 3 error, 4 warning,
/// 5 notice. "" if there is none. A verdict's MLB_FLAG_MESSAGE says that one waits; nobody needs to poll.
/// MLB_E_INVALID for NULL or 0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlb_message(
    engine: *const mlb_engine,
    buf: *mut c_char,
    buf_len: usize,
    level: *mut c_int,
) -> mlb_status {
    let body = |engine: &Arc<Engine>| -> Outcome {
        if buf.is_null() || buf_len == 0 {
            return Err(Failure::Argument("buf: NULL or empty"));
        }
        let (number, text) = engine
            .hub()
            .message()
            .map_or((0, String::new()), |(level, text)| (level as c_int, text));
        // SAFETY: buf is buf_len bytes long, level is NULL or writable, by the header's contract.
        unsafe {
            args::put_text(buf, buf_len, &text);
            args::put_int(level, number);
        }
        Ok(())
    };
    // SAFETY: engine is NULL or live, by the header's contract.
    unsafe { finish(with_engine(engine, body, Err), std::ptr::null_mut(), 0) }
}

/// Whether a pointer can be a handle at all: not NULL, and aligned as our handles are.
fn is_handle<T>(pointer: *const T) -> bool {
    !pointer.is_null() && pointer.addr().is_multiple_of(align_of::<usize>())
}

/// The settings behind a handle.
///
/// # Safety
/// `config` is NULL or came from mlb_config_new, and nobody else uses it during the call.
unsafe fn config_mut<'a>(config: *mut mlb_config) -> Outcome<&'a mut Config> {
    if !is_handle(config) {
        return Err(Failure::Argument("cfg: NULL"));
    }
    // SAFETY: by this function's contract.
    Ok(unsafe { &mut *config.cast::<Config>() })
}

/// Runs a body with the engine behind a handle; without a handle or after a panic, which is counted there, the result is
/// what `failed` makes of it.
///
/// # Safety
/// `engine` is NULL or a live handle.
unsafe fn with_engine<T>(
    engine: *const mlb_engine,
    body: impl FnOnce(&Arc<Engine>) -> T,
    failed: impl FnOnce(Failure) -> T,
) -> T {
    if !is_handle(engine) {
        return failed(Failure::Argument("engine: NULL"));
    }
    // SAFETY: a live handle is a reference count of this Arc, which ManuallyDrop leaves as it is.
    let engine = std::mem::ManuallyDrop::new(unsafe { Arc::from_raw(engine.cast::<Engine>()) });
    caught(|| body(&engine)).unwrap_or_else(|| {
        caught(|| engine.hub().stats.counters.panics.fetch_add(1, Relaxed));
        failed(Failure::Panic)
    })
}

/// Status and error text of a call.
///
/// # Safety
/// `err` is NULL or `err_len` bytes are writable there.
unsafe fn finish(outcome: Outcome, err: *mut c_char, err_len: usize) -> mlb_status {
    let (status, text) = match &outcome {
        Ok(()) => (MLB_OK, String::new()),
        Err(failure) => (failure.status(), failure.text()),
    };
    // SAFETY: by this function's contract.
    unsafe { args::put_text(err, err_len, &text) };
    status
}

/// Status, handle and error text of a call that makes a handle.
///
/// # Safety
/// As [`finish`]; `out` is NULL or writable.
unsafe fn finish_handle(
    outcome: Outcome<Arc<Engine>>,
    out: *mut *mut mlb_engine,
    err: *mut c_char,
    err_len: usize,
) -> mlb_status {
    let (pointer, outcome) = match outcome {
        Ok(engine) => (Arc::into_raw(engine).cast_mut().cast(), Ok(())),
        Err(failure) => (std::ptr::null_mut(), Err(failure)),
    };
    if !out.is_null() {
        // SAFETY: by this function's contract.
        unsafe { out.write_unaligned(pointer) };
    }
    // SAFETY: by this function's contract.
    unsafe { finish(outcome, err, err_len) }
}

/// Status and verdict of a call that classifies.
///
/// # Safety
/// `engine` is NULL or live, `out` is NULL or writable.
unsafe fn finish_verdict(
    engine: *const mlb_engine,
    body: impl FnOnce(&Arc<Engine>) -> Outcome<Verdict>,
    out: *mut mlb_verdict,
) -> mlb_status {
    if out.is_null() {
        return MLB_E_INVALID;
    }
    // Written inside: a copy that travels out through the guard costs ten nanoseconds.
    let write = |engine: &Arc<Engine>| match body(engine) {
        Ok(verdict) => {
            // SAFETY: by this function's contract.
            unsafe { put(out, mlb_verdict::from(verdict)) };
            MLB_OK
        }
        Err(failure) => {
            engine.hub().stats.counters.errors.fetch_add(1, Relaxed);
            failure.status()
        }
    };
    // SAFETY: by this function's contract.
    let status = unsafe { with_engine(engine, write, |failure| failure.status()) };
    if status != MLB_OK {
        // SAFETY: by this function's contract.
        unsafe { put(out, mlb_verdict::ZERO) };
    }
    status
}

/// Writes a value where C wants it: field by field where the place is aligned, as it is in every sane program.
///
/// # Safety
/// `out` is writable.
unsafe fn put<T>(out: *mut T, value: T) {
    // SAFETY: by this function's contract.
    unsafe {
        if out.is_aligned() {
            out.write(value);
        } else {
            out.write_unaligned(value);
        }
    }
}

// The error type is the crate's; a new kind of it has to get a status.
const _: fn(&Error) -> mlb_status = |error| error.into();
