//! A session as clients see it.

use std::collections::BTreeMap;
use std::fmt::Write;

use codegen_types::{IsolationReport, LayerState, Limits, Principal, Runtime};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::words;
use crate::session::{Access, InForce, Receipt, SessionSnapshot};

/// How much of a session is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// What a list needs.
    Brief,
    /// Also each layer of isolation and the limits.
    Full,
}

#[derive(Debug, Serialize, JsonSchema, ToSchema)]
pub(crate) struct SessionView {
    /// The handle.
    session_id: String,
    /// A name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// You are its `owner`, `observer` or `writer`.
    role: String,
    /// Whose it is.
    owner: String,
    /// With whom you share it, and for what.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    shared_with: BTreeMap<String, String>,
    /// Who alone may act in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    writer: Option<String>,
    /// `opening`, `ready`, `suspended` (the next call starts it), `lost`, `closing` or `closed`.
    state: String,
    /// Whether calls that name no session use it.
    is_default: bool,
    /// How its code is isolated.
    #[serde(skip_serializing_if = "Option::is_none")]
    isolation: Option<IsolationView>,
    /// What the session and each task may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<LimitsView>,
    /// What it runs programs with.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    runtimes: Vec<RuntimeView>,
    /// Hosts it may reach.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    network: Vec<String>,
    /// Hosts no longer permitted.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    network_dropped: Vec<String>,
    /// The caller's own notes.
    metadata: BTreeMap<String, Value>,
    /// Idle seconds until its processes end.
    ttl_seconds: u64,
    /// When it was made (RFC 3339).
    created_at: String,
    /// When it was last used.
    last_used_at: String,
    /// When its files go if unused.
    files_kept_until: String,
    /// Tasks that run at present.
    running: Vec<String>,
    /// Tasks that were ever started.
    tasks: u64,
    /// What they used.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<ReceiptView>,
}

#[derive(Debug, Serialize, JsonSchema, ToSchema)]
struct ReceiptView {
    /// Tasks that ended.
    tasks: u64,
    /// Those of them that failed.
    failed: u64,
    /// Processor time of all programs.
    cpu_seconds: f64,
    /// Peak memory of the largest process.
    memory_peak_bytes: u64,
    /// Bytes that came in: code, input, files.
    bytes_in: u64,
    /// Bytes that went out: output, files.
    bytes_out: u64,
    /// Installed packages, with versions.
    packages: BTreeMap<String, String>,
    /// Hosts that were reached, as `name:port`.
    hosts: Vec<String>,
    /// Hosts that were asked for and refused.
    hosts_refused: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema, ToSchema)]
struct RuntimeView {
    /// `python` and `shell` have tools of their own, others are for `run_code`.
    name: String,
    /// Its release.
    version: String,
}

#[derive(Debug, Serialize, JsonSchema, ToSchema)]
struct IsolationView {
    /// `full`, `portable`, `reduced` or `none`.
    level: String,
    /// Each layer, as probed.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    layers: Vec<LayerView>,
}

#[derive(Debug, Serialize, JsonSchema, ToSchema)]
struct LayerView {
    /// Its name.
    layer: String,
    /// `enforced`, `partial` or `absent`.
    state: String,
    /// How it holds, or why not.
    detail: String,
}

#[derive(Debug, Serialize, JsonSchema, ToSchema)]
struct LimitsView {
    /// Wall time of a task that asks for none, in seconds.
    task_seconds: f64,
    /// The longest that a task may ask for, in seconds.
    task_seconds_max: f64,
    /// Memory of the session, in bytes.
    memory_bytes: u64,
    /// Processes and threads of the session.
    processes: u64,
    /// Output of one task, in bytes.
    output_bytes: u64,
    /// All files of the workspace, in bytes.
    workspace_bytes: u64,
    /// One file read or written by a tool, in bytes.
    file_bytes: u64,
}

impl SessionView {
    pub(super) fn of(
        snapshot: &SessionSnapshot,
        in_force: &InForce,
        reader: &Principal,
        is_default: bool,
        detail: Detail,
    ) -> Self {
        let access = snapshot.access(reader);
        let shares = snapshot.shares.iter().filter(|_| access == Some(Access::Owner));
        Self {
            session_id: snapshot.id.to_string(),
            name: snapshot.name.clone(),
            role: access.map_or("", Access::name).to_owned(),
            owner: snapshot.principal.to_string(),
            shared_with: shares.map(|(with, role)| (with.to_string(), role.name().to_owned())).collect(),
            writer: snapshot.writer.as_ref().map(|writing| writing.by.to_string()),
            state: snapshot.state.to_owned(),
            is_default,
            isolation: snapshot.isolation.as_ref().map(|report| IsolationView::of(report, detail)),
            limits: None,
            runtimes: Vec::new(),
            network: in_force.hosts.iter().map(|(host, _)| host.to_string()).collect(),
            network_dropped: in_force.dropped.iter().map(ToString::to_string).collect(),
            metadata: snapshot.metadata.clone(),
            ttl_seconds: snapshot.ttl_ms / 1000,
            created_at: words::time(snapshot.created_ms),
            last_used_at: words::time(snapshot.last_used_ms),
            files_kept_until: words::time(snapshot.retained_until_ms),
            running: snapshot.running.iter().map(ToString::to_string).collect(),
            tasks: snapshot.tasks,
            receipt: (detail == Detail::Full).then(|| ReceiptView::of(&snapshot.receipt)),
        }
    }

