//! The table of attacks and their results.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::ground::Column;

/// What became of one attack at one level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was stopped, in this way.
    Stopped(String),
    /// It was not, and this level does not promise that it is.
    NotPromised(String),
    /// It was not, and ought to have been; or the attack could not be made.
    Failed(String),
}

/// What became of the attacks of one class, by attack and column.
#[derive(Debug, Default)]
pub struct Table {
    class: &'static str,
    rows: Vec<(String, BTreeMap<&'static str, Outcome>)>,
}

impl Table {
    pub fn of(class: &'static str) -> Self {
        Self { class, rows: Vec::new() }
    }

    pub fn add(&mut self, attack: &str, column: Column, outcome: Outcome) {
        let known = self.rows.iter_mut().find(|(name, _)| name == attack);
        match known {
            Some((_, outcomes)) => drop(outcomes.insert(column.name, outcome)),
            None => self.rows.push((attack.to_owned(), BTreeMap::from([(column.name, outcome)]))),
        }
    }

    /// Prints the table, and fails when an attack came through that should not have.
    #[expect(clippy::print_stdout, reason = "`make attack` shows it")]
    pub fn judge(&self, columns: &[Column]) {
        println!("{}", self.text(columns));
        let mut wrong = String::new();
        for (attack, outcomes) in &self.rows {
            for (column, outcome) in outcomes {
                if let Outcome::Failed(why) = outcome {
                    let _ = writeln!(wrong, "{} / {attack} / {column}: {why}", self.class);
                }
            }
        }
        assert!(wrong.is_empty(), "not stopped:\n{wrong}");
        assert!(!self.rows.is_empty(), "{}: nothing was tried", self.class);
    }

    fn text(&self, columns: &[Column]) -> String {
        let mut text = format!("\n| {:<20} | {:<72} |", "class", "attack");
        for column in columns {
            let _ = write!(text, " {:<28} |", column.name);
        }
        for (attack, outcomes) in &self.rows {
            let _ = write!(text, "\n| {:<20} | {attack:<72} |", self.class);
            for column in columns {
                let said = match outcomes.get(column.name) {
                    Some(Outcome::Stopped(how)) => format!("stopped: {how}"),
                    Some(Outcome::NotPromised(_)) => "not promised".to_owned(),
                    Some(Outcome::Failed(why)) => format!("FAILED: {why}"),
                    None => "-".to_owned(),
                };
                let _ = write!(text, " {:<28} |", said.chars().take(28).collect::<String>());
            }
        }
        text
    }
}
