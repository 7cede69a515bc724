//! `session_create`, `session_info`, `session_list`, `session_update`, `session_close`.
//!
//! The session layer records what becomes of a session; the dispatch records the call that asked for it, also when an
//! idempotency key answered it.

use std::collections::BTreeMap;

use codegen_types::{SessionId, SessionNetwork};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::args;
use super::call::{Answer, Call, Refusal, Reply};
use super::result::ToolResult;
use super::session_keys::{self, Keyed};
use super::session_view::{Detail, SessionView};
use super::standing_view::StandingView;
use crate::session::{CreateSession, CreationKey, Leave, UpdateSession};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionCreateInput {
    /// A name for people; it need not be unique.
    name: Option<String>,
    /// Your own notes, any JSON object of at most 16 KiB.
    metadata: Option<BTreeMap<String, Value>>,
    /// Idle seconds after which its processes end; files stay and the next call starts it again.
    ttl_seconds: Option<u64>,
    /// Labels its worker must carry.
    labels: Option<BTreeMap<String, String>>,
    /// What it may reach; left out: nothing.
    network: Option<args::NetworkInput>,
    /// Waits for a slot, at most 300.
    wait_seconds: Option<u64>,
    /// At most 128 bytes. A call repeated with the same key and arguments gets the same session.
    idempotency_key: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionInfoInput {
    /// Session handle; left out: the default one.
    session_id: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionListInput {
    /// Whether closed sessions are listed too.
    include_closed: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionUpdateInput {
    /// Session handle; left out: the default one.
    session_id: Option<String>,
    /// A new name.
    name: Option<String>,
    /// Notes to set. They are merged into what is there, and a null removes its key.
    metadata: Option<BTreeMap<String, Value>>,
    /// Replaces all notes instead of merging.
    replace_metadata: Option<bool>,
    /// New idle seconds after which the session's processes are ended.
    ttl_seconds: Option<u64>,
    /// At most 128 bytes. A call repeated with the same key and arguments is carried out once.
    idempotency_key: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionCloseInput {
    /// The session's handle.
    session_id: String,
    /// At most 128 bytes. A call repeated with the same key gets the same answer.
    idempotency_key: Option<String>,
}

#[derive(Debug, serde::Serialize, JsonSchema, ToSchema)]
pub(crate) struct SessionCloseOutput {
    /// The session.
    session_id: String,
    /// `closing` until its files are deleted, then `closed`.
    state: String,
}

#[derive(Debug, serde::Serialize, JsonSchema)]
pub(super) struct SessionListOutput {
    /// The sessions, oldest first.
    sessions: Vec<SessionView>,
}

#[derive(Debug, serde::Serialize, JsonSchema, ToSchema)]
pub(crate) struct SessionInfoOutput {
    #[serde(flatten)]
    session: SessionView,
    /// What the caller may use and uses, all its sessions together.
    yours: StandingView,
}

pub(super) fn create<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: SessionCreateInput = call.input()?;
        let key = args::key(input.idempotency_key)?;
        let ttl = args::ttl(input.ttl_seconds)?;
        let (labels, wait) = (args::labels(input.labels)?, args::wait_for_slot(input.wait_seconds)?);
        let approved = call.leave.approval().is_some();
        let network = SessionNetwork { approved, ..args::network(input.network)? };
        let metadata = input.metadata.unwrap_or_default();
        let key = key.map(|key| CreationKey { key, digest: session_keys::digest(call.tool.name, &call.request.args) });
        let (name, leave) = (input.name, call.leave);
        let create = CreateSession { name, metadata, ttl, labels, network, wait, key, leave };
        let connection = call.connection;
        let session = connection.sessions.create(connection.principal.clone(), create).await?.id;
        connection.note(session);
        Ok(Reply::Unrecorded(described(call, session, Detail::Full).await?, Some(session)))
    }
    .boxed()
}

pub(super) fn info<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: SessionInfoInput = call.input()?;
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let connection = call.connection;
        let standing = connection.sessions.standing(&connection.principal);
        let rate = connection.admission.rates().of(connection.door()).map(|rate| rate.to_string());
        let (session_view, yours) = (view(call, session, Detail::Full).await?, StandingView::of(&standing, rate));
        let mut text = session_view.text();
        yours.tell(&mut text);
        let output = SessionInfoOutput { session: session_view, yours };
        Ok(Reply::Unrecorded(ToolResult::structured(text, json!(output)), Some(session)))
    }
    .boxed()
}

