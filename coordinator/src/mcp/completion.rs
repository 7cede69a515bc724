//! Completing the arguments of the resource template and of the prompts.

use rmcp::model::{CompleteRequestParams, CompleteResult, CompletionInfo, ErrorData, Reference};
use rmcp::service::{RequestContext, RoleServer};

use super::handler::Handler;
use super::prompts;
use super::resources::{TEMPLATE, TRANSCRIPT_TEMPLATE};
use crate::tools::Completions;

/// What can be completed.
enum Completable {
    Session,
    Path,
    /// A text of the client's own.
    Nothing,
}

impl Handler {
    /// How an argument that was begun may go on. What is not there or not the client's completes to nothing.
    pub(super) async fn completions(
        &self,
        params: CompleteRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let _place = self.place()?;
        let begun = params.argument.value.as_str();
        let asked = self.asked("completion/complete", context);
        let found = match completable(&params.r#ref, &params.argument.name)? {
            Completable::Session => self.connection().complete_session(begun, &asked),
            Completable::Path => {
                let known = params.context.as_ref();
                let session = ["session", "session_id"].iter().find_map(|name| known?.get_argument(name));
                self.connection().complete_path(session.map(String::as_str), begun, &asked).await
            }
            Completable::Nothing => Completions::default(),
        };
        let total = u32::try_from(found.values.len()).ok().filter(|_| !found.has_more);
        let info = CompletionInfo::with_pagination(found.values, total, found.has_more);
        Ok(CompleteResult::new(info.map_err(|error| ErrorData::internal_error(error, None))?))
    }
}

fn completable(reference: &Reference, argument: &str) -> Result<Completable, ErrorData> {
    let unknown = |what: &str| Err(ErrorData::invalid_params(format!("there is no such {what} to complete"), None));
    match reference {
        Reference::Resource(template) if template.uri == TEMPLATE => match argument {
            "session" => Ok(Completable::Session),
            "path" => Ok(Completable::Path),
            _ => unknown("argument of the template"),
        },
        Reference::Resource(template) if template.uri == TRANSCRIPT_TEMPLATE && argument == "session" => {
            Ok(Completable::Session)
        }
        Reference::Resource(_) => unknown("template"),
        Reference::Prompt(prompt) => match prompts::argument(&prompt.name, argument) {
            Some(prompts::Kind::Session) => Ok(Completable::Session),
            Some(prompts::Kind::Path) => Ok(Completable::Path),
            Some(prompts::Kind::Words) => Ok(Completable::Nothing),
            None => unknown("argument of a prompt"),
        },
        _ => unknown("thing"),
    }
}
