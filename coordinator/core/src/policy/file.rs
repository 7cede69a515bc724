//! A policy as it is written: TOML, read strictly, with the line of everything that is wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::pattern::{Case, Kind, Names, Paths};
use super::{Approvers, Effect, Matchers, Policy, Rule, TIMEOUT_DEFAULT};

/// The longest policy, in bytes.
pub const POLICY_BYTES_MAX: usize = 1 << 20;
/// The most rules.
const RULES_MAX: usize = 500;
/// The most patterns of one kind in one rule.
const PATTERNS_MAX: usize = 100;
/// The longest name of a rule, in characters.
const NAME_CHARS_MAX: usize = 80;
/// The longest reason, in characters.
const REASON_CHARS_MAX: usize = 500;
/// How long an approval may be waited for.
const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// Why a text is no policy: everything that is wrong with it, from the first line on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("; "))]
pub struct InvalidPolicy(pub Vec<Problem>);

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    default: Option<Effect>,
    #[serde(default)]
    rule: Vec<Spanned<RuleText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    name: Spanned<String>,
    principal: Option<Spanned<OneOrMore>>,
    tool: Option<Spanned<OneOrMore>>,
    path: Option<Spanned<OneOrMore>>,
    package: Option<Spanned<OneOrMore>>,
    host: Option<Spanned<OneOrMore>>,
    effect: Effect,
    reason: Option<Spanned<String>>,
    approvers: Option<Spanned<Vec<Approver>>>,
    timeout: Option<Spanned<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Approver {
    Operator,
    User,
}

/// One pattern, or a list of them.
struct OneOrMore(Vec<String>);

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Patterns;
        impl<'de> Visitor<'de> for Patterns {
            type Value = OneOrMore;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pattern or a list of patterns")
            }

            fn visit_str<E>(self, text: &str) -> Result<OneOrMore, E> {
                Ok(OneOrMore(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMore, A::Error> {
                let mut patterns = Vec::new();
                while let Some(pattern) = list.next_element()? {
                    patterns.push(pattern);
                }
                Ok(OneOrMore(patterns))
            }
        }
        deserializer.deserialize_any(Patterns)
    }
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// Everything that is wrong; what is wrong with the TOML itself comes alone.
    pub fn parse(text: &str) -> Result<Self, InvalidPolicy> {
        let lines = Lines::of(text);
        let whole = |message: String| InvalidPolicy(vec![Problem { line: 1, message }]);
        if text.len() > POLICY_BYTES_MAX {
            return Err(whole(format!("a policy has at most {POLICY_BYTES_MAX} bytes")));
        }
        let file: FileText = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| lines.at(span.start));
            InvalidPolicy(vec![Problem { line, message: error.message().to_owned() }])
        })?;
        if file.rule.len() > RULES_MAX {
            return Err(whole(format!("a policy has at most {RULES_MAX} rules")));
        }
        let mut reader = Reader { lines, problems: Vec::new(), names: BTreeMap::new() };
        let rules = file.rule.into_iter().map(|rule| reader.rule(rule)).collect();
        if !reader.problems.is_empty() {
            reader.problems.sort_by_key(|problem| problem.line);
            return Err(InvalidPolicy(reader.problems));
        }
        Ok(Self { default: file.default.unwrap_or(Effect::Allow), rules })
    }
}

/// Where lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// The line of a byte, from 1.
    fn at(&self, byte: usize) -> usize {
        self.0.partition_point(|begin| *begin <= byte)
    }
}

struct Reader {
    lines: Lines,
    problems: Vec<Problem>,
    /// The line of each name.
    names: BTreeMap<String, usize>,
}

impl Reader {
    fn problem(&mut self, line: usize, message: impl Into<String>) {
        self.problems.push(Problem { line, message: message.into() });
    }

