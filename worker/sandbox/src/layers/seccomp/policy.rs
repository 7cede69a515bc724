//! Reads the rules on system calls from their text.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition};
use serde::Deserialize;
use toml::Spanned;

/// Rules that can be compiled.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    /// The highest number of a call that was looked at.
    pub(super) newest: u32,
    /// What is denied at every level.
    pub(super) always: Vec<Rule>,
    /// What is denied besides where memory is sampled.
    pub(super) sampled: Vec<Rule>,
    /// What is denied besides below level full.
    pub(super) below_full: Vec<Rule>,
}

/// A call that is denied, if every condition holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) call: String,
    pub(super) number: i64,
    pub(super) conditions: Vec<SeccompCondition>,
    pub(super) answer: Answer,
    /// The conditions as they are written.
    pub(super) when: Vec<String>,
}

/// What a denied call gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(super) enum Answer {
    #[default]
    #[serde(rename = "EPERM")]
    NotPermitted,
    #[serde(rename = "ENOSYS")]
    NoSuchCall,
    #[serde(rename = "ENOMEM")]
    NoMemory,
}

impl Answer {
    pub(super) const fn errno(self) -> i32 {
        match self {
            Self::NotPermitted => libc::EPERM,
            Self::NoSuchCall => libc::ENOSYS,
            Self::NoMemory => libc::ENOMEM,
        }
    }
}

/// A policy that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the policy on system calls is wrong in line {line}: {what}")]
pub(super) struct InvalidPolicy {
    pub(super) line: usize,
    pub(super) what: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    newest: u32,
    always: Vec<Spanned<Row>>,
    sampled: Vec<Spanned<Row>>,
    below_full: Vec<Spanned<Row>>,
    values: BTreeMap<String, Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    call: String,
    number: u32,
    #[serde(default)]
    when: Vec<String>,
    #[serde(default)]
    answer: Answer,
    why: String,
}

impl Policy {
    /// Reads a policy.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidPolicy> {
        let file: File = toml::from_str(text)
            .map_err(|error| wrong(text, error.span().unwrap_or_default(), error.message().trim_end()))?;
        let mut reader = Reader { text, values: &file.values, used: BTreeSet::new(), newest: file.newest };
        let policy = Self {
            newest: file.newest,
            always: reader.rules(file.always)?,
            sampled: reader.rules(file.sampled)?,
            below_full: reader.rules(file.below_full)?,
        };
        match file.values.iter().find(|(name, _)| !reader.used.contains(name.as_str())) {
            Some((name, value)) => Err(wrong(text, value.span(), &format!("no condition names {name}"))),
            None => Ok(policy),
        }
    }
}

fn wrong(text: &str, span: Range<usize>, what: &str) -> InvalidPolicy {
    let line = 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count();
    InvalidPolicy { line, what: what.to_owned() }
}

struct Reader<'a> {
    text: &'a str,
    values: &'a BTreeMap<String, Spanned<u32>>,
    used: BTreeSet<String>,
    newest: u32,
}

impl Reader<'_> {
    fn rules(&mut self, rows: Vec<Spanned<Row>>) -> Result<Vec<Rule>, InvalidPolicy> {
        let mut rules: Vec<Rule> = Vec::new();
        for row in rows {
            let span = row.span();
            let read = self.rule(row.into_inner());
            let rule = read.and_then(|rule| if_new(&rules, rule)).map_err(|what| wrong(self.text, span, &what))?;
            rules.push(rule);
        }
        Ok(rules)
    }

    fn rule(&mut self, row: Row) -> Result<Rule, String> {
        if row.why.trim().is_empty() {
            return Err(format!("{} has no reason", row.call));
        }
        if row.number > self.newest {
            return Err(format!("{} is newer than the newest call", row.call));
        }
        let conditions = row.when.iter().map(|text| self.condition(text)).collect::<Result<_, _>>()?;
        Ok(Rule { call: row.call, number: row.number.into(), conditions, answer: row.answer, when: row.when })
    }

    /// `ARGUMENT [& MASK] ==|!= VALUE`.
    fn condition(&mut self, text: &str) -> Result<SeccompCondition, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (argument, mask, op, value) = match words[..] {
            [argument, op, value] => (argument, None, op, value),
            [argument, "&", mask, op, value] => (argument, Some(self.value(mask)?), op, value),
            _ => return Err(format!("`{text}` is no condition")),
        };
        let op = match (op, mask) {
            ("==", None) => SeccompCmpOp::Eq,
            ("!=", None) => SeccompCmpOp::Ne,
            ("==", Some(mask)) => SeccompCmpOp::MaskedEq(mask),
            _ => return Err(format!("`{text}` compares in a way that is not known")),
        };
        let index = argument.parse().map_err(|_| format!("`{argument}` is no argument"))?;
        let value = self.value(value)?;
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value).map_err(|error| format!("`{text}`: {error}"))
    }

    fn value(&mut self, name: &str) -> Result<u64, String> {
        if name == "0" {
            return Ok(0);
        }
        let value = self.values.get(name).ok_or_else(|| format!("`{name}` is not among the values"))?;
        self.used.insert(name.to_owned());
        Ok(u64::from(*value.get_ref()))
    }
}

/// The rule, unless one of the others makes it pointless or contradicts it.
fn if_new(others: &[Rule], rule: Rule) -> Result<Rule, String> {
    for other in others {
        let same_call = other.call == rule.call;
        if same_call != (other.number == rule.number) {
            return Err(format!("{} and {} cannot both be number {}", other.call, rule.call, rule.number));
        }
        let covered = rule.conditions.is_empty() || other.conditions.is_empty() || other.when == rule.when;
        if same_call && covered {
            return Err(format!("{} is denied already", rule.call));
        }
    }
    Ok(rule)
}
