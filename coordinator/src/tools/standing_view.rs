//! What a principal may use and uses, as its clients see it.

use std::fmt::Write;

use coordinator_core::quota::Standing;
use schemars::JsonSchema;
use serde::Serialize;
use utoipa::ToSchema;

use super::words;

/// What the caller may use, all its sessions together.
#[derive(Debug, Serialize, JsonSchema, ToSchema)]
pub(crate) struct StandingView {
    /// How often it may call, when that is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<String>,
    /// One row for each quota.
    quotas: Vec<QuotaView>,
    /// When what counts for a day is counted anew.
    renewed_at: String,
}

#[derive(Debug, Serialize, JsonSchema, ToSchema)]
struct QuotaView {
    /// `sessions`, `tasks`, `cpu_seconds_per_day` or `bytes_per_day`.
    quota: &'static str,
    /// How much is used.
    used: u64,
    /// How much may be; nothing when it is not limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    /// How much is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining: Option<u64>,
}

impl StandingView {
    pub(super) fn of(standing: &Standing, rate: Option<String>) -> Self {
        let Standing { quotas, sessions, tasks, cpu_ms, bytes, renewed_ms } = *standing;
        let row = |quota, used: u64, limit: Option<u64>| {
            let remaining = limit.map(|limit| limit.saturating_sub(used));
            QuotaView { quota, used, limit, remaining }
        };
        let quotas = vec![
            row("sessions", sessions.into(), Some(quotas.sessions.into())),
            row("tasks", tasks.into(), quotas.tasks.map(u64::from)),
            row("cpu_seconds_per_day", cpu_ms / 1000, quotas.cpu_ms_per_day.map(|ms| ms / 1000)),
            row("bytes_per_day", bytes, quotas.bytes_per_day),
        ];
        Self { rate, quotas, renewed_at: words::time(renewed_ms) }
    }

    /// What is limited, in a line for a model.
    pub(super) fn tell(&self, text: &mut String) {
        let limited = self.quotas.iter().filter_map(|row| Some((row, row.limit?)));
        let quotas = limited.map(|(row, limit)| format!("{} {} of {limit}", row.quota, row.used));
        let rate = self.rate.iter().map(|rate| format!("calls {rate}"));
        let told: Vec<String> = quotas.chain(rate).collect();
        let _ = write!(text, "\nyours: {}; days end at {}", told.join(", "), self.renewed_at);
    }
}
