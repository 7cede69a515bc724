//! Workers that join from elsewhere, as processes of their own.

mod remote;