    fn rule(&mut self, text: Spanned<RuleText>) -> Rule {
        let line = self.lines.at(text.span().start);
        let text = text.into_inner();
        let name = self.name(text.name);
        let case = if text.effect == Effect::Allow { Case::Counts } else { Case::IsDisregarded };
        let matchers = Matchers {
            principal: self.names("principal", Kind::Principal, text.principal),
            tool: self.names("tool", Kind::Tool, text.tool),
            path: self.patterns("path", text.path, |texts| Paths::parse(texts, case)),
            package: self.names("package", Kind::Package, text.package),
            host: self.names("host", Kind::Host, text.host),
        };
        let of_approval = [
            ("approvers", text.approvers.as_ref().map(Spanned::span)),
            ("timeout", text.timeout.as_ref().map(Spanned::span)),
        ];
        for (key, span) in of_approval.into_iter().filter(|_| text.effect != Effect::RequireApproval) {
            if let Some(span) = span {
                self.problem(self.lines.at(span.start), format!("`{key}` is for rules that require approval"));
            }
        }
        let reason = text.reason.and_then(|reason| self.reason(reason));
        let approvers = text.approvers.map_or(Approvers::OperatorOrUser, |approvers| self.approvers(approvers));
        let timeout = text.timeout.map_or(TIMEOUT_DEFAULT, |timeout| self.timeout(timeout));
        Rule { name, line, effect: text.effect, reason, approvers, timeout, matchers }
    }

    fn name(&mut self, text: Spanned<String>) -> String {
        let line = self.lines.at(text.span().start);
        let name = text.into_inner();
        if name.trim().is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
            self.problem(line, format!("a rule's name has 1 to {NAME_CHARS_MAX} printable characters"));
        }
        if let Some(other) = self.names.insert(name.clone(), line) {
            self.problem(line, format!("the rule of line {other} has the name {name:?}, too"));
        }
        name
    }

    fn reason(&mut self, text: Spanned<String>) -> Option<String> {
        let line = self.lines.at(text.span().start);
        let reason = text.into_inner();
        if reason.chars().count() > REASON_CHARS_MAX || reason.chars().any(char::is_control) {
            self.problem(line, format!("a reason has at most {REASON_CHARS_MAX} printable characters"));
        }
        (!reason.trim().is_empty()).then_some(reason)
    }

    fn approvers(&mut self, text: Spanned<Vec<Approver>>) -> Approvers {
        let line = self.lines.at(text.span().start);
        let approvers = text.into_inner();
        if approvers.is_empty() {
            self.problem(line, "`approvers` names nobody; `[\"operator\"]` is the operator alone");
        }
        if approvers.contains(&Approver::User) { Approvers::OperatorOrUser } else { Approvers::Operator }
    }

    fn timeout(&mut self, text: Spanned<String>) -> Duration {
        let line = self.lines.at(text.span().start);
        match humantime::parse_duration(text.get_ref()) {
            Ok(timeout) if TIMEOUTS.contains(&timeout) => timeout,
            _ => {
                self.problem(line, "`timeout` is a duration such as \"5m\", from 1s to 1day");
                TIMEOUT_DEFAULT
            }
        }
    }

    fn names(&mut self, key: &str, kind: Kind, texts: Option<Spanned<OneOrMore>>) -> Option<Names> {
        self.patterns(key, texts, |texts| Names::parse(kind, texts))
    }

    fn patterns<T>(
        &mut self,
        key: &str,
        texts: Option<Spanned<OneOrMore>>,
        parse: impl FnOnce(&[String]) -> Result<T, String>,
    ) -> Option<T> {
        let texts = texts?;
        let line = self.lines.at(texts.span().start);
        let OneOrMore(texts) = texts.into_inner();
        let parsed = match texts.len() {
            0 => Err("an empty list matches nothing; leave the key out to mean everything".to_owned()),
            1..=PATTERNS_MAX => parse(&texts),
            _ => Err(format!("a list has at most {PATTERNS_MAX} patterns")),
        };
        parsed.map_err(|why| self.problem(line, format!("`{key}`: {why}"))).ok()
    }
}
