//! Who may do what in a session: its owner, and those with whom it was shared.

use std::collections::BTreeMap;

use codegen_types::Principal;
use serde::{Deserialize, Serialize};

/// Principals with whom one session may be shared at once.
pub const SHARES_MAX: usize = 32;

/// What a session was shared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// To read it and follow what runs in it.
    Observer,
    /// To act in it, too.
    Writer,
}

impl Role {
    /// The role in a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observer => "observer",
            Self::Writer => "writer",
        }
    }
}

/// What a principal is to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It made the session.
    Owner,
    /// The session was shared with it.
    Shared(Role),
}

impl Access {
    /// The access in a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Shared(role) => role.name(),
        }
    }

    /// Whether it is enough.
    pub const fn covers(self, need: Need) -> bool {
        match (self, need) {
            (Self::Owner, _) | (Self::Shared(_), Need::Read) | (Self::Shared(Role::Writer), Need::Act) => true,
            (Self::Shared(Role::Observer), Need::Act) | (Self::Shared(_), Need::Own) => false,
        }
    }
}

/// What something done in a session needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It changes nothing.
    Read,
    /// It runs or changes something.
    Act,
    /// It is about the session itself.
    Own,
}

/// With whom a session is shared, and for what.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shares(BTreeMap<Principal, Role>);

/// Why a session is not shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotShared {
    /// With its owner.
    #[error("the session is that principal's own")]
    Owner,
    /// With one more.
    #[error("the session is shared with {SHARES_MAX} principals, the most there may be")]
    TooMany,
}

impl Shares {
    /// What `principal` is to the session of `owner`; nothing to one with whom it was not shared.
    pub fn access(&self, owner: &Principal, principal: &Principal) -> Option<Access> {
        if owner == principal { Some(Access::Owner) } else { self.0.get(principal).copied().map(Access::Shared) }
    }

    /// The shares once `principal` has this role, in the place of any that it had.
    ///
    /// # Errors
    /// [`NotShared`].
    pub fn with(&self, owner: &Principal, principal: &Principal, role: Role) -> Result<Self, NotShared> {
        if owner == principal {
            return Err(NotShared::Owner);
        }
        let mut shares = self.0.clone();
        shares.insert(principal.clone(), role);
        if shares.len() > SHARES_MAX { Err(NotShared::TooMany) } else { Ok(Self(shares)) }
    }

    /// The shares without those of `principal`.
    #[must_use]
    pub fn without(&self, principal: &Principal) -> Self {
        let mut shares = self.0.clone();
        shares.remove(principal);
        Self(shares)
    }

    /// The role of one principal, when it has one.
    pub fn role(&self, principal: &Principal) -> Option<Role> {
        self.0.get(principal).copied()
    }

    /// Each principal with its role, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&Principal, Role)> {
        self.0.iter().map(|(principal, role)| (principal, *role))
    }

    /// Whether it is shared with nobody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_access_covers_what_it_is_for_and_no_more() {
        let (observer, writer) = (Access::Shared(Role::Observer), Access::Shared(Role::Writer));
        for (access, covered) in
            [(Access::Owner, [true, true, true]), (writer, [true, true, false]), (observer, [true, false, false])]
        {
            assert_eq!([Need::Read, Need::Act, Need::Own].map(|need| access.covers(need)), covered, "{access:?}");
        }
    }

    #[test]
    fn a_session_is_shared_with_so_many_and_never_with_its_owner() {
        let (ann, bob) = (Principal::os_user("ann"), Principal::os_user("bob"));
        let shares = Shares::default().with(&ann, &bob, Role::Writer).unwrap();
        let shares = shares.with(&ann, &bob, Role::Observer).unwrap();
        assert_eq!(shares.access(&ann, &bob), Some(Access::Shared(Role::Observer)));
        assert_eq!(shares.access(&ann, &ann), Some(Access::Owner));
        assert_eq!(shares.access(&ann, &Principal::os_user("eve")), None);
        assert_eq!(shares.with(&ann, &ann, Role::Writer), Err(NotShared::Owner));
        assert!(shares.without(&bob).access(&ann, &bob).is_none());
        let full = (0..SHARES_MAX).fold(Shares::default(), |shares, n| {
            shares.with(&ann, &Principal::os_user(&n.to_string()), Role::Observer).unwrap()
        });
        assert_eq!(full.with(&ann, &bob, Role::Observer), Err(NotShared::TooMany));
        assert!(full.with(&ann, &Principal::os_user("7"), Role::Writer).is_ok(), "a role that changes adds nobody");
    }
}
