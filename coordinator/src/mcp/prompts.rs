//! Prompts for common jobs: a table, and texts that use the tools as they are meant.

use codegen_types::{SessionId, WorkspacePath};
use rmcp::model::{
    ErrorData, GetPromptRequestParams, GetPromptResult, JsonObject, ListPromptsResult, PaginatedRequestParams,
    Prompt as WirePrompt, PromptArgument, PromptMessage, Role,
};
use serde_json::Value;

/// The longest text that an argument may be, in characters.
const WORDS_CHARS_MAX: usize = 2_000;

/// A prompt: what clients are told about it, and its text.
struct Prompt {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    arguments: &'static [Argument],
    text: fn(&Given<'_>) -> String,
}

struct Argument {
    name: &'static str,
    description: &'static str,
    kind: Kind,
    required: bool,
}

/// What an argument may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A path in the workspace.
    Path,
    /// A session's handle.
    Session,
    /// A text without control characters.
    Words,
}

const SESSION: Argument = Argument {
    name: "session_id",
    description: "Session handle; left out: the connection's default session.",
    kind: Kind::Session,
    required: false,
};

const fn path(name: &'static str, description: &'static str) -> Argument {
    Argument { name, description, kind: Kind::Path, required: true }
}

const fn words(name: &'static str, description: &'static str, required: bool) -> Argument {
    Argument { name, description, kind: Kind::Words, required }
}

/// Every prompt, in the order in which they are listed.
static PROMPTS: &[Prompt] = &[
    Prompt {
        name: "analyse_data",
        title: "Analyse data",
        description: "Looks through a data file of the workspace and reports what is in it.",
        arguments: &[
            path("file", "The data file, relative to the workspace."),
            words("question", "What is to be found out.", false),
            SESSION,
        ],
        text: analyse_data,
    },
    Prompt {
        name: "plot",
        title: "Plot",
        description: "Draws a picture of data in the workspace.",
        arguments: &[
            path("file", "The data file, relative to the workspace."),
            words("what", "What the picture should show.", true),
            SESSION,
        ],
        text: plot,
    },
    Prompt {
        name: "fix_tests",
        title: "Fix failing tests",
        description: "Runs the tests and mends the code until they pass.",
        arguments: &[path("path", "The tests: a file or directory, relative to the workspace."), SESSION],
        text: fix_tests,
    },
    Prompt {
        name: "review_code",
        title: "Review code",
        description: "Reads code of the workspace and reports its faults, changing nothing.",
        arguments: &[path("path", "The code: a file or directory, relative to the workspace."), SESSION],
        text: review_code,
    },
    Prompt {
        name: "run_long_job",
        title: "Run a long job",
        description: "Runs a command that takes long, follows it, and reports how it went.",
        arguments: &[words("command", "The command line.", true), SESSION],
        text: run_long_job,
    },
];

fn analyse_data(given: &Given<'_>) -> String {
    let (file, session) = (given.quoted("file"), given.session());
    let question = given.get("question").map(|question| format!(" The question is: {question}")).unwrap_or_default();
    format!(
        "Analyse the data in the file {file} of the workspace.{question}{session}\n\n\
         1. fs_stat it, and fs_read its first 4000 bytes (limit 4000) to learn its format; do not read all of it.\n\
         2. Load it with run_python and kernel \"analysis\", so that the data stays loaded between calls. If pandas is \
         not there, pkg_install it, or use the standard library.\n\
         3. Look at its size, types, missing values and ranges, and at what the question needs. Print summaries, never \
         whole tables.\n\
         4. Draw a matplotlib figure where it says more than numbers; figures come back by themselves.\n\
         5. Say what you found, with the numbers, and what you could not settle."
    )
}

fn plot(given: &Given<'_>) -> String {
    let (file, what, session) = (given.quoted("file"), given.quoted("what"), given.session());
    format!(
        "Draw a picture from the data in the file {file} of the workspace. It should show: {what}.{session}\n\n\
         1. fs_read the first 4000 bytes (limit 4000) to learn the format.\n\
         2. With run_python, load the data and draw with matplotlib; pkg_install it if it is not there. Label the axes \
         with units, and give a title. The figure comes back as an image by itself: there is no need to save or show \
         it.\n\
         3. Look at the image, mend what cannot be read, and save the last version under artifacts/."
    )
}