pub(super) fn list<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: SessionListInput = call.input()?;
        let connection = call.connection;
        let listed = connection.sessions.list(&connection.principal, input.include_closed.unwrap_or(false));
        let mut sessions = Vec::with_capacity(listed.len());
        for snapshot in listed {
            let is_default = connection.is_default(snapshot.id).await;
            let in_force = connection.sessions.in_force(&snapshot);
            sessions.push(SessionView::of(&snapshot, &in_force, &connection.principal, is_default, Detail::Brief));
        }
        let mut lines: Vec<String> = sessions.iter().map(SessionView::line).collect();
        if lines.is_empty() {
            lines.push("no sessions; session_create makes one".to_owned());
        }
        let result = ToolResult::structured(lines.join("\n"), json!(SessionListOutput { sessions }));
        Ok(Reply::Unrecorded(result, None))
    }
    .boxed()
}

pub(super) fn update<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: SessionUpdateInput = call.input()?;
        let key = args::key(input.idempotency_key)?;
        let update = UpdateSession {
            name: input.name,
            metadata: input.metadata,
            replace_metadata: input.replace_metadata.unwrap_or(false),
            ttl: args::ttl(input.ttl_seconds)?,
        };
        let connection = call.connection;
        let session = connection.session(input.session_id.as_deref()).await?;
        let act = || async {
            let updated = connection.sessions.update(connection.principal.clone(), session, update).await;
            updated.map_err(|failure| Refusal::of_session(failure, session))?;
            Ok(session)
        };
        once(call, session, key.as_deref(), act).await?;
        Ok(Reply::Unrecorded(described(call, session, Detail::Brief).await?, Some(session)))
    }
    .boxed()
}

pub(super) fn close<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: SessionCloseInput = call.input()?;
        let key = args::key(input.idempotency_key)?;
        let connection = call.connection;
        let session = connection.session(Some(&input.session_id)).await?;
        let of_session = |failure| Refusal::of_session(failure, session);
        let act = || async {
            connection.sessions.close(connection.principal.clone(), session).await.map_err(of_session)?;
            Ok(session)
        };
        once(call, session, key.as_deref(), act).await?;
        let snapshot = connection.sessions.get(&connection.principal, session).map_err(of_session)?;
        let view = SessionCloseOutput { session_id: session.to_string(), state: snapshot.state.to_owned() };
        let text = format!("session {session} is closed for good; its processes are ended and its files deleted");
        Ok(Reply::Unrecorded(ToolResult::structured(text, json!(view)), Some(session)))
    }
    .boxed()
}

/// Acts, unless the key says that it was done already.
pub(super) async fn once<F>(
    call: &Call<'_>,
    session: SessionId,
    key: Option<&str>,
    act: impl FnOnce() -> F,
) -> Result<SessionId, Refusal>
where
    F: Future<Output = Result<SessionId, Refusal>>,
{
    let Some(key) = key else { return act().await };
    let (connection, tool, args) = (call.connection, call.tool.name, &call.request.args);
    let keyed = Keyed { principal: &connection.principal, session, tool, key, args };
    let act_with_leave = || async {
        match call.leave {
            Leave::Free | Leave::Approved(_) => act().await,
            Leave::OfEarlier => Err(session_keys::forgotten().into()),
        }
    };
    connection.session_keys.once(keyed, act_with_leave).await
}

async fn described(call: &Call<'_>, session: SessionId, detail: Detail) -> Result<ToolResult, Refusal> {
    let view = view(call, session, detail).await?;
    Ok(ToolResult::structured(view.text(), json!(view)))
}

async fn view(call: &Call<'_>, session: SessionId, detail: Detail) -> Result<SessionView, Refusal> {
    let connection = call.connection;
    let snapshot = connection.sessions.get(&connection.principal, session);
    let snapshot = snapshot.map_err(|failure| Refusal::of_session(failure, session))?;
    let (in_force, is_default) = (connection.sessions.in_force(&snapshot), connection.is_default(session).await);
    let view = SessionView::of(&snapshot, &in_force, &connection.principal, is_default, detail);
    Ok(match detail {
        Detail::Brief => view,
        Detail::Full => view.with_limits(&connection.limits).with_runtimes(connection.sessions.runtimes(&snapshot)),
    })
}
