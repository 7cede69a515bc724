//! Policy: which calls are allowed, denied, or wait for somebody's approval.
//!
//! A call is decided subject by subject: each path and each package that it names is one. Of all rules that match a
//! subject the strictest holds, wherever it stands in the file: `deny` before `require_approval` before `allow`; where none
//! matches, the file's default does. Of all subjects the strictest decides the call. So no rule can be undone by another
//! that somebody adds later or puts in front of it.

mod check;
mod decide;
mod file;
mod glob;
mod pattern;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use check::{KnownTool, Warning};
pub use decide::{Action, Decision, Subject, Terms, Touch};
pub use file::{InvalidPolicy, POLICY_BYTES_MAX, Problem};

use pattern::{Names, Paths};

/// How long an approval is waited for when the rule says nothing.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);

/// What a rule does with a call, from the mildest to the strictest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It goes on.
    Allow,
    /// It waits until somebody approves of it, and is denied when nobody does.
    RequireApproval,
    /// It is refused.
    Deny,
}

impl Effect {
    /// The effect as it is written in a file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::RequireApproval => "require_approval",
            Self::Deny => "deny",
        }
    }
}

/// Who may approve of a call. Whoever has the right to may always deny it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approvers {
    /// The operator alone: at the command line, or with credentials of scope `admin`.
    Operator,
    /// The operator, and the caller's own user when the client asks them.
    OperatorOrUser,
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name, of which there is one in a file.
    pub name: String,
    /// The line of the file on which it begins, from 1.
    pub line: usize,
    /// What it does.
    pub effect: Effect,
    /// Why, for whoever is refused.
    pub reason: Option<String>,
    /// Who may approve.
    pub approvers: Approvers,
    /// How long an approval is waited for.
    pub timeout: Duration,
    matchers: Matchers,
}

/// What a rule is about. One that is absent is about everything.
#[derive(Debug, Default)]
struct Matchers {
    principal: Option<Names>,
    tool: Option<Names>,
    path: Option<Paths>,
    package: Option<Names>,
    host: Option<Names>,
}

/// A policy: its rules in the order of the file, and what holds where none of them matches.
#[derive(Debug)]
pub struct Policy {
    default: Effect,
    rules: Vec<Rule>,
}

impl Default for Policy {
    /// Everything is allowed.
    fn default() -> Self {
        Self { default: Effect::Allow, rules: Vec::new() }
    }
}

impl Policy {
    /// What holds where no rule matches.
    pub const fn default_effect(&self) -> Effect {
        self.default
    }

    /// The rules, in the order of the file.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

#[cfg(test)]
mod tests;
