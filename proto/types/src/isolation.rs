//! How well a session is isolated, layer by layer, and whether each layer is really active.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::terminal::for_terminal;

/// System directories that every session is shown if they exist: as they are, link or directory.
pub const SYSTEM_TREES: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// How well a session is isolated from the host and from other sessions. Ordered from weakest to strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IsolationLevel {
    /// No isolation; only when the operator asked for exactly that.
    None,
    /// Landlock, seccomp and limits, under the worker's own user id.
    Reduced,
    /// Reduced, and a user id for each session.
    Portable,
    /// Portable inside namespaces of its own, on a root file system of its own.
    Full,
}

impl IsolationLevel {
    /// The level as it is written in flags, records and results.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Reduced => "reduced",
            Self::Portable => "portable",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for IsolationLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no isolation level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an isolation level: `{0}` (allowed: none, reduced, portable, full)")]
pub struct InvalidIsolationLevel(String);

impl FromStr for IsolationLevel {
    type Err = InvalidIsolationLevel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::None, Self::Reduced, Self::Portable, Self::Full]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| InvalidIsolationLevel(text.to_owned()))
    }
}

/// One layer of isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// User namespace: ids inside mean nothing outside.
    UserNamespace,
    /// Mount namespace, and `pivot_root` onto a small root with read-only system directories.
    MountNamespace,
    /// Process-id namespace with an init of our own and a private `/proc`.
    PidNamespace,
    /// Network namespace that holds nothing but loopback.
    NetworkNamespace,
    /// IPC namespace: System V objects and POSIX queues of its own.
    IpcNamespace,
    /// UTS namespace: a host name of its own.
    UtsNamespace,
    /// Cgroup namespace: the host's control groups cannot be seen.
    CgroupNamespace,
    /// A user id of the host that belongs to this session alone.
    SessionUid,
    /// Landlock: files, TCP and scopes are denied unless listed.
    Landlock,
    /// Seccomp: system calls that a program does not need are denied.
    Seccomp,
    /// `no_new_privs`: set-user-id programs give nothing.
    NoNewPrivs,
    /// No capability in any set.
    NoCapabilities,
    /// Only the listed descriptors are open at the start of a program.
    ClosedDescriptors,
    /// Bound on the memory of the whole session.
    MemoryLimit,
    /// Bound on the number of processes of the whole session.
    ProcessLimit,
    /// Bound on processor use of the whole session.
    CpuLimit,
    /// Bound on the time of each task.
    WallTimeLimit,
    /// Bound on the open descriptors of each process.
    DescriptorLimit,
    /// Bound on what each task writes to its outputs.
    OutputLimit,
    /// Bound on the bytes in the workspace.
    DiskLimit,
    /// Bound on the number of files in the workspace.
    FilesLimit,
    /// Bound on `/tmp` and `/dev/shm`.
    ScratchLimit,
}

impl Layer {
    /// Every layer, in the order in which reports list them.
    pub const ALL: [Self; 22] = [
        Self::UserNamespace,
        Self::MountNamespace,
        Self::PidNamespace,
        Self::NetworkNamespace,
        Self::IpcNamespace,
        Self::UtsNamespace,
        Self::CgroupNamespace,
        Self::SessionUid,
        Self::Landlock,
        Self::Seccomp,
        Self::NoNewPrivs,
        Self::NoCapabilities,
        Self::ClosedDescriptors,
        Self::MemoryLimit,
        Self::ProcessLimit,
        Self::CpuLimit,
        Self::WallTimeLimit,
        Self::DescriptorLimit,
        Self::OutputLimit,
        Self::DiskLimit,
        Self::FilesLimit,
        Self::ScratchLimit,
    ];

    /// The layer as it is written in reports and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UserNamespace => "user_namespace",
            Self::MountNamespace => "mount_namespace",
            Self::PidNamespace => "pid_namespace",
            Self::NetworkNamespace => "network_namespace",
            Self::IpcNamespace => "ipc_namespace",
            Self::UtsNamespace => "uts_namespace",
            Self::CgroupNamespace => "cgroup_namespace",
            Self::SessionUid => "session_uid",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::NoNewPrivs => "no_new_privs",
            Self::NoCapabilities => "no_capabilities",
            Self::ClosedDescriptors => "closed_descriptors",
            Self::MemoryLimit => "memory_limit",
            Self::ProcessLimit => "process_limit",
            Self::CpuLimit => "cpu_limit",
            Self::WallTimeLimit => "wall_time_limit",
            Self::DescriptorLimit => "descriptor_limit",
            Self::OutputLimit => "output_limit",
            Self::DiskLimit => "disk_limit",
            Self::FilesLimit => "files_limit",
            Self::ScratchLimit => "scratch_limit",
        }
    }
}

impl Layer {
    /// Whether a level means that this layer holds.
    pub const fn is_promised_by(self, level: IsolationLevel) -> bool {
        let without_namespaces = matches!(
            self,
            Self::Landlock | Self::Seccomp | Self::NoNewPrivs | Self::NoCapabilities | Self::ClosedDescriptors
        );
        match level {
            IsolationLevel::None => false,
            IsolationLevel::Reduced => without_namespaces,
            IsolationLevel::Portable => without_namespaces || matches!(self, Self::SessionUid),
            IsolationLevel::Full => self.is_promised_by_full(),
        }
    }

