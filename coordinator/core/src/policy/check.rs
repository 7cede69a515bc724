//! What a policy says otherwise than its author may think.

use std::fmt;

use serde::Serialize;

use super::{Effect, Policy, Rule};

/// The tools that run code, which sees more of the workspace than any rule about paths.
const RUN_TOOLS: [&str; 4] = ["run_python", "run_shell", "run_code", "test_run"];
/// The tool that packages and hosts are about.
const PACKAGE_TOOL: &str = "pkg_install";
/// The tool that hosts are about, too.
const NETWORK_TOOL: &str = "session_create";

/// Something to think about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The line of the rule, from 1.
    pub line: usize,
    /// The rule.
    pub rule: String,
    /// What about it.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: rule {:?}: {}", self.line, self.rule, self.message)
    }
}

/// A tool that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownTool<'a> {
    /// Its listed name.
    pub name: &'a str,
    /// Whether its calls name paths.
    pub names_paths: bool,
}

impl Policy {
    /// What its author should know. `known` are all tools there are.
    pub fn warnings(&self, known: &[KnownTool<'_>]) -> Vec<Warning> {
        let tools: Vec<&str> = known.iter().map(|tool| tool.name).collect();
        let mut warnings = Vec::new();
        for rule in &self.rules {
            let mut warn =
                |message: String| warnings.push(Warning { line: rule.line, rule: rule.name.clone(), message });
            for pattern in rule.matchers.tool.iter().flat_map(|names| names.matching_none(&tools)) {
                warn(format!("there is no tool {pattern:?}"));
            }
            if rule.effect == Effect::Allow && self.default == Effect::Allow {
                warn(
                    "it changes nothing: what no rule matches is allowed in any case, and a stricter rule that \
                      matches as well holds, wherever it stands"
                        .to_owned(),
                );
            }
            without_paths(rule, known).into_iter().for_each(&mut warn);
            self.about_paths(rule).into_iter().for_each(&mut warn);
            about_packages(rule).into_iter().for_each(&mut warn);
        }
        warnings
    }

    fn about_paths(&self, rule: &Rule) -> Option<String> {
        if rule.matchers.path.is_none() || rule.effect == Effect::Allow {
            return None;
        }
        let open: Vec<&str> = RUN_TOOLS.into_iter().filter(|tool| !self.is_closed(tool, rule)).collect();
        (!open.is_empty()).then(|| {
            format!(
                "code that {} runs is not stopped from touching these paths: what a program does inside its own process \
                 is not seen; deny these tools, too, where that matters",
                open.join(", ")
            )
        })
    }

    /// Whether whoever a rule is about cannot use a tool without being denied or asked as strictly.
    fn is_closed(&self, tool: &str, about: &Rule) -> bool {
        let meant = |rule: &Rule| rule.matchers.tool.as_ref().is_none_or(|names| names.is_match(tool));
        let everything = |rule: &Rule| {
            let Rule { matchers, .. } = rule;
            matchers.path.is_none() && matchers.package.is_none() && matchers.host.is_none()
        };
        let everybody = |rule: &Rule| match (&rule.matchers.principal, &about.matchers.principal) {
            (None, _) => true,
            (Some(names), of) => {
                let all = names.texts().any(|text| text == "*");
                all || of.as_ref().is_some_and(|of| of.texts().all(|text| names.texts().any(|name| name == text)))
            }
        };
        let strict = |rule: &&Rule| rule.effect >= about.effect && meant(rule) && everything(rule) && everybody(rule);
        let allowed = || self.rules.iter().any(|rule| rule.effect == Effect::Allow && meant(rule));
        self.rules.iter().any(|rule| strict(&rule)) || (self.default >= about.effect && !allowed())
    }
}

/// A rule about paths that is limited to tools whose calls name none.
fn without_paths(rule: &Rule, known: &[KnownTool<'_>]) -> Option<String> {
    let (Some(_), Some(names)) = (&rule.matchers.path, &rule.matchers.tool) else { return None };
    let meant: Vec<&KnownTool<'_>> = known.iter().filter(|tool| names.is_match(tool.name)).collect();
    let blind = |tool: &&&KnownTool<'_>| !tool.names_paths;
    let without: Vec<&str> = meant.iter().filter(blind).map(|tool| tool.name).collect();
    match (without.len(), meant.len()) {
        (0, _) => None,
        (some, all) if some == all => {
            Some(format!("it never matches: calls of {} name no path, so leave out `path`", without.join(", ")))
        }
        _ => Some(format!("it never matches calls of {}, which name no path", without.join(", "))),
    }
}

fn about_packages(rule: &Rule) -> Vec<String> {
    let mut said = Vec::new();
    let (package, host) = (rule.matchers.package.is_some(), rule.matchers.host.is_some());
    let about = |tool: &str| rule.matchers.tool.as_ref().is_none_or(|tools| tools.is_match(tool));
    if (package || host) && !about(PACKAGE_TOOL) && (package || !about(NETWORK_TOOL)) {
        said.push(format!(
            "it never matches: packages are what {PACKAGE_TOOL} is about, and hosts what it and {NETWORK_TOOL} are about"
        ));
    }
    if package && rule.effect != Effect::Allow {
        said.push(
            "packages are seen as a call names them, a wheel by its file's name: what they depend on comes with them \
             unseen"
                .to_owned(),
        );
    }
    said
}
