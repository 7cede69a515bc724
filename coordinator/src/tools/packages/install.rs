//! `pkg_install`: what may be asked for is decided here, and by the worker again.

use codegen_types::packages::REQUIREMENTS_MAX;
use codegen_types::{ErrorCode, Exec, Failure, IndexUrl, Network, Operation, Program, Requirement};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::tools::args;
use crate::tools::call::{Act, Answer, Call, Reply};
use crate::tools::yielding::AnswerArgs;

/// Wall time of an installation when the call names none, in seconds.
const TIMEOUT_SECONDS: f64 = 300.0;
/// Characters of pip's own words when the call does not say: what matters is said beside them.
const OUTPUT_CHARS: u64 = 4_000;
/// The longest part of a refused requirement that is repeated, in characters.
const SHOWN_CHARS_MAX: usize = 100;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct PkgInstallInput {
    /// Session handle; left out: the default one.
    session_id: Option<String>,
    /// Requirements such as `requests>=2.31`, or wheels of the workspace such as `dist/name-1.0-py3-none-any.whl`.
    packages: Vec<String>,
    /// Whether packages that are there already are brought up to their newest version.
    upgrade: Option<bool>,
    /// The package index, one that the operator permits; left out, the operator's first.
    index_url: Option<String>,
    /// Wall time after which it is ended. Default 300.
    timeout_seconds: Option<f64>,
    /// Answer with the task's id if it still runs after so many seconds. Default 45.
    yield_after_seconds: Option<f64>,
    /// Answer at once with the task's id. Its wall time is then the longest allowed unless `timeout_seconds` says else.
    background: Option<bool>,
    /// Characters of pip's output shown, 200 to 100000. Default 4000.
    max_output_chars: Option<u64>,
    /// At most 128 bytes. The same key and arguments again get the first result; nothing runs.
    idempotency_key: Option<String>,
}

pub(in crate::tools) fn install<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: PkgInstallInput = call.input()?;
        let requirements = requirements(&input.packages)?;
        let network = network(&requirements, input.index_url.as_deref(), &call.connection.package_indexes)?;
        let longest_s = call.connection.limits.task_ms_max as f64 / 1_000.0;
        let default_s = (input.background != Some(true)).then_some(TIMEOUT_SECONDS.min(longest_s));
        let answer = AnswerArgs {
            timeout_seconds: input.timeout_seconds.or(default_s),
            yield_after_seconds: input.yield_after_seconds,
            background: input.background,
            max_output_chars: input.max_output_chars.or(Some(OUTPUT_CHARS)),
        };
        let answering = answer.read(call)?;
        let idempotency_key = args::key(input.idempotency_key)?;
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let requirements = requirements.iter().map(Requirement::to_string).collect();
        let program = Program::Install { requirements, upgrade: input.upgrade.unwrap_or(false) };
        let operation = Operation::Exec(Exec { network, ..Exec::of(program) });
        let act = Act { operation, timeout: answering.timeout, idempotency_key };
        call.run(session, act, answering).await.map(Reply::Recorded)
    }
    .boxed()
}

fn requirements(texts: &[String]) -> Result<Vec<Requirement>, Failure> {
    if texts.is_empty() || texts.len() > REQUIREMENTS_MAX {
        return Err(args::invalid("packages", format!("1 to {REQUIREMENTS_MAX} can be installed at once")));
    }
    let parse = |(place, text): (usize, &String)| {
        Requirement::parse(text).map_err(|error| {
            let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
            args::invalid(&format!("packages[{place}]"), format!("{shown:?} is refused: {error}"))
        })
    };
    texts.iter().enumerate().map(parse).collect()
}

/// Wheels alone need no network, unless an index is named for what they need.
fn network(requirements: &[Requirement], index_url: Option<&str>, permitted: &[IndexUrl]) -> Result<Network, Failure> {
    let wheels_alone = requirements.iter().all(|one| matches!(one, Requirement::Wheel(_)));
    if wheels_alone && index_url.is_none() {
        return Ok(Network::None);
    }
    let denied = |message: String| Failure::new(ErrorCode::PermissionDenied, message);
    if permitted.is_empty() {
        let message = "the operator permits no package index; wheels of the workspace can be installed";
        return Err(denied(message.to_owned()));
    }
    let Some(text) = index_url else { return Ok(Network::Packages { index_url: None }) };
    let index = IndexUrl::parse(text).map_err(|error| args::invalid("index_url", error.to_string()))?;
    if !permitted.contains(&index) {
        let list: Vec<&str> = permitted.iter().map(IndexUrl::as_str).collect();
        let message = format!("`index_url`: this index is not permitted here; permitted: {}", list.join(", "));
        return Err(denied(message));
    }
    Ok(Network::Packages { index_url: Some(index.as_str().to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(texts: &[&str]) -> Vec<Requirement> {
        requirements(&texts.iter().map(|text| text.to_string()).collect::<Vec<_>>()).expect("well formed")
    }

    #[test]
    fn wheels_alone_are_installed_without_network_and_only_permitted_indexes_are_used() {
        let permitted = [IndexUrl::parse("https://index.example/simple").expect("a URL")];
        let wheel = parsed(&["a-1-py3-none-any.whl"]);
        let both = parsed(&["a-1-py3-none-any.whl", "b"]);
        assert_eq!(network(&wheel, None, &[]), Ok(Network::None));
        assert_eq!(network(&both, None, &permitted), Ok(Network::Packages { index_url: None }));
        let named = network(&wheel, Some("https://INDEX.example/simple/"), &permitted);
        assert_eq!(named, Ok(Network::Packages { index_url: Some("https://index.example/simple".to_owned()) }));
        let code = |result: Result<Network, Failure>| result.map_err(|failure| failure.code);
        assert_eq!(code(network(&both, None, &[])), Err(ErrorCode::PermissionDenied));
        assert_eq!(
            code(network(&both, Some("https://evil.example/simple"), &permitted)),
            Err(ErrorCode::PermissionDenied)
        );
        assert_eq!(code(network(&both, Some("-i x"), &permitted)), Err(ErrorCode::InvalidArgument));
    }

    #[test]
    fn a_refused_requirement_is_named_by_its_place() {
        let failure = requirements(&["six".to_owned(), "--pre".to_owned()]).expect_err("an option");
        assert!(failure.message.starts_with("`packages[1]`: \"--pre\" is refused: options"), "{failure}");
        assert!(requirements(&[]).is_err() && requirements(&vec!["a".to_owned(); 101]).is_err());
    }
}
