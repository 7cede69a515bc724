//! `fs_search`: lines of files that match a pattern.

use codegen_types::event::{FileMatches, Found, FoundLine, SearchCut};
use codegen_types::operation::Search;
use codegen_types::{Operation, OperationResult};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::reply::file_reply;
use crate::tools::args;
use crate::tools::call::{Answer, Call};
use crate::tools::result::ToolResult;

/// The longest pattern or glob, in bytes.
const PATTERN_BYTES_MAX: usize = 1_024;
/// Matches given when a call does not say how many.
const MATCHES: u32 = 100;
/// The most matches that a call may ask for.
const MATCHES_MAX: u32 = 1_000;
/// The most lines of context on each side.
const CONTEXT_MAX: u32 = 20;
/// Characters of lines that one result shows.
const TEXT_CHARS_MAX: usize = 20_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct FsSearchInput {
    /// Session handle; left out: the default one.
    session_id: Option<String>,
    /// A regular expression for part of a line, as in ripgrep: no look-around, no backreferences.
    pattern: String,
    /// The file or directory to search, relative to the workspace; left out, the workspace itself.
    path: Option<String>,
    /// Only files that match this glob: `*.py` at any depth, `src/**/*.py` below `path`.
    glob: Option<String>,
    /// Lines shown before and after each match. Default 0, at most 20.
    context: Option<u32>,
    /// Whether `pattern` is plain text. Default false.
    literal: Option<bool>,
    /// Whether upper and lower case are the same. Default false.
    ignore_case: Option<bool>,
    /// Default 100, at most 1000.
    max_matches: Option<u32>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::tools) struct FsSearchOutput {
    /// The lines shown, by file and number.
    lines: Vec<LineView>,
    /// Files that were searched.
    files_searched: u64,
    /// Files that were not: binary, too large or unreadable.
    files_skipped: u64,
    /// Whether there is more to be found than is shown.
    truncated: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
struct LineView {
    path: String,
    line: u64,
    text: String,
    /// Whether it matches; else it is context.
    is_match: bool,
}

pub(in crate::tools) fn search<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: FsSearchInput = call.input()?;
        let path = args::path("path", input.path.as_deref().unwrap_or(""))?;
        if input.pattern.is_empty() {
            return Err(args::invalid("pattern", "it is empty and would match every line").into());
        }
        args::bounded("pattern", &input.pattern, PATTERN_BYTES_MAX)?;
        input.glob.as_deref().map_or(Ok(()), |text| args::bounded("glob", text, PATTERN_BYTES_MAX))?;
        let context = input.context.unwrap_or(0);
        if context > CONTEXT_MAX {
            return Err(args::invalid("context", format!("must be from 0 to {CONTEXT_MAX}")).into());
        }
        let matches_max = input.max_matches.unwrap_or(MATCHES);
        if !(1..=MATCHES_MAX).contains(&matches_max) {
            return Err(args::invalid("max_matches", format!("must be from 1 to {MATCHES_MAX}")).into());
        }
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let search = Search {
            path,
            pattern: input.pattern,
            literal: input.literal.unwrap_or(false),
            ignore_case: input.ignore_case.unwrap_or(false),
            glob: input.glob,
            context,
            matches_max,
        };
        let outcome = call.act(session, Operation::Search(search).into()).await?;
        Ok(file_reply(outcome, |result| match result {
            OperationResult::Search(found) => Some(render(found)),
            _ => None,
        }))
    }
    .boxed()
}

fn render(found: &Found) -> ToolResult {
    let mut text = summary(found);
    let mut lines = Vec::new();
    let mut chars_left = TEXT_CHARS_MAX;
    let mut last: Option<(&str, u64)> = None;
    let has_context = found.files.iter().flat_map(|file| &file.lines).any(|line| !line.is_match);
    let all: Vec<(&FileMatches, &FoundLine)> =
        found.files.iter().flat_map(|file| file.lines.iter().map(move |line| (file, line))).collect();
    for (file, line) in &all {
        let mark = if line.is_match { ':' } else { '-' };
        let shown = format!("{}{mark}{}{mark}{}", file.path, line.number, line.text);
        let Some(left) = chars_left.checked_sub(shown.chars().count() + 1) else { break };
        chars_left = left;
        let adjoins = last.is_some_and(|(path, number)| path == file.path && number + 1 == line.number);
        text.push_str(if has_context && last.is_some() && !adjoins { "\n--\n" } else { "\n" });
        text.push_str(&shown);
        last = Some((&file.path, line.number));
        let FoundLine { number, is_match, text } = (*line).clone();
        lines.push(LineView { path: file.path.clone(), line: number, text, is_match });
    }
    let left_out = all.len() - lines.len();
    if left_out > 0 {
        text.push_str(&format!("\n[{left_out} lines left out; narrow pattern, path or glob to see them]"));
    }
    if let Some(cut) = found.cut {
        text.push_str(&format!("\n[{}]", why_cut(cut)));
    }
    let output = FsSearchOutput {
        lines,
        files_searched: found.files_searched,
        files_skipped: skipped(found),
        truncated: left_out > 0 || found.cut.is_some(),
    };
    ToolResult::structured(text, json!(output))
}

