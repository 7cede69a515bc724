//! `session_share`, `session_unshare`: with whom else a session is.

use std::collections::BTreeMap;

use codegen_types::{Principal, SessionId};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::args;
use super::call::{Answer, Call, Refusal, Reply};
use super::result::ToolResult;
use super::session::once;
use crate::session::Role;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionShareInput {
    /// The session's handle.
    session_id: String,
    /// With whom, as session_info names people.
    principal: String,
    /// What for.
    role: RoleInput,
    /// At most 128 bytes. Sharing again changes nothing, with a key or without.
    idempotency_key: Option<String>,
}

/// `observer` reads; `writer` acts, too.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum RoleInput {
    Observer,
    Writer,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionUnshareInput {
    /// The session's handle.
    session_id: String,
    /// With whom no longer.
    principal: String,
    /// At most 128 bytes. Unsharing again changes nothing, with a key or without.
    idempotency_key: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SharesOutput {
    /// The session.
    session_id: String,
    /// With whom it is shared now, and for what.
    shared_with: BTreeMap<String, String>,
}

pub(super) fn share<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: SessionShareInput = call.input()?;
        let (key, with) = (args::key(input.idempotency_key)?, principal(&input.principal)?);
        let role = match input.role {
            RoleInput::Observer => Role::Observer,
            RoleInput::Writer => Role::Writer,
        };
        let text = format!(
            "{with} is now {} of it, and finds it by the handle or in session_list. Nobody checks that there is such a \
             principal: the name must be written as session_info shows it to them",
            role.name()
        );
        let connection = call.connection;
        let session = connection.session(Some(&input.session_id)).await?;
        let act = || async {
            let shared = connection.sessions.share(connection.principal.clone(), session, with, role).await;
            shared.map_err(|failure| Refusal::of_session(failure, session)).map(|_| session)
        };
        once(call, session, key.as_deref(), act).await?;
        described(call, session, text).await
    }
    .boxed()
}

pub(super) fn unshare<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: SessionUnshareInput = call.input()?;
        let (key, with) = (args::key(input.idempotency_key)?, principal(&input.principal)?);
        let text = format!("{with} has no part in it; what it ran or followed there is ended");
        let connection = call.connection;
        let session = connection.session(Some(&input.session_id)).await?;
        let act = || async {
            let unshared = connection.sessions.unshare(connection.principal.clone(), session, with).await;
            unshared.map_err(|failure| Refusal::of_session(failure, session)).map(|_| session)
        };
        once(call, session, key.as_deref(), act).await?;
        described(call, session, text).await
    }
    .boxed()
}

fn principal(text: &str) -> Result<Principal, codegen_types::Failure> {
    text.parse()
        .map_err(|error: codegen_types::principal::InvalidPrincipal| args::invalid("principal", error.to_string()))
}

async fn described(call: &Call<'_>, session: SessionId, text: String) -> Answer {
    let connection = call.connection;
    let snapshot = connection.sessions.get(&connection.principal, session);
    let snapshot = snapshot.map_err(|failure| Refusal::of_session(failure, session))?;
    let shared_with = snapshot.shares.iter().map(|(with, role)| (with.to_string(), role.name().to_owned()));
    let view = SharesOutput { session_id: session.to_string(), shared_with: shared_with.collect() };
    let text = format!("session {session}: {text}");
    Ok(Reply::Unrecorded(ToolResult::structured(text, json!(view)), Some(session)))
}
