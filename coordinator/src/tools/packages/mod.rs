//! `pkg_install` and `pkg_list`: Python packages of a session.

mod install;
mod list;
mod told;

pub(super) use install::{PkgInstallInput, install};
pub(super) use list::{PkgListInput, PkgListOutput, list};
pub(super) use told::told;
