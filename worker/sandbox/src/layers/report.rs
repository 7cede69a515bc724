//! Which layers a sandbox has, told from facts that setting it up has shown.

use codegen_types::{IsolationLevel, IsolationReport, Layer, LayerReport, LayerState};

use crate::cgroups::{Bound, Means};
use crate::protocol::OpenFailure;

/// What is known after a sandbox was set up. Setting up fails unless every namespace, seccomp, capabilities and
/// descriptors are in place, so those need no fact of their own.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) uid: Option<u32>,
    pub(crate) landlock_version: i32,
    pub(crate) groups: Means,
    /// Whether RLIMIT_NPROC counts per user namespace (Linux 5.14) or per user of the host.
    pub(crate) processes_counted_inside: bool,
    /// What is so without a root and namespaces of its own; absent at level full.
    pub(crate) below_full: Option<BelowFull>,
}

/// What a sandbox is that has no namespaces.
#[derive(Debug, Clone)]
pub(crate) struct BelowFull {
    pub(crate) level: IsolationLevel,
    /// Why it has no better level.
    pub(crate) not_better: Option<OpenFailure>,
}

/// One row for every layer.
pub(crate) fn rows(facts: &Facts) -> Vec<LayerReport> {
    Layer::ALL.into_iter().map(|layer| row(layer, facts)).collect()
}

fn row(layer: Layer, facts: &Facts) -> LayerReport {
    facts
        .below_full
        .as_ref()
        .and_then(|below| row_below(layer, below, facts))
        .unwrap_or_else(|| row_of_full(layer, facts))
}

/// What differs from level full.
fn row_below(layer: Layer, below: &BelowFull, facts: &Facts) -> Option<LayerReport> {
    let partial = |detail: &str, remedy: &str| found(layer, LayerState::Partial, detail).with_remedy(remedy);
    let own = below.level == IsolationLevel::Portable;
    Some(match layer {
        Layer::UserNamespace
        | Layer::MountNamespace
        | Layer::PidNamespace
        | Layer::NetworkNamespace
        | Layer::IpcNamespace
        | Layer::UtsNamespace
        | Layer::CgroupNamespace => not_there(layer, below),
        Layer::SessionUid if own => found(layer, LayerState::Enforced, "a host user id that no other session has"),
        Layer::SessionUid => found(
            layer,
            LayerState::Absent,
            "sessions share the worker's user id, and can change mode and times of every file of that user",
        )
        .with_remedy(
            "run the worker as root with the capabilities SETUID, SETGID, CHOWN and KILL, or as a user that has nothing else",
        ),
        Layer::Seccomp => {
            found(layer, LayerState::Enforced, "as at level full, and no socket of any family but pairs of them")
        }
        Layer::NoCapabilities => found(
            layer,
            LayerState::Enforced,
            "no set that counts has any; no_new_privs keeps the bounding set worthless",
        ),
        Layer::ProcessLimit if facts.groups.processes == Bound::No && !own => {
            partial("rlimit, counted together with the worker's own processes", DELEGATE)
        }
        Layer::ScratchLimit => partial(
            "the session's own directory in place of /tmp, sampled while a program runs; no /dev/shm",
            "keep the state directory on a file system of bounded size",
        ),
        Layer::Landlock
        | Layer::NoNewPrivs
        | Layer::ClosedDescriptors
        | Layer::MemoryLimit
        | Layer::ProcessLimit
        | Layer::CpuLimit
        | Layer::WallTimeLimit
        | Layer::DescriptorLimit
        | Layer::OutputLimit
        | Layer::DiskLimit
        | Layer::FilesLimit => return None,
    })
}

/// A namespace that is not there, for the one reason that there is none.
fn not_there(layer: Layer, below: &BelowFull) -> LayerReport {
    let remedy = "see what `coordinator doctor` says of this host";
    match &below.not_better {
        Some(failure) => LayerReport {
            layer,
            state: LayerState::Absent,
            detail: format!("no namespaces can be made: {failure}"),
            remedy: Some(failure.remedy.clone().unwrap_or_else(|| remedy.to_owned())),
        },
        None => found(layer, LayerState::Absent, "not asked for").with_remedy(remedy),
    }
}

