//! Joining a coordinator, saying that the worker lives, and leaving.

use std::time::Duration;

use codegen_proto::metadata::{JOIN_TOKEN_KEY, WORKER_SESSION_KEY, with_secret};
use codegen_proto::v1::worker_lifecycle_client::WorkerLifecycleClient;
use codegen_proto::{
    DeregisterWorker, Heartbeat, HeartbeatAnswer, InvalidMessage, RegisterWorker, Registered, Secret, v1,
};
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use super::address::{Purpose, Route};

/// How long one call may take.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Why the coordinator could not be spoken to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// There is no connection.
    #[error("the coordinator cannot be reached")]
    Connect(#[from] tonic::transport::Error),
    /// It answered with an error.
    #[error("the coordinator refused the call")]
    Refused(#[from] Status),
    /// It answered with something that is none of our messages.
    #[error("the coordinator's answer makes no sense")]
    Invalid(#[from] InvalidMessage),
}

/// The coordinator's side, as a worker that has joined sees it.
#[derive(Clone)]
pub(crate) struct Coordinator {
    client: WorkerLifecycleClient<Channel>,
    session: Secret,
}

impl Coordinator {
    /// Joins, with a token unless a certificate stands for it; what the coordinator said comes with it.
    pub async fn join(
        route: &Route,
        token: Option<Secret>,
        register: RegisterWorker,
    ) -> Result<(Self, Registered), CallError> {
        let route = route.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let route = route.clone();
            async move { route.connect(Purpose::Calls).await.map(TokioIo::new) }
        });
        // The connector alone decides where the connection goes.
        let endpoint = Endpoint::from_static("http://coordinator").timeout(CALL_DEADLINE);
        let mut client = WorkerLifecycleClient::new(endpoint.connect_with_connector(connector).await?);
        let register = v1::RegisterWorkerRequest::from(register);
        let request = match token {
            Some(token) => with_secret(register, JOIN_TOKEN_KEY, &token)?,
            None => Request::new(register),
        };
        let answer = client.register_worker(request).await?;
        let registered = Registered::try_from(answer.into_inner())?;
        Ok((Self { client, session: registered.worker_session.clone() }, registered))
    }

    /// Says that the worker lives.
    pub async fn heartbeat(&mut self, heartbeat: Heartbeat) -> Result<HeartbeatAnswer, CallError> {
        let request = self.signed(v1::HeartbeatRequest::from(heartbeat))?;
        Ok(self.client.heartbeat(request).await?.into_inner().try_into()?)
    }

    /// Leaves.
    pub async fn leave(&mut self, deregister: DeregisterWorker) -> Result<(), CallError> {
        let request = self.signed(v1::DeregisterWorkerRequest::from(deregister))?;
        self.client.deregister_worker(request).await?;
        Ok(())
    }

    fn signed<T>(&self, message: T) -> Result<Request<T>, CallError> {
        Ok(with_secret(message, WORKER_SESSION_KEY, &self.session)?)
    }
}
