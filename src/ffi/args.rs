//! Arguments from C: pointers become slices and strings here, and text goes back into the caller's buffers.

use super::guard::Failure;
use std::ffi::{CStr, c_char, c_int};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// Longest C string taken as a key, a value or a path.
const MAX_STRING: usize = 1 << 20;

/// The bytes at a pointer.
///
/// # Safety
/// Unless `pointer` is NULL or `length` is absurd, `length` bytes must be readable there until the call returns.
pub(super) unsafe fn bytes<'a>(
    pointer: *const u8,
    length: usize,
    what: &'static str,
) -> Result<&'a [u8], Failure> {
    if pointer.is_null() || length > isize::MAX.unsigned_abs() {
        return Err(Failure::Argument(what));
    }
    // SAFETY: not NULL, not longer than any object can be; readable by this function's contract.
    Ok(unsafe { std::slice::from_raw_parts(pointer, length) })
}

/// A C string as text; bytes that are not UTF-8 are an error.
///
/// # Safety
/// Unless NULL, `pointer` must point to a NUL-terminated string that lives until the call returns.
pub(super) unsafe fn text<'a>(
    pointer: *const c_char,
    what: &'static str,
) -> Result<&'a str, Failure> {
    // SAFETY: passed on.
    let string = unsafe { c_string(pointer, what)? };
    string.to_str().map_err(|_| Failure::Argument(what))
}

/// A C string as a path.
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn path(pointer: *const c_char, what: &'static str) -> Result<PathBuf, Failure> {
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: passed on.
    let string = unsafe { c_string(pointer, what)? };
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(string.to_bytes())))
}

unsafe fn c_string<'a>(pointer: *const c_char, what: &'static str) -> Result<&'a CStr, Failure> {
    if pointer.is_null() {
        return Err(Failure::Argument(what));
    }
    // SAFETY: not NULL; NUL-terminated by the caller's contract.
    let string = unsafe { CStr::from_ptr(pointer) };
    if string.count_bytes() > MAX_STRING { Err(Failure::Argument(what)) } else { Ok(string) }
}

/// A client's address: none for length 0, else 4 or 16 bytes in network order.
///
/// # Safety
/// As [`bytes`].
pub(super) unsafe fn client(pointer: *const u8, length: usize) -> Result<Option<IpAddr>, Failure> {
    const WHAT: &str = "client: not 0, 4 or 16 bytes";
    if length == 0 {
        return Ok(None);
    }
    if length != 4 && length != 16 {
        return Err(Failure::Argument(WHAT));
    }
    // SAFETY: passed on.
    let octets = unsafe { bytes(pointer, length, WHAT)? };
    let v4 = <[u8; 4]>::try_from(octets).map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    let address = v4
        .or_else(|_| <[u8; 16]>::try_from(octets).map(|octets| IpAddr::V6(Ipv6Addr::from(octets))));
    address.map(Some).map_err(|_| Failure::Argument(WHAT))
}

/// Copies text into a caller's buffer, cut on a character boundary, NUL-terminated. Does nothing without a buffer.
///
/// # Safety
/// Unless `buffer` is NULL, `length` bytes must be writable there.
pub(super) unsafe fn put_text(buffer: *mut c_char, length: usize, text: &str) {
    if buffer.is_null() || length == 0 || length > isize::MAX.unsigned_abs() {
        return;
    }
    let mut end = text.len().min(length - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let clean: Vec<u8> =
        text.bytes().take(end).map(|byte| if byte == 0 { b' ' } else { byte }).collect();
    // SAFETY: `end` is below `length`, and that many bytes are writable by this function's contract.
    unsafe {
        std::ptr::copy_nonoverlapping(clean.as_ptr(), buffer.cast::<u8>(), clean.len());
        buffer.add(clean.len()).write(0);
    }
}

/// Copies a whole text into a caller's buffer; one that is too small gets nothing, and `need` is set either way.
///
/// # Safety
/// As [`put_text`]; `need` must be NULL or writable.
pub(super) unsafe fn put_all(
    buffer: *mut c_char,
    length: usize,
    need: *mut usize,
    text: &str,
) -> Result<(), Failure> {
    let needed = text.len() + 1;
    if !need.is_null() {
        // SAFETY: writable by this function's contract.
        unsafe { need.write_unaligned(needed) };
    }
    if buffer.is_null() || length < needed {
        return Err(Failure::Range);
    }
    // SAFETY: passed on.
    unsafe { put_text(buffer, length, text) };
    Ok(())
}

/// Writes a number where the caller wants it, if it does.
///
/// # Safety
/// `out` must be NULL or writable.
pub(super) unsafe fn put_int(out: *mut c_int, value: c_int) {
    if !out.is_null() {
        // SAFETY: writable by this function's contract.
        unsafe { out.write_unaligned(value) };
    }
}
