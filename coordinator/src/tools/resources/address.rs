//! What can be read and followed as a resource: a workspace's file, or the live transcript of a session.

use std::fmt;

use codegen_types::{ErrorCode, Failure, SessionId};

use crate::tools::resource_uri::{InvalidWorkspaceUri, WorkspaceUri};

const TRANSCRIPT: &str = "transcript://";

/// The address of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceUri {
    /// A file or directory of a workspace, `workspace://SESSION/PATH`.
    File(WorkspaceUri),
    /// What runs in a session and ran there last, `transcript://SESSION`.
    Transcript(SessionId),
}

impl ResourceUri {
    /// What a client wrote as an address.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `PATH_VIOLATION`, `SESSION_NOT_FOUND`.
    pub fn parse(uri: &str) -> Result<Self, Failure> {
        if let Some(session) = uri.strip_prefix(TRANSCRIPT) {
            let session = session.strip_suffix('/').unwrap_or(session);
            return session
                .parse()
                .map(Self::Transcript)
                .map_err(|invalid| refused(&InvalidWorkspaceUri::Session(invalid)));
        }
        uri.parse().map(Self::File).map_err(|invalid| refused(&invalid))
    }

    /// In which session it is.
    pub const fn session(&self) -> SessionId {
        match self {
            Self::File(file) => file.session,
            Self::Transcript(session) => *session,
        }
    }
}

impl fmt::Display for ResourceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => file.fmt(f),
            Self::Transcript(session) => write!(f, "{TRANSCRIPT}{session}"),
        }
    }
}

fn refused(invalid: &InvalidWorkspaceUri) -> Failure {
    let code = match invalid {
        InvalidWorkspaceUri::Path(_) => ErrorCode::PathViolation,
        InvalidWorkspaceUri::Session(_) => ErrorCode::SessionNotFound,
        _ => ErrorCode::InvalidArgument,
    };
    Failure::new(code, format!("{invalid}; addresses look like workspace://SESSION/PATH or transcript://SESSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_has_an_address_and_what_is_none_is_refused() {
        let session = SessionId::mint();
        let address = ResourceUri::parse(&format!("transcript://{session}")).unwrap();
        assert_eq!((address.session(), address.to_string()), (session, format!("transcript://{session}")));
        for (wrong, code) in [
            ("transcript://".to_owned(), ErrorCode::SessionNotFound),
            (format!("transcript://{session}/x"), ErrorCode::SessionNotFound),
            (format!("transcript:{session}"), ErrorCode::InvalidArgument),
            (format!("workspace://{session}/../x"), ErrorCode::PathViolation),
        ] {
            assert_eq!(ResourceUri::parse(&wrong).map_err(|failure| failure.code), Err(code), "{wrong}");
        }
    }
}
