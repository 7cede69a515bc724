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

/// What one program may have of its own memory, in bytes, beside what bounds the whole sandbox. Not for init and supervisors:
/// the allocator of this binary sets far more aside than it ever uses, which counts here.
pub(crate) fn data_bytes_max(limits: &Limits, memory: MemoryBound) -> Option<u64> {
    match memory {
        MemoryBound::ControlGroup => None,
        MemoryBound::Sampling => Some(limits.memory_bytes.saturating_mul(2)),
    }
}

/// Binds this process, a program from here on, and its descendants.
pub(crate) fn apply_to_program(data_bytes_max: Option<u64>) -> io::Result<()> {
    data_bytes_max.map_or(Ok(()), |bytes| kernel::limit(libc::RLIMIT_DATA, bytes))
}

/// Binds this process and its descendants. `others` are processes that the kernel counts together with theirs.
pub(crate) fn apply(limits: &Limits, others: u64) -> io::Result<()> {
    // Too little for a core file, and, unlike zero, for a helper of the host that takes cores through a pipe, too.
    kernel::limit(libc::RLIMIT_CORE, 1)?;
    kernel::limit(libc::RLIMIT_NOFILE, limits.open_files)?;
    kernel::limit(libc::RLIMIT_FSIZE, limits.workspace_bytes)?;
    // One more than a control group lets there be: that one is asked later, and counts what it refuses.
    let processes_max = limits.processes.saturating_add(OWN_PROCESSES).saturating_add(others).saturating_add(1);
    kernel::limit(libc::RLIMIT_NPROC, processes_max)?;
    kernel::limit(libc::RLIMIT_MEMLOCK, 1 << 20)?;
    kernel::limit(libc::RLIMIT_MSGQUEUE, 1 << 20)
}