/// How many matches there are where, and what was not searched.
fn summary(found: &Found) -> String {
    let matches = found.files.iter().flat_map(|file| &file.lines).filter(|line| line.is_match).count();
    let files = found.files.len();
    let counted = |count: u64, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let mut text = match matches {
        0 => "no match".to_owned(),
        _ => format!(
            "{} in {}",
            counted(matches as u64, "matching line", "matching lines"),
            counted(files as u64, "file", "files")
        ),
    };
    text.push_str(&format!("; {} searched", counted(found.files_searched, "file", "files")));
    let reasons = [
        (found.skipped.binary, "binary"),
        (found.skipped.too_large, "too large or with too long a line"),
        (found.skipped.unreadable, "unreadable or with several hard links"),
    ];
    let reasons: Vec<String> =
        reasons.into_iter().filter(|(count, _)| *count > 0).map(|(count, why)| format!("{count} {why}")).collect();
    if !reasons.is_empty() {
        text.push_str(&format!(", not searched: {}", reasons.join(", ")));
    }
    text
}

const fn skipped(found: &Found) -> u64 {
    let skipped = found.skipped;
    skipped.binary.saturating_add(skipped.too_large).saturating_add(skipped.unreadable)
}

const fn why_cut(cut: SearchCut) -> &'static str {
    match cut {
        SearchCut::Matches => "there are more matches; narrow pattern, path or glob, or raise max_matches",
        SearchCut::Volume => "there is more than one search gives; narrow pattern, path or glob",
        SearchCut::Files => {
            "not every file was searched, since there are too many or some directory cannot be read; give path"
        }
        SearchCut::Time => "the search took too long and was ended; narrow path or glob, or simplify the pattern",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::result::Content;
    use codegen_types::event::SkippedFiles;

    fn line(number: u64, is_match: bool, text: &str) -> FoundLine {
        FoundLine { number, is_match, text: text.to_owned() }
    }

    fn text(result: &ToolResult) -> &str {
        let [Content::Text(text)] = result.content.as_slice() else { panic!("one text block: {result:?}") };
        text
    }

    #[test]
    fn matches_are_shown_as_ripgrep_does_and_what_was_skipped_is_said() {
        let found = Found {
            files: vec![
                FileMatches {
                    path: "a".into(),
                    lines: vec![line(1, true, "x"), line(2, false, "y"), line(9, true, "x")],
                },
                FileMatches { path: "b".into(), lines: vec![line(10, true, "x")] },
            ],
            files_searched: 3,
            skipped: SkippedFiles { binary: 1, ..SkippedFiles::default() },
            cut: Some(SearchCut::Matches),
        };
        let result = render(&found);
        let expected = "3 matching lines in 2 files; 3 files searched, not searched: 1 binary\n\
                        a:1:x\na-2-y\n--\na:9:x\n--\nb:10:x\n\
                        [there are more matches; narrow pattern, path or glob, or raise max_matches]";
        assert_eq!(text(&result), expected);
        let structured = result.structured.expect("it has structure");
        assert_eq!(structured["lines"][1], json!({"path": "a", "line": 2, "text": "y", "is_match": false}));
        assert_eq!((&structured["truncated"], &structured["files_skipped"]), (&json!(true), &json!(1)));
    }

    #[test]
    fn a_result_stays_within_its_budget() {
        let lines = (1..=1_000).map(|number| line(number, true, &"é".repeat(500))).collect();
        let found = Found { files: vec![FileMatches { path: "f".into(), lines }], ..Found::default() };
        let result = render(&found);
        assert!(text(&result).chars().count() < TEXT_CHARS_MAX + 200, "{}", text(&result).len());
        assert!(text(&result).contains("lines left out; narrow"), "{}", text(&result).len());
        assert!(result.structured.expect("it has structure")["lines"].as_array().expect("lines").len() < 50);
    }

    #[test]
    fn no_match_says_how_much_was_searched() {
        assert_eq!(text(&render(&Found { files_searched: 1, ..Found::default() })), "no match; 1 file searched");
    }
}
