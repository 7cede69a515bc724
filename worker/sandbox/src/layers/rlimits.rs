//! Resource limits of every process in a sandbox.

use std::io;

use codegen_types::Limits;

use crate::kernel;

/// Processes of our own in a sandbox (init, supervisors, the prepared interpreter), on top of what a session may have.
pub(crate) const OWN_PROCESSES: u64 = 16;

/// Who bounds the memory of the whole sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryBound {
    /// A control group; nothing else is needed.
    ControlGroup,
    /// Init samples, so a single process must not run far ahead between two samples.
    Sampling,
}

/// Binds this process and its descendants.
pub(crate) fn apply(limits: &Limits, memory: MemoryBound) -> io::Result<()> {
    // Too little for a core file, and, unlike zero, for a helper of the host that takes cores through a pipe, too.
    kernel::limit(libc::RLIMIT_CORE, 1)?;
    kernel::limit(libc::RLIMIT_NOFILE, limits.open_files.max(64))?;
    kernel::limit(libc::RLIMIT_FSIZE, limits.workspace_bytes)?;
    kernel::limit(libc::RLIMIT_NPROC, limits.processes.saturating_add(OWN_PROCESSES))?;
    kernel::limit(libc::RLIMIT_MEMLOCK, 1 << 20)?;
    kernel::limit(libc::RLIMIT_MSGQUEUE, 1 << 20)?;
    match memory {
        MemoryBound::ControlGroup => Ok(()),
        MemoryBound::Sampling => kernel::limit(libc::RLIMIT_DATA, limits.memory_bytes.saturating_mul(2)),
    }
}
