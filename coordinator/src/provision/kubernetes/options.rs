//! Which StatefulSet workers are pods of, and how many there may be.

use coordinator_core::scaling::Scale;

/// How workers are had from Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesOptions {
    /// How many there may be, and when another is started or one ended.
    pub scale: Scale,
    /// The name of the StatefulSet. Its pods are `NAME-0`, `NAME-1` and so on, and so are the workers in them.
    pub statefulset: String,
}