    pub(super) fn with_limits(self, limits: &Limits) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "limits of time are far below 2^52 milliseconds")]
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let limits = LimitsView {
            task_seconds: seconds(limits.task_ms),
            task_seconds_max: seconds(limits.task_ms_max),
            memory_bytes: limits.memory_bytes,
            processes: limits.processes,
            output_bytes: limits.output_bytes,
            workspace_bytes: limits.workspace_bytes,
            file_bytes: limits.file_bytes,
        };
        Self { limits: Some(limits), ..self }
    }

    pub(super) fn with_runtimes(self, runtimes: Vec<Runtime>) -> Self {
        let views = runtimes.into_iter().map(|Runtime { name, version, .. }| RuntimeView { name, version });
        Self { runtimes: views.collect(), ..self }
    }

    /// One line, for lists.
    pub(super) fn line(&self) -> String {
        let mut line = format!("{} {}", self.session_id, self.state);
        if let Some(name) = &self.name {
            let _ = write!(line, " {name:?}");
        }
        if self.is_default {
            line.push_str(" (default)");
        }
        if self.role != Access::Owner.name() {
            let _ = write!(line, ", shared by {} ({})", self.owner, self.role);
        }
        let _ = write!(line, ", last used {}", self.last_used_at);
        if !self.running.is_empty() {
            let _ = write!(line, ", {} tasks running", self.running.len());
        }
        line
    }

    /// Everything, for a model.
    pub(super) fn text(&self) -> String {
        let mut text = format!("session {}", self.line());
        if !self.shared_with.is_empty() {
            let named = self.shared_with.iter().map(|(with, role)| format!("{with} ({role})"));
            let _ = write!(text, "\nshared with {}", named.collect::<Vec<_>>().join(", "));
        }
        if let Some(writer) = &self.writer {
            let _ = write!(text, "\n{writer} acts in it at present");
        }
        if let Some(isolation) = &self.isolation {
            let _ = write!(text, "\nisolation: {}", isolation.level);
            for layer in isolation.layers.iter().filter(|layer| layer.state != "enforced") {
                let _ = write!(text, "\n  {} {}: {}", layer.layer, layer.state, layer.detail);
            }
        }
        if let Some(limits) = &self.limits {
            let _ = write!(
                text,
                "\nlimits: {} s per task (at most {} s), {} memory, {} processes, {} workspace",
                limits.task_seconds,
                limits.task_seconds_max,
                words::bytes(limits.memory_bytes),
                limits.processes,
                words::bytes(limits.workspace_bytes),
            );
        }
        if !self.runtimes.is_empty() {
            let named = self.runtimes.iter().map(|runtime| format!("{} {}", runtime.name, runtime.version));
            let _ = write!(text, "\nruntimes: {}", named.collect::<Vec<_>>().join(", "));
        }
        if !self.network.is_empty() {
            let _ = write!(text, "\nmay reach {} through the proxy in its environment", self.network.join(", "));
        }
        if !self.network_dropped.is_empty() {
            let _ = write!(text, "\nthe operator no longer permits {}", self.network_dropped.join(", "));
        }
        if let Some(receipt) = self.receipt.as_ref().filter(|receipt| receipt.tasks > 0) {
            receipt.tell(&mut text);
        }
        if !self.metadata.is_empty() {
            let _ = write!(text, "\nmetadata: {}", serde_json::json!(self.metadata));
        }
        let _ = write!(
            text,
            "\nprocesses end after {} idle seconds; files are kept until {}",
            self.ttl_seconds, self.files_kept_until
        );
        text
    }
}

impl ReceiptView {
    fn of(receipt: &Receipt) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 milliseconds of processor time")]
        let cpu_seconds = receipt.cpu_ms as f64 / 1000.0;
        let Receipt { tasks, failed, memory_peak_bytes, bytes_in, bytes_out, .. } = *receipt;
        let packages = receipt.packages.clone();
        let [hosts, hosts_refused] =
            [&receipt.hosts, &receipt.hosts_refused].map(|hosts| hosts.iter().cloned().collect());
        Self { tasks, failed, cpu_seconds, memory_peak_bytes, bytes_in, bytes_out, packages, hosts, hosts_refused }
    }

    fn tell(&self, text: &mut String) {
        let (peak, bytes_in, bytes_out) = (self.memory_peak_bytes, self.bytes_in, self.bytes_out);
        let _ = write!(
            text,
            "\nreceipt: {} tasks ({} failed), {:.1} s processor, peak {}, {} in, {} out",
            self.tasks,
            self.failed,
            self.cpu_seconds,
            words::bytes(peak),
            words::bytes(bytes_in),
            words::bytes(bytes_out)
        );
        if !self.packages.is_empty() {
            let named: Vec<String> = self.packages.iter().take(20).map(|(name, v)| format!("{name} {v}")).collect();
            let _ = write!(text, "; {} packages: {}", self.packages.len(), named.join(", "));
        }
        let refused = self.hosts_refused.iter().map(|host| format!("{host} (refused)"));
        let hosts: Vec<String> = self.hosts.iter().cloned().chain(refused).collect();
        if !hosts.is_empty() {
            let named = &hosts[..hosts.len().min(20)];
            let _ = write!(text, "; {} hosts: {}", hosts.len(), named.join(", "));
        }
    }
}

impl IsolationView {
    fn of(report: &IsolationReport, detail: Detail) -> Self {
        let rows = match detail {
            Detail::Brief => &[],
            Detail::Full => report.layers.as_slice(),
        };
        let layers = rows.iter().map(|row| LayerView {
            layer: row.layer.to_string(),
            state: match row.state {
                LayerState::Enforced => "enforced",
                LayerState::Partial => "partial",
                LayerState::Absent => "absent",
            }
            .to_owned(),
            detail: row.detail.clone(),
        });
        Self { level: report.level.to_string(), layers: layers.collect() }
    }
}