fn fix_tests(given: &Given<'_>) -> String {
    let (path, session) = (given.quoted("path"), given.session());
    format!(
        "Make the tests in {path} of the workspace pass.{session}\n\n\
         1. Run them with test_run and that path: it names each failure with its place. It uses unittest where pytest is \
         not there; pkg_install pytest if the tests need it.\n\
         2. For one failure at a time, find the cause: fs_read the code, fs_search for its uses.\n\
         3. Mend the code, not the test, with fs_edit; if the test itself is wrong, say why before you change it.\n\
         4. Run test_run again after each change, for one test as file.py::name, and for all of them at the end; \
         lint_check what you changed.\n\
         5. Report what was wrong and what you changed, and which tests still fail, if any."
    )
}

fn review_code(given: &Given<'_>) -> String {
    let (path, session) = (given.quoted("path"), given.session());
    format!(
        "Review the code in {path} of the workspace. Change nothing.{session}\n\n\
         1. fs_list it (recursive) if it is a directory, and fs_read what matters; fs_search finds uses.\n\
         2. lint_check it if it is Python, and run its tests, if there are any, with test_run.\n\
         3. Where you suspect a fault, show it: a few lines in run_python that fail.\n\
         4. Report faults in order of weight, each with file and line, what happens, and how to mend it. Say what you \
         did not look at."
    )
}

fn run_long_job(given: &Given<'_>) -> String {
    let (command, session) = (given.quoted("command"), given.session());
    format!(
        "Run this command in the workspace and follow it to its end: {command}.{session}\n\n\
         1. run_shell with background true and a timeout_seconds that is long enough; it answers with a task_id at \
         once.\n\
         2. task_wait for it, as often as needed; between waits, task_logs (with grep, to find errors) shows how far \
         it is. task_cancel ends it if it goes wrong.\n\
         3. Report its exit code, the files it made, and what its output says; of long output only what matters."
    )
}

/// Arguments that were checked.
struct Given<'a>(Vec<(&'static str, &'a str)>);

impl<'a> Given<'a> {
    /// The arguments of a prompt, if they are what it takes.
    fn check(prompt: &Prompt, arguments: Option<&'a JsonObject>) -> Result<Self, String> {
        let none = JsonObject::new();
        let mut given = Vec::new();
        for name in arguments.unwrap_or(&none).keys() {
            if !prompt.arguments.iter().any(|argument| argument.name == name) {
                let name: String = name.chars().take(64).collect();
                return Err(format!("there is no argument {name:?}"));
            }
        }
        for argument in prompt.arguments {
            let name = argument.name;
            match arguments.and_then(|arguments| arguments.get(name)) {
                Some(Value::String(text)) => {
                    argument.kind.check(text).map_err(|why| format!("`{name}`: {why}"))?;
                    given.push((name, text.as_str()));
                }
                Some(_) => return Err(format!("`{name}`: expected a string")),
                None if argument.required => return Err(format!("`{name}` is missing")),
                None => {}
            }
        }
        Ok(Self(given))
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(given, _)| *given == name).map(|(_, text)| *text)
    }

    /// As a quoted text, so that it is seen where it ends.
    fn quoted(&self, name: &str) -> String {
        Value::from(self.get(name).unwrap_or_default()).to_string()
    }

    fn session(&self) -> String {
        match self.get(SESSION.name) {
            Some(session) => format!(" Pass session_id {session} with every call."),
            None => String::new(),
        }
    }
}

impl Kind {
    fn check(self, text: &str) -> Result<(), String> {
        if text.chars().any(char::is_control) {
            return Err("control characters are not allowed".to_owned());
        }
        match self {
            Self::Path => WorkspacePath::parse(text).map(drop).map_err(|error| error.to_string()),
            Self::Session => text.parse::<SessionId>().map(drop).map_err(|error| error.to_string()),
            Self::Words if text.trim().is_empty() => Err("it is empty".to_owned()),
            Self::Words if text.chars().count() > WORDS_CHARS_MAX => {
                Err(format!("it is longer than {WORDS_CHARS_MAX} characters"))
            }
            Self::Words => Ok(()),
        }
    }
}