fn row_of_full(layer: Layer, facts: &Facts) -> LayerReport {
    let enforced = |detail: &str| found(layer, LayerState::Enforced, detail);
    match layer {
        Layer::UserNamespace => enforced("one user id is mapped, setgroups is denied"),
        Layer::MountNamespace => enforced("pivot_root onto a small tmpfs, system trees read-only"),
        Layer::PidNamespace => enforced("an init of our own, private /proc"),
        Layer::NetworkNamespace => enforced("nothing but loopback"),
        Layer::IpcNamespace | Layer::UtsNamespace | Layer::CgroupNamespace => enforced("a namespace of its own"),
        Layer::SessionUid => match facts.uid {
            Some(_) => enforced("a host user id that no other session has"),
            None => found(layer, LayerState::Absent, "the worker is not root, so sessions share its user id")
                .with_remedy("run the worker as root; the namespaces keep sessions apart without it"),
        },
        Layer::Landlock => landlock(facts.landlock_version),
        Layer::Seccomp => enforced("denied calls answer EPERM, foreign architectures are killed"),
        Layer::NoNewPrivs => enforced("set for init and everything below it"),
        Layer::NoCapabilities => enforced("all sets empty and locked"),
        Layer::ClosedDescriptors => enforced("programs start with the descriptors they are given"),
        Layer::MemoryLimit => memory(&facts.groups),
        Layer::ProcessLimit => processes(facts),
        Layer::CpuLimit => cpu(&facts.groups),
        Layer::WallTimeLimit => enforced("the worker ends a task whose time is over, with all its processes"),
        Layer::DescriptorLimit => enforced("rlimit of each process"),
        Layer::OutputLimit => enforced("counted by the worker as it reads; a task that writes more is ended"),
        Layer::DiskLimit => found(layer, LayerState::Partial, "one file by rlimit, the whole workspace by sampling")
            .with_remedy("keep the state directory on a file system of bounded size"),
        Layer::FilesLimit => found(layer, LayerState::Partial, "files of the workspace, by sampling")
            .with_remedy("keep the state directory on a file system with a bounded number of files"),
        Layer::ScratchLimit => enforced("tmpfs of a fixed size"),
    }
}

fn found(layer: Layer, state: LayerState, detail: impl Into<String>) -> LayerReport {
    LayerReport { layer, state, detail: detail.into(), remedy: None }
}

trait WithRemedy {
    fn with_remedy(self, remedy: &str) -> Self;
}

impl WithRemedy for LayerReport {
    fn with_remedy(mut self, remedy: &str) -> Self {
        self.remedy = Some(remedy.to_owned());
        self
    }
}

fn landlock(version: i32) -> LayerReport {
    let layer = Layer::Landlock;
    match version {
        ..=0 => found(layer, LayerState::Absent, "the kernel has no Landlock")
            .with_remedy("boot a kernel 5.13 or newer with `landlock` in its `lsm=` list"),
        1..=5 => {
            found(layer, LayerState::Partial, format!("version {version}: files, but no scopes of signals and sockets"))
                .with_remedy(SCOPES)
        }
        _ => found(layer, LayerState::Enforced, format!("version {version}: files, signals, abstract sockets")),
    }
}

const SCOPES: &str = "boot a kernel 6.12 or newer; until then a program can end its own supervisor, which ends its sandbox, and level reduced is refused";
const DELEGATE: &str = "start the server where control groups are delegated, e.g. `systemd-run --user --scope -p Delegate=yes coordinator serve`";

fn memory(groups: &Means) -> LayerReport {
    match groups.memory {
        Bound::Group(name) => found(Layer::MemoryLimit, LayerState::Enforced, name),
        Bound::No => found(
            Layer::MemoryLimit,
            LayerState::Partial,
            "rlimit of each process, and the whole sampled every 250 ms; it can be overshot meanwhile",
        )
        .with_remedy(DELEGATE),
    }
}

fn processes(facts: &Facts) -> LayerReport {
    let layer = Layer::ProcessLimit;
    match (facts.groups.processes, facts.processes_counted_inside || facts.uid.is_some()) {
        (Bound::Group(name), _) => found(layer, LayerState::Enforced, format!("{name} and rlimit")),
        (Bound::No, true) => found(layer, LayerState::Enforced, "rlimit, counted for this sandbox alone"),
        (Bound::No, false) => {
            found(layer, LayerState::Partial, "rlimit, counted together with the host user's other processes")
                .with_remedy("boot a kernel 5.14 or newer")
        }
    }
}

fn cpu(groups: &Means) -> LayerReport {
    match groups.cpu {
        Bound::Group(name) => found(Layer::CpuLimit, LayerState::Enforced, name),
        Bound::No => found(Layer::CpuLimit, LayerState::Partial, "lower priority, and the deadline of each task")
            .with_remedy(DELEGATE),
    }
}

/// The report of a sandbox that was made for a level.
pub(crate) fn probed(level: IsolationLevel, layers: Vec<LayerReport>) -> IsolationReport {
    let missing = layers.iter().any(|row| row.layer.is_promised_by(level) && row.state == LayerState::Absent);
    IsolationReport { level: if missing { IsolationLevel::None } else { level }, layers }
}

/// The report of a probe that could not make one: nothing is run without it, so no layer holds.
pub(crate) fn refused(failure: &OpenFailure) -> IsolationReport {
    let row = |layer| LayerReport {
        layer,
        state: LayerState::Absent,
        detail: format!("no sandbox could be made: {failure}"),
        remedy: failure.remedy.clone(),
    };
    IsolationReport { level: IsolationLevel::None, layers: Layer::ALL.into_iter().map(row).collect() }
}
