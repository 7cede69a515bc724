//! The address of a workspace's file as a resource: `workspace://SESSION/PATH`.

use std::fmt;
use std::str::FromStr;

use codegen_types::ids::InvalidId;
use codegen_types::path::{InvalidPath, PATH_BYTES_MAX};
use codegen_types::{SessionId, WorkspacePath};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const SCHEME: &str = "workspace://";
/// The longest address that is looked at, in bytes: the longest path with every byte encoded.
const URI_BYTES_MAX: usize = SCHEME.len() + 64 + 3 * PATH_BYTES_MAX;

/// What is encoded in a component: all but the characters that RFC 3986 calls unreserved.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A file or directory of a session's workspace, addressed as a resource.
///
/// Written as `workspace://SESSION/PATH` with each component percent-encoded, one way only, so that two addresses of
/// the same thing compare equal once they are parsed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkspaceUri {
    /// Whose workspace.
    pub session: SessionId,
    /// Where in it; the root is the workspace itself.
    pub path: WorkspacePath,
}

/// Why a text is no address of a workspace's file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWorkspaceUri {
    /// It is the address of something else.
    #[error("the URI does not begin with `{SCHEME}`")]
    Scheme,
    /// It is longer than any address of a file.
    #[error("the URI is longer than {URI_BYTES_MAX} bytes")]
    TooLong,
    /// What comes first is no session's handle.
    #[error("the URI names no session")]
    Session(#[source] InvalidId),
    /// It has a query or a fragment.
    #[error("the URI has a query or a fragment; write `?` and `#` of a path as %3F and %23")]
    Suffix,
    /// A percent sign is not followed by two hexadecimal digits, or what they encode is not UTF-8 or is a slash.
    #[error("the URI's path is not percent-encoded UTF-8")]
    Encoding,
    /// The path is none inside a workspace.
    #[error(transparent)]
    Path(#[from] InvalidPath),
}

impl fmt::Display for WorkspaceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.session)?;
        if self.path.is_root() {
            return f.write_str("/");
        }
        self.path.components().try_for_each(|component| write!(f, "/{}", utf8_percent_encode(component, ENCODED)))
    }
}

impl FromStr for WorkspaceUri {
    type Err = InvalidWorkspaceUri;

    fn from_str(text: &str) -> Result<Self, InvalidWorkspaceUri> {
        if text.len() > URI_BYTES_MAX {
            return Err(InvalidWorkspaceUri::TooLong);
        }
        let scheme = text.get(..SCHEME.len()).filter(|scheme| scheme.eq_ignore_ascii_case(SCHEME));
        let rest = &text[scheme.ok_or(InvalidWorkspaceUri::Scheme)?.len()..];
        if rest.contains(['?', '#']) {
            return Err(InvalidWorkspaceUri::Suffix);
        }
        let (session, path) = rest.split_once('/').unwrap_or((rest, ""));
        let session = session.parse().map_err(InvalidWorkspaceUri::Session)?;
        let components: Vec<String> = path.split('/').map(decoded).collect::<Result<_, _>>()?;
        Ok(Self { session, path: WorkspacePath::parse(&components.join("/"))? })
    }
}

/// A component as the file system names it. A slash in it would make two of one.
fn decoded(component: &str) -> Result<String, InvalidWorkspaceUri> {
    let bytes = component.as_bytes();
    let whole =
        |at: usize| matches!(bytes.get(at + 1..at + 3), Some(digits) if digits.iter().all(u8::is_ascii_hexdigit));
    if bytes.iter().enumerate().any(|(at, byte)| *byte == b'%' && !whole(at)) {
        return Err(InvalidWorkspaceUri::Encoding);
    }
    let text = percent_decode_str(component).decode_utf8().map_err(|_| InvalidWorkspaceUri::Encoding)?;
    if text.contains('/') { Err(InvalidWorkspaceUri::Encoding) } else { Ok(text.into_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uri(session: SessionId, path: &str) -> WorkspaceUri {
        WorkspaceUri { session, path: WorkspacePath::parse(path).expect("a legal path") }
    }

    #[test]
    fn an_address_is_written_one_way_and_reads_back() {
        let session = SessionId::mint();
        for (path, written) in [
            ("", ""),
            ("artifacts/plot.png", "artifacts/plot.png"),
            ("a b/ä#?.txt", "a%20b/%C3%A4%23%3F.txt"),
            ("100%/..foo/~x", "100%25/..foo/~x"),
            ("a:b@c&d=e+f", "a%3Ab%40c%26d%3De%2Bf"),
            ("\u{1b}[31m\n", "%1B%5B31m%0A"),
        ] {
            let address = uri(session, path);
            assert_eq!(address.to_string(), format!("workspace://{session}/{written}"), "{path:?}");
            assert_eq!(address.to_string().parse(), Ok(address), "{path:?}");
        }
        let lenient = format!("WORKSPACE://{session}/%61/./b+c/");
        assert_eq!(lenient.parse(), Ok(uri(session, "a/b+c")));
        assert_eq!(format!("workspace://{session}").parse(), Ok(uri(session, "")));
    }

    #[test]
    fn a_hostile_address_is_refused() {
        let session = SessionId::mint();
        let refused = |rest: &str| format!("workspace://{session}/{rest}").parse::<WorkspaceUri>().expect_err(rest);
        for climbing in ["../x", "a/%2e%2e/b", "%2E./x", "a/..", ".%2e"] {
            assert_eq!(refused(climbing), InvalidWorkspaceUri::Path(InvalidPath::ParentComponent), "{climbing}");
        }
        for broken in ["%", "%4", "%zz", "a%", "%+1x", "%ff", "%c3", "a%2Fb", "..%2f..%2fetc", "%2e%2e%2f"] {
            assert_eq!(refused(broken), InvalidWorkspaceUri::Encoding, "{broken}");
        }
        assert_eq!(refused("a%00b"), InvalidWorkspaceUri::Path(InvalidPath::Nul));
        assert_eq!(refused("a?x"), InvalidWorkspaceUri::Suffix);
        assert_eq!(refused("a#x"), InvalidWorkspaceUri::Suffix);
        assert_eq!(refused(&"a/".repeat(100_000)), InvalidWorkspaceUri::TooLong);
        assert_eq!(refused(&"x".repeat(5_000)), InvalidWorkspaceUri::Path(InvalidPath::TooLong));
        for other in ["", "file:///etc/passwd", "workspace:/x", "workspac€://x", "http://workspace://"] {
            assert_eq!(other.parse::<WorkspaceUri>(), Err(InvalidWorkspaceUri::Scheme), "{other}");
        }
        for nobody in ["workspace://", "workspace:///etc/passwd", "workspace://user@host/x", "workspace://ses_1/x"] {
            assert!(matches!(nobody.parse::<WorkspaceUri>(), Err(InvalidWorkspaceUri::Session(_))), "{nobody}");
        }
    }

    proptest! {
        #[test]
        fn every_path_has_an_address_that_reads_back(text in "[^\0]{0,40}") {
            if let Ok(path) = WorkspacePath::parse(&text) {
                let address = WorkspaceUri { session: SessionId::mint(), path };
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }

        #[test]
        fn no_text_breaks_the_parser(text in "(workspace://)?(ses_[0-9a-f]{32})?.{0,60}") {
            let _whatever = text.parse::<WorkspaceUri>();
        }
    }
}
