//! No capability in any set, and no way to gain one.

use std::io;

use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use crate::kernel;

/// Gives up every capability that this process has. What it cannot take out of the bounding set stays there, where
/// `no_new_privs` makes it worth nothing.
pub(crate) fn give_up() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    set_none()
}

/// Empties the bounding set as far as the process may.
pub(crate) fn narrow() {
    let mut number = 0;
    while kernel::drop_bounding_capability(number).is_ok_and(|dropped| dropped) {
        number += 1;
    }
}

/// Gives up every capability of this process and its descendants, for good.
pub(crate) fn drop_all() -> io::Result<()> {
    let mut number = 0;
    while kernel::drop_bounding_capability(number)? {
        number += 1;
    }
    rustix::thread::clear_ambient_capability_set()?;
    rustix::thread::set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )?;
    set_none()
}

fn set_none() -> io::Result<()> {
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}
