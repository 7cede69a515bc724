//! Who makes a request, and what it may do: static tokens, JSON Web Tokens of an issuer, scopes.
//!
//! A transport hands over the credentials that a request carries and gets an [`Identity`] back, or the reason why there
//! is none in words of RFC 6750. Over stdio nobody is asked: the operating system says who the user is.
//!
//! *Invariant*: no transport and no protocol is named here, and the text of a token is in no value that is kept,
//! logged, recorded or given back, but for the one answer to whoever made it.

mod authenticator;
mod issuer;
mod needed;
mod refusal;
mod resource;
mod scopes;
mod token;
mod tokens;
mod validity;

pub use authenticator::{Authenticator, Credentials, Identity, Requirement};
pub use issuer::{Endpoint, InvalidEndpoint, Issuer, IssuerConfig, NoTrustedRoots};
pub use needed::{needed_scopes, permit};
pub use refusal::{InsufficientScope, Unauthenticated};
pub use resource::ProtectedResourceMetadata;
pub use scopes::{InvalidScope, SCOPE_PREFIX, Scope, Scopes};
pub use token::{InvalidTokenId, TokenDigest, TokenId, TokenText};
pub use tokens::{NewToken, TOKENS_MAX, TokenState, TokenView, Tokens};
pub use validity::Validity;

pub(crate) use token::is_static;
