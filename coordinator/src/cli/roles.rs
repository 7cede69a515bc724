//! The roles of the process that live longer than a command: front, server, standalone.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use super::asked::say;
use super::{Given, chain, complain};
use crate::front::{self, FrontEnd, FrontError, FrontRequest};
use crate::server::standalone::{self, Standalone};
use crate::server::{Role, Server};

/// How long blocking calls that nothing waits for may hold up the end of the process.
const BLOCKING_PATIENCE: Duration = Duration::from_millis(200);

pub(super) fn front(given: Given) -> ExitCode {
    let request =
        FrontRequest { config: given.config, flags: given.flags, environment: given.environment, debug: given.debug };
    let debug = given.debug;
    let ended = run_on(tokio::runtime::Builder::new_current_thread(), front::run(request));
    match ended.unwrap_or_else(|error| Err(FrontError::Talk(error))) {
        Ok(FrontEnd::Done) => ExitCode::SUCCESS,
        Ok(FrontEnd::ServeAlone(config)) => serve_alone(Standalone { config: *config, debug }),
        Err(error) => complain(&error, 1),
    }
}

pub(super) fn standalone(given: Given) -> ExitCode {
    front::hint_to_people();
    serve_alone(Standalone { config: given.config, debug: given.debug })
}

fn serve_alone(standalone: Standalone) -> ExitCode {
    match run_on(tokio::runtime::Builder::new_multi_thread(), standalone::run(standalone)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => complain(&error, 1),
        Err(error) => complain(&error, 1),
    }
}

pub(super) fn serve(given: Given, on_demand: bool) -> ExitCode {
    if on_demand {
        // Its own session: a signal to the client's terminal or process group is not for the server.
        if let Err(error) = rustix::process::setsid() {
            tracing::debug!(%error, "already the leader of a session");
        }
    }
    let role = if on_demand { Role::OnDemand } else { Role::Explicit };
    let served = run_on(tokio::runtime::Builder::new_multi_thread(), async {
        let server = match Server::build(given.config, role).await {
            Ok(server) => server,
            Err(error) => return refuse_to_start(&error, role),
        };
        if let Some(url) = server.http_url() {
            say(&format!("coordinator: serving MCP over HTTP at {url}/mcp"));
        }
        if let (Role::Explicit, Some(address)) = (role, server.grpc_address()) {
            say(&format!("coordinator: workers join at {address}"));
        }
        if role == Role::OnDemand
            && let Err(error) = say_ready()
        {
            tracing::warn!(%error, "the front that started this server is gone");
        }
        server.run().await;
        ExitCode::SUCCESS
    });
    served.unwrap_or_else(|error| complain(&error, 1))
}

/// Runs a role to its end. Fails when there can be no runtime.
pub(super) fn run_on<T>(mut builder: tokio::runtime::Builder, role: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = builder.enable_all().build()?;
    let value = runtime.block_on(role);
    runtime.shutdown_timeout(BLOCKING_PATIENCE);
    Ok(value)
}

/// The front that waits for a server reads from its stdout why there is none.
fn refuse_to_start(error: &dyn std::error::Error, role: Role) -> ExitCode {
    if role == Role::OnDemand {
        // A front that is gone needs no reason.
        let _unheard = std::io::stdout().write_all(format!("{}\n", chain(error)).as_bytes());
    }
    complain(error, 1)
}

/// Tells the front that it may connect, and gives up stdout, which is its pipe.
fn say_ready() -> std::io::Result<()> {
    let said = std::io::stdout().write_all(front::READY.as_bytes());
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    said
}
