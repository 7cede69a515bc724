//! What a run's result says about packages and hosts, and what else its worker had to say.

use std::fmt::Write as _;

use codegen_types::{ContactOutcome, Exit};

/// The most packages that are named in a text.
const PACKAGES_NAMED_MAX: usize = 50;
/// The most hosts of each kind that are named in a text.
const HOSTS_NAMED_MAX: usize = 50;

/// Lines for the text of a result, each after a line end; nothing when there is nothing to tell.
pub(in crate::tools) fn told(exit: &Exit) -> String {
    let mut text = String::new();
    if !exit.packages.is_empty() {
        let named = exit.packages.iter().take(PACKAGES_NAMED_MAX);
        let named: Vec<String> = named.map(|package| format!("{} {}", package.name, package.version)).collect();
        text.push_str("\ninstalled ");
        text.push_str(&named.join(", "));
        let more = exit.packages.len().saturating_sub(PACKAGES_NAMED_MAX);
        if more > 0 {
            text.push_str(&format!(" and {more} more; pkg_list shows all"));
        }
    }
    for note in &exit.notes {
        text.push('\n');
        text.push_str(note);
    }
    let of =
        |outcome| exit.contacts.iter().filter(move |contact| contact.outcome == outcome).map(|one| one.host.clone());
    for (said, hosts) in [
        ("reached", exit.hosts.iter().cloned().chain(of(ContactOutcome::Reached)).collect::<Vec<_>>()),
        ("not reached", of(ContactOutcome::Failed).collect()),
        ("refused, since the session may not reach it,", of(ContactOutcome::Refused).collect()),
    ] {
        if !hosts.is_empty() {
            let named = hosts.len().min(HOSTS_NAMED_MAX);
            let _ = write!(text, "\n{said} {}", hosts[..named].join(", "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use codegen_types::Package;

    #[test]
    fn packages_notes_and_hosts_are_told_and_nothing_is_when_there_is_nothing() {
        assert_eq!(told(&Exit::default()), "");
        let package = |name: &str| Package { name: name.to_owned(), version: "1.0".to_owned() };
        let exit = Exit {
            packages: vec![package("a"), package("b")],
            notes: vec!["Already there: c 2.".to_owned()],
            hosts: vec!["index.example:443".to_owned()],
            ..Exit::default()
        };
        assert_eq!(told(&exit), "\ninstalled a 1.0, b 1.0\nAlready there: c 2.\nreached index.example:443");
    }
}
