//! What every call passes before anything is done: rates first, then whatever else may refuse it.
//!
//! [`Admission::admit`] is called with whoever asks and what they ask, from [`crate::tools`] and from every other way in,
//! once the credentials are known to permit it. It gives a guard that the call holds until it ends, or the refusal as the
//! client may read it. Stages run in the order of cost: what only looks at a counter refuses before what reads arguments
//! or waits for a person.
//!
//! *Invariant*: no transport and no protocol is named here; nothing that one principal is told depends on another; and
//! state is bounded however many principals there are.

mod accounts;
mod rate;

use std::sync::Arc;
use std::time::Duration;

use codegen_types::{Failure, Principal, SessionId};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::approvals::Asking;
use crate::identity::Scopes;
use crate::policy::{Gate, Whole};
use crate::refusals::Verdict;
use crate::session::Leave;
use accounts::{Account, Accounts};

pub use rate::{InvalidRate, Rate, Rates};

/// Decides which calls are let in. Cheap to clone; all clones share what they count.
#[derive(Clone)]
pub struct Admission {
    accounts: Arc<Accounts>,
    /// What the policy says; without one it allows everything.
    gate: Option<Gate>,
}

/// A call that asks to be let in.
#[derive(Debug)]
pub struct Asked<'a> {
    /// On whose behalf.
    pub principal: &'a Principal,
    /// What the credentials permit.
    pub scopes: Scopes,
    /// By which way it comes.
    pub door: Door,
    /// The tool by its name with an underscore, or what another way in calls what it does.
    pub tool: &'static str,
    /// Its arguments, as the client sent them.
    pub args: &'a Value,
    /// The session that it names, when that is a handle. It need not exist, nor be the principal's.
    pub session: Option<SessionId>,
    /// The client program, as it names itself; for records only.
    pub client: Option<&'a str>,
    /// The request that it is a part of, when leave was given for the whole of that.
    pub whole: Option<&'a Whole>,
    /// How the user of the client can be asked to approve of it.
    pub asking: &'a Asking,
    /// How long it may wait for an operator's approval before it is answered.
    pub patience: Duration,
    /// Cancelled when the client wants the call no more.
    pub cancel: &'a CancellationToken,
}

/// By which way a call comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The user's own program, over a pipe.
    Stdio,
    /// The network.
    Http,
}

/// A call that was let in; dropped when it ends.
#[must_use = "the call counts as long as this is held"]
#[derive(Debug)]
pub struct Admitted {
    _account: Arc<Account>,
    leave: Leave,
}

impl Admitted {
    /// On what ground.
    pub const fn leave(&self) -> Leave {
        self.leave
    }
}

impl Admission {
    /// An admission with these rates, and everybody at rest.
    pub fn new(rates: Rates) -> Self {
        Self { accounts: Arc::new(Accounts::new(rates)), gate: None }
    }

    /// The same, behind this gate.
    #[must_use]
    pub fn behind(self, gate: Gate) -> Self {
        Self { gate: Some(gate), ..self }
    }

    /// The gate of the policy, if there is one.
    pub fn gate(&self) -> Option<&Gate> {
        self.gate.as_ref()
    }

    /// Which rates hold.
    pub fn rates(&self) -> &Rates {
        self.accounts.rates()
    }

    /// Lets a call in, or says why not. `is_repeat` tells whether its idempotency key is known; that is looked up only
    /// where somebody would have to approve of the call otherwise.
    ///
    /// # Errors
    /// `RATE_LIMITED` with the time after which one more call is let in; what the policy's gate gives.
    pub async fn admit(
        &self,
        asked: &Asked<'_>,
        is_repeat: impl Future<Output = bool> + Send,
    ) -> Result<Admitted, Failure> {
        let account = self.count(asked.principal, asked.door, asked.tool)?;
        let leave = match &self.gate {
            Some(gate) => gate.pass(asked, is_repeat).await?,
            None => Leave::Free,
        };
        Ok(Admitted { _account: account, leave })
    }

    /// Lets in all calls together that one request consists of, each of which is counted and looked at by itself, too.
    ///
    /// # Errors
    /// What the policy's gate gives.
    pub async fn admit_whole(&self, asked: &Asked<'_>) -> Result<Whole, Failure> {
        match &self.gate {
            Some(gate) => gate.pass_whole(asked).await,
            None => Ok(Whole::default()),
        }
    }

    /// Counts a call that is refused or answered without anything being done, so that those are bounded, too.
    ///
    /// # Errors
    /// As of [`admit`](Self::admit).
    pub fn count_only(&self, principal: &Principal, door: Door, tool: &'static str) -> Result<(), Failure> {
        self.count(principal, door, tool).map(drop)
    }

    fn count(&self, principal: &Principal, door: Door, tool: &'static str) -> Result<Arc<Account>, Failure> {
        let account = self.accounts.of(principal);
        account.check(door, tool)?;
        Ok(account)
    }

    /// How a refusal with `RATE_LIMITED` is recorded: `Some` with the number of those before it that were not, `None`
    /// when it is only counted. Each principal has ten recorded in ten seconds, or a flood of calls would be one of records.
    pub fn record_refusal(&self, principal: &Principal) -> Option<u64> {
        match self.accounts.record_refusal(principal) {
            Verdict::Record { suppressed } => Some(suppressed),
            Verdict::Suppress => None,
        }
    }
}

impl Default for Admission {
    fn default() -> Self {
        Self::new(Rates::default())
    }
}
