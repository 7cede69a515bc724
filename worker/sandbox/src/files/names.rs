//! Names that nobody can predict, and names for the kernel.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;

use rustix::rand::{GetRandomFlags, getrandom};

/// The directory at the top of a workspace that holds what belongs to us rather than to the work: installed packages,
/// full outputs. It counts as used space, is listed and can be read, but is no news and is not searched unasked.
pub(super) const OURS: &str = ".codegen";

/// A name with 128 random bits between a prefix and a suffix.
pub(super) fn unpredictable(prefix: &str, suffix: &str) -> io::Result<CString> {
    let mut bits = [MaybeUninit::<u8>::uninit(); 16];
    let (random, _) = getrandom(&mut bits, GetRandomFlags::empty())?;
    let random: [u8; 16] = (&*random).try_into().map_err(|_| io::ErrorKind::UnexpectedEof)?;
    let name = format!("{prefix}{:032x}{suffix}", u128::from_ne_bytes(random));
    Ok(CString::new(name)?)
}

/// A component of a checked path, which holds no NUL byte.
pub(super) fn c_name(component: &str) -> CString {
    CString::new(component).expect("a workspace path holds no NUL byte")
}

pub(super) fn is_dot(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}
