//! Which credentials a tool needs.

use codegen_types::{ErrorCode, Failure};

use super::refusal::InsufficientScope;
use super::scopes::{Scope, Scopes};

/// What each family of tools needs, by what stands before the first underscore of a name.
const FAMILIES: &[(&str, Scope)] = &[
    ("artifact", Scope::Tools),
    ("echo", Scope::Tools),
    ("fs", Scope::Tools),
    ("kernel", Scope::Tools),
    ("lint", Scope::Tools),
    ("pkg", Scope::Tools),
    ("run", Scope::Tools),
    ("session", Scope::Sessions),
    ("task", Scope::Tools),
    ("test", Scope::Tools),
];

/// What a call of this tool needs, by either of its names. A tool of no known family needs everything.
pub fn needed_scopes(tool: &str) -> Scopes {
    let family = tool.split(['_', '.']).next().unwrap_or_default();
    let known = FAMILIES.iter().find(|(name, _)| *name == family);
    known.map_or(Scopes::ALL, |(_, scope)| (*scope).into())
}

/// Lets a request go on that has the scopes it needs.
///
/// # Errors
/// What it needs.
pub fn permit(given: Scopes, needed: Scopes) -> Result<(), InsufficientScope> {
    if given.covers(needed) { Ok(()) } else { Err(InsufficientScope { given, needed }) }
}

impl From<InsufficientScope> for Failure {
    fn from(insufficient: InsufficientScope) -> Self {
        Self::new(ErrorCode::PermissionDenied, format!("{insufficient}; nothing was done"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::TOOLS;

    #[test]
    fn every_tool_is_of_a_family_and_both_its_names_need_the_same() {
        for tool in TOOLS {
            assert_ne!(needed_scopes(tool.name), Scopes::ALL, "{} is of no family in the table", tool.name);
            assert_eq!(needed_scopes(tool.name), needed_scopes(&tool.dotted()));
            let is_about_sessions = tool.name.starts_with("session_");
            assert_eq!(needed_scopes(tool.name).has(Scope::Sessions), is_about_sessions, "{}", tool.name);
        }
        assert_eq!(needed_scopes("sessions_all"), Scopes::ALL);
    }

    #[test]
    fn one_scope_does_not_stand_for_another() {
        let needed = needed_scopes("session_close");
        for given in [Scope::Tools.into(), Scope::Admin.into()] {
            assert_eq!(permit(given, needed), Err(InsufficientScope { given, needed }));
        }
        assert_eq!(permit(Scopes::USER, needed), Ok(()));
        assert_eq!(permit(Scopes::NONE, Scopes::NONE), Ok(()));
    }
}