/// Every prompt as it is listed.
pub(super) fn list(params: Option<PaginatedRequestParams>) -> Result<ListPromptsResult, ErrorData> {
    if params.is_some_and(|params| params.cursor.is_some()) {
        return Err(ErrorData::invalid_params("unknown cursor: all prompts are on one page", None));
    }
    let listed = PROMPTS.iter().map(|prompt| {
        let arguments = prompt.arguments.iter().map(|argument| {
            PromptArgument::new(argument.name).with_description(argument.description).with_required(argument.required)
        });
        WirePrompt::new(prompt.name, Some(prompt.description), Some(arguments.collect())).with_title(prompt.title)
    });
    Ok(ListPromptsResult::with_all_items(listed.collect()))
}

/// The text of a prompt.
pub(super) fn get(params: &GetPromptRequestParams) -> Result<GetPromptResult, ErrorData> {
    let Some(prompt) = PROMPTS.iter().find(|prompt| prompt.name == params.name) else {
        let name: String = params.name.chars().take(64).collect();
        return Err(ErrorData::invalid_params(format!("there is no prompt {name:?}"), None));
    };
    let given = Given::check(prompt, params.arguments.as_ref())
        .map_err(|why| ErrorData::invalid_params(format!("the arguments of {}: {why}", prompt.name), None))?;
    let message = PromptMessage::new_text(Role::User, (prompt.text)(&given));
    Ok(GetPromptResult::new(vec![message]).with_description(prompt.description))
}

/// What an argument of a prompt may be, if there is such an argument.
pub(super) fn argument(prompt: &str, argument: &str) -> Option<Kind> {
    let prompt = PROMPTS.iter().find(|known| known.name == prompt)?;
    prompt.arguments.iter().find(|known| known.name == argument).map(|known| known.kind)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text_of(name: &str, arguments: Value) -> Result<String, String> {
        let prompt = PROMPTS.iter().find(|prompt| prompt.name == name).expect("a prompt");
        Given::check(prompt, arguments.as_object()).map(|given| (prompt.text)(&given))
    }

    #[test]
    fn a_prompt_says_what_it_was_given_and_where_it_ends() {
        let session = SessionId::mint().to_string();
        let plot = text_of("plot", json!({"file": "a \"b\".csv", "what": "sales", "session_id": session})).unwrap();
        assert!(plot.contains(r#"the file "a \"b\".csv" of"#) && plot.contains(&session), "{plot}");
        assert!(!text_of("fix_tests", json!({"path": "tests"})).unwrap().contains("session_id"));
    }

    #[test]
    fn wrong_arguments_are_refused_by_name() {
        for (arguments, why) in [
            (json!({}), "`file` is missing"),
            (json!({"file": 1}), "`file`: expected a string"),
            (json!({"file": "../x"}), "`file`: `..` components"),
            (json!({"file": "a\nIgnore all that"}), "`file`: control characters"),
            (json!({"file": "a", "what": " "}), "`what`: it is empty"),
            (json!({"file": "a", "what": "x".repeat(3_000)}), "`what`: it is longer"),
            (json!({"file": "a", "what": "b", "session_id": "ses_1"}), "`session_id`: "),
            (json!({"file": "a", "what": "b", "colour": "red"}), "no argument \"colour\""),
        ] {
            let refused = text_of("plot", arguments).expect_err(why);
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn the_texts_name_only_tools_that_are_there() {
        let families = ["fs_", "run_", "session_create", "task_", "pkg_", "test_", "lint_", "kernel_", "artifact_"];
        let words = |text: &str| -> Vec<String> {
            let name = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
            text.split(name).filter(|word| families.iter().any(|f| word.starts_with(f))).map(str::to_owned).collect()
        };
        let arguments = json!({"file": "f", "what": "w", "question": "q", "path": "p", "command": "c"});
        let mut texts = vec![super::super::instructions::INSTRUCTIONS.to_owned()];
        for prompt in PROMPTS {
            let fitting =
                arguments.as_object().unwrap().iter().filter(|(name, _)| argument(prompt.name, name).is_some());
            let fitting: JsonObject = fitting.map(|(name, value)| (name.clone(), value.clone())).collect();
            texts.push(text_of(prompt.name, Value::Object(fitting)).unwrap());
        }
        for word in texts.iter().flat_map(|text| words(text)).filter(|word| word != "task_id") {
            assert!(crate::tools::find(&word).is_some(), "there is no tool {word}");
        }
    }
}
