//! Path-safe files of a workspace.
