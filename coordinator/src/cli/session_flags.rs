//! Flags that say what sessions are like.

use clap::Args;

use super::listed;

#[derive(Debug, Args)]
pub(super) struct SessionFlags {
    /// Below this isolation no session is run: reduced, portable or full [default: full] [env: ISOLATION_MINIMUM]
    #[arg(long, value_name = "LEVEL", global = true, help_heading = "Settings")]
    isolation_minimum: Option<String>,

    /// A host that sessions may reach when they ask for it, with or without a port, or all below a domain: `*.example.com`;
    /// may be repeated [default: none] [env: EGRESS_HOSTS]
    #[arg(long, value_name = "HOST", global = true, help_heading = "Settings")]
    egress_hosts: Vec<String>,

    /// How tools are listed: underscored or dotted; both are accepted in calls [default: underscored] [env: TOOL_NAMES]
    #[arg(long, value_name = "STYLE", global = true, help_heading = "Settings")]
    tool_names: Option<String>,
}

impl SessionFlags {
    /// What was given, by flag.
    pub(super) fn given(&self) -> [(&'static str, Option<String>); 3] {
        [
            ("--isolation-minimum", self.isolation_minimum.clone()),
            ("--egress-hosts", listed(&self.egress_hosts)),
            ("--tool-names", self.tool_names.clone()),
        ]
    }
}
