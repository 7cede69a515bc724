//! What is asked of the cluster's API server: how one StatefulSet stands, and to give it another number of pods.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Config};
use serde_json::json;

use super::NoCluster;

/// How long the API server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the cluster did not do something.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The account may not do this.
    #[error(
        "the API server forbids to {verb} {what} in namespace {namespace}; the Role in k8s/coordinator-rbac.yaml permits it, and \
         its RoleBinding must name the service account of this pod and its namespace: {message}"
    )]
    Forbidden {
        /// What was to be done.
        verb: &'static str,
        /// To what.
        what: String,
        /// Where.
        namespace: String,
        /// What the API server said.
        message: String,
    },
    /// The API server does not know who asks.
    #[error("the API server does not accept this pod's token: {0}")]
    Unauthenticated(String),
    /// There is no such StatefulSet.
    #[error(
        "there is no StatefulSet {name} in namespace {namespace}: apply k8s/worker-statefulset.yaml, or say with \
         WORKER_STATEFULSET which one it is"
    )]
    NotFound {
        /// Its name.
        name: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// Somebody else changed it since it was looked at.
    #[error("somebody else changed the StatefulSet meanwhile")]
    Conflict,
    /// The API server says no for another reason, or something else than it should.
    #[error("the API server does not do what is needed")]
    Refused(#[source] kube::Error),
    /// It cannot be reached in time.
    #[error("the API server does not answer within {} s", PATIENCE.as_secs())]
    Late,
}

/// How a StatefulSet stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    /// The number of its first pod.
    pub(super) first: u32,
    /// Pods that there are to be.
    pub(super) wanted: u32,
    /// Pods that there are, those included that are ending.
    pub(super) present: u32,
    /// Which state of it this is, so that nothing is done to another.
    version: String,
}

/// One StatefulSet of a cluster. Cheap to clone.
#[derive(Clone)]
pub(super) struct Cluster {
    sets: Api<StatefulSet>,
    name: String,
    namespace: String,
}

impl Cluster {
    /// The StatefulSet of this name in the namespace of this pod, or of the current context of the kubeconfig.
    pub(super) async fn find(name: &str) -> Result<Self, NoCluster> {
        let config = Config::infer().await.map_err(|error| NoCluster::Unknown(Box::new(error)))?;
        let client = Client::try_from(config).map_err(|error| NoCluster::Client(Box::new(error)))?;
        Ok(Self::of(client, name))
    }

    pub(super) fn of(client: Client, name: &str) -> Self {
        let namespace = client.default_namespace().to_owned();
        Self { sets: Api::default_namespaced(client), name: name.to_owned(), namespace }
    }

    /// The worker in the pod of this number.
    pub(super) fn worker(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.name)
    }

    /// How it stands.
    pub(super) async fn look(&self) -> Result<Standing, ClusterError> {
        let set = self.ask("get", "statefulsets", self.sets.get(&self.name)).await?;
        let count = |number: i32| u32::try_from(number).unwrap_or_default();
        let (spec, status) = (set.spec.unwrap_or_default(), set.status.unwrap_or_default());
        Ok(Standing {
            first: spec.ordinals.and_then(|ordinals| ordinals.start).map_or(0, count),
            // One, unless it says otherwise.
            wanted: spec.replicas.map_or(1, count),
            present: count(status.replicas),
            version: set.metadata.resource_version.unwrap_or_default(),
        })
    }

    /// Gives it another number of pods, unless it stands otherwise by now.
    pub(super) async fn scale(&self, from: &Standing, pods: u32) -> Result<(), ClusterError> {
        let patch = json!({"metadata": {"resourceVersion": from.version}, "spec": {"replicas": pods}});
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
        let asked = self.sets.patch_scale(&self.name, &parameters, &patch);
        self.ask("patch", "statefulsets/scale", asked).await.map(drop)
    }

    async fn ask<T>(
        &self,
        verb: &'static str,
        resource: &str,
        asked: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ClusterError> {
        let answer = tokio::time::timeout(PATIENCE, asked).await.map_err(|_elapsed| ClusterError::Late)?;
        answer.map_err(|error| match &error {
            kube::Error::Api(status) => match status.code {
                401 => ClusterError::Unauthenticated(status.message.clone()),
                403 => ClusterError::Forbidden {
                    verb,
                    what: format!("{resource} {}", self.name),
                    namespace: self.namespace.clone(),
                    message: status.message.clone(),
                },
                404 => ClusterError::NotFound { name: self.name.clone(), namespace: self.namespace.clone() },
                409 => ClusterError::Conflict,
                _ => ClusterError::Refused(error),
            },
            _ => ClusterError::Refused(error),
        })
    }
}