    /// Whether level *full* means that this layer holds. Limits are layers of their own; a user id for each session is
    /// only for workers that are root.
    pub const fn is_promised_by_full(self) -> bool {
        match self {
            Self::UserNamespace
            | Self::MountNamespace
            | Self::PidNamespace
            | Self::NetworkNamespace
            | Self::IpcNamespace
            | Self::UtsNamespace
            | Self::CgroupNamespace
            | Self::Landlock
            | Self::Seccomp
            | Self::NoNewPrivs
            | Self::NoCapabilities
            | Self::ClosedDescriptors
            | Self::ScratchLimit => true,
            Self::SessionUid
            | Self::MemoryLimit
            | Self::ProcessLimit
            | Self::CpuLimit
            | Self::WallTimeLimit
            | Self::DescriptorLimit
            | Self::OutputLimit
            | Self::DiskLimit
            | Self::FilesLimit => false,
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerState {
    /// The kernel enforces it.
    Enforced,
    /// It holds in part; the detail says what is missing.
    Partial,
    /// It does not hold; the detail says why.
    Absent,
}

/// One row of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Which layer.
    pub layer: Layer,
    /// Whether it holds.
    pub state: LayerState,
    /// By what means it holds, or why it does not.
    pub detail: String,
    /// What an operator can do about a layer that does not hold in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What isolation a sandbox has: the level reached, and every layer as it was found by probing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolationReport {
    /// The strongest level whose layers all hold.
    pub level: IsolationLevel,
    /// One row for every layer, in the order of [`Layer::ALL`].
    pub layers: Vec<LayerReport>,
}

impl IsolationReport {
    /// Every layer on a line of its own, for an operator: its state, by what means it holds, and the remedy when it does
    /// not in full. One reason for all layers is said once. Harmless on a terminal.
    pub fn matrix(&self) -> String {
        let mut text = format!("isolation layers (level: {})\n", self.level);
        let mut line = |mark: &str, name: &str, row: &LayerReport| {
            text.push_str(&format!("  {mark:<8}  {name:<18}  {}\n", for_terminal(&row.detail)));
            if let Some(remedy) = &row.remedy {
                text.push_str(&format!("  {:8}  {:<18}  -> {}\n", "", "", for_terminal(remedy)));
            }
        };
        if let Some(row) = self.nothing_holds() {
            line("ABSENT", "every layer", row);
            return text;
        }
        for row in &self.layers {
            let mark = match row.state {
                LayerState::Enforced => "enforced",
                LayerState::Partial => "partial",
                LayerState::Absent => "ABSENT",
            };
            line(mark, row.layer.as_str(), row);
        }
        text
    }

    /// What keeps this from being level *full*, and the remedies: each reason once, with the layers that it concerns.
    /// Empty when nothing does.
    pub fn missing(&self) -> String {
        let absent =
            self.layers.iter().filter(|row| row.layer.is_promised_by_full() && row.state == LayerState::Absent);
        let mut reasons: Vec<(&LayerReport, Vec<&str>)> = Vec::new();
        for row in absent {
            match reasons.iter_mut().find(|(known, _)| known.detail == row.detail && known.remedy == row.remedy) {
                Some((_, layers)) => layers.push(row.layer.as_str()),
                None => reasons.push((row, vec![row.layer.as_str()])),
            }
        }
        let texts: Vec<String> = reasons.iter().map(|(row, layers)| reason(row, layers)).collect();
        texts.join("; ")
    }

    /// The one reason for which no layer holds, when it is the same for all: no sandbox can be made at all.
    pub fn nothing_holds(&self) -> Option<&LayerReport> {
        let (first, rest) = self.layers.split_first()?;
        let same = |row: &LayerReport| {
            row.state == LayerState::Absent && row.detail == first.detail && row.remedy == first.remedy
        };
        (same(first) && !rest.is_empty() && rest.iter().all(same)).then_some(first)
    }
}

fn reason(row: &LayerReport, layers: &[&str]) -> String {
    // When every layer is missing for one reason, the reason says more than their names.
    let all = Layer::ALL.iter().filter(|layer| layer.is_promised_by_full()).count();
    let named = if layers.len() == all { String::new() } else { format!("{}: ", layers.join(", ")) };
    let remedy = row.remedy.as_ref().map(|remedy| format!(" (remedy: {remedy})"));
    format!("{named}{}{}", row.detail, remedy.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(state: impl Fn(Layer) -> LayerState, remedy: Option<&str>) -> IsolationReport {
        let row = |layer| LayerReport {
            layer,
            state: state(layer),
            detail: "not here".to_owned(),
            remedy: remedy.map(str::to_owned),
        };
        IsolationReport { level: IsolationLevel::None, layers: Layer::ALL.into_iter().map(row).collect() }
    }

    #[test]
    fn one_reason_for_all_layers_is_said_once_with_its_remedy() {
        let refused = report(|_| LayerState::Absent, Some("mend it"));
        assert_eq!(refused.missing(), "not here (remedy: mend it)");
        assert_eq!(refused.nothing_holds().unwrap().detail, "not here");
    }

    #[test]
    fn a_missing_layer_is_named_unless_full_does_without_it() {
        let without = |missing: Layer| {
            report(move |layer| if layer == missing { LayerState::Absent } else { LayerState::Enforced }, None)
        };
        assert_eq!(without(Layer::Landlock).missing(), "landlock: not here");
        assert_eq!(without(Layer::SessionUid).missing(), "");
        assert!(without(Layer::Landlock).nothing_holds().is_none());
    }
}
