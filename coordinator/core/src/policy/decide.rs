//! From a call to what holds for it.

use std::time::Duration;

use codegen_types::{Principal, WorkspacePath};

use super::pattern::{Followed, Kind};
use super::{Approvers, Effect, Policy, Rule, TIMEOUT_DEFAULT};

/// A call, as far as policy is about it.
#[derive(Debug, Clone, Copy)]
pub struct Action<'a> {
    /// Who makes it.
    pub principal: &'a Principal,
    /// The tool, by either of its names.
    pub tool: &'a str,
    /// What it is about. A call that is about nothing in particular is decided as a whole.
    pub subjects: &'a [Subject],
}

/// One thing that a call is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// A path in the workspace.
    pub path: Option<Touch>,
    /// A package, by its name in any spelling.
    pub package: Option<String>,
    /// The name of a host that the call may reach, without its port.
    pub host: Option<String>,
}

/// How a call touches a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touch {
    /// Itself.
    One(WorkspacePath),
    /// With all that is below.
    Tree(WorkspacePath),
    /// It takes it, with all that is below, to another place.
    Away {
        /// Where it is.
        from: WorkspacePath,
        /// Where it will be.
        to: WorkspacePath,
    },
}

/// What holds for a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision<'a> {
    /// What is to be done with it.
    pub effect: Effect,
    /// The rule that says so, the first of them in the file; none: the default.
    pub rule: Option<&'a Rule>,
    /// What the rule is about, when the call is about anything in particular.
    pub subject: Option<&'a Subject>,
    /// On what terms it may be approved; of several rules that require it the strictest terms.
    pub terms: Terms,
    /// Every rule that matches any subject, in the order of the file.
    pub matching: Vec<&'a Rule>,
}

/// On what terms a call may be approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// By whom.
    pub approvers: Approvers,
    /// For how long it is waited.
    pub timeout: Duration,
}

impl PartialEq for Rule {
    /// A name stands once in a file.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Policy {
    /// What holds for a call.
    pub fn decide<'a>(&'a self, action: Action<'a>) -> Decision<'a> {
        let tool = Kind::Tool.folded(action.tool);
        let about = |rule: &&Rule| rule.is_about(action.principal, &tool);
        let rules: Vec<&Rule> = self.rules.iter().filter(about).collect();
        let nothing = [Subject::default()];
        let subjects = if action.subjects.is_empty() { None } else { Some(action.subjects) };
        let mut strictest: Option<(Effect, Option<&Rule>, Option<usize>)> = None;
        let mut matching: Vec<&Rule> = Vec::new();
        for (place, subject) in subjects.unwrap_or(&nothing).iter().enumerate() {
            let matched: Vec<&Rule> = rules.iter().filter(|rule| rule.matches(subject)).copied().collect();
            let strict = matched.iter().rev().max_by_key(|rule| rule.effect).copied();
            let effect = strict.map_or(self.default, |rule| rule.effect);
            if strictest.is_none_or(|(so_far, ..)| effect > so_far) {
                strictest = Some((effect, strict, subjects.is_some().then_some(place)));
            }
            matching.extend(matched.into_iter().filter(|rule| !matching.contains(rule)).collect::<Vec<_>>());
        }
        let (effect, rule, place) = strictest.unwrap_or((self.default, None, None));
        matching.sort_by_key(|rule| rule.line);
        let terms = Terms::of(matching.iter().filter(|rule| rule.effect == Effect::RequireApproval));
        Decision { effect, rule, subject: place.map(|place| &action.subjects[place]), terms, matching }
    }
}

impl Terms {
    fn of<'a>(rules: impl Iterator<Item = &'a &'a Rule> + Clone) -> Self {
        let approvers = rules.clone().map(|rule| rule.approvers).min().unwrap_or(Approvers::OperatorOrUser);
        let timeout = rules.map(|rule| rule.timeout).min().unwrap_or(TIMEOUT_DEFAULT);
        Self { approvers, timeout }
    }
}

impl Rule {
    fn is_about(&self, principal: &Principal, tool: &str) -> bool {
        let matchers = &self.matchers;
        matchers.principal.as_ref().is_none_or(|names| names.is_match(principal.as_str()))
            && matchers.tool.as_ref().is_none_or(|names| names.is_match(tool))
    }

    /// Whether a subject is meant. A rule about paths does not mean what has none.
    fn matches(&self, subject: &Subject) -> bool {
        let matchers = &self.matchers;
        let path = match (&matchers.path, &subject.path) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(paths), Some(touch)) => {
                let follow =
                    |path: &WorkspacePath| paths.follow(path.as_str().split('/').filter(|part| !part.is_empty()));
                self.reaches(touch, follow)
            }
        };
        let named = |names: &Option<super::Names>, kind: Kind, text: &Option<String>| match (names, text) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(names), Some(text)) => names.is_match(&kind.folded(text)),
        };
        path && named(&matchers.package, Kind::Package, &subject.package)
            && named(&matchers.host, Kind::Host, &subject.host)
    }

    /// What restricts means all that the call might reach, what allows only what is meant in any case.
    fn reaches(&self, touch: &Touch, follow: impl Fn(&WorkspacePath) -> Followed) -> bool {
        let restricts = self.effect != Effect::Allow;
        match touch {
            Touch::One(path) => follow(path).touched,
            Touch::Tree(path) => {
                let followed = follow(path);
                followed.touched || (restricts && followed.reaches_below())
            }
            Touch::Away { from, to } => {
                let (here, there) = (follow(from), follow(to));
                // What is taken away is no longer meant, or what comes is meant only there: either goes round the rule.
                here.touched || (restricts && (there.touched || here.is_lost_at(&there) || there.is_lost_at(&here)))
            }
        }
    }
}
