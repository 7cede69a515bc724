//! The command line: which role the process takes, and the operator's commands.
//!
//! Exit codes: 0 done, 1 failed (with a reason on stderr), 2 wrong usage or configuration. `audit` has more of its own.

mod approvals;
mod asked;
pub mod audit;
mod columns;
mod config_show;
mod doctor;
mod install;
mod json;
mod pages;
mod policy;
mod provision;
mod requests;
mod roles;
mod secrets;
mod session_flags;
mod sessions;
mod tasks;
mod tokens;
mod top;
mod usage;
mod workers;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Environment, Flags};
use crate::server::state_dir::AUDIT_DIR;

/// Wrong usage or configuration.
const USAGE: u8 = 2;

const MORE_SETTINGS: &str = "More settings come from the environment (LOG_LEVEL, SESSION_MAX_AGE, WORKSPACE_RETENTION ...) \
    and the configuration file; `coordinator config show` prints all of them, and where each value comes from.";

/// A session layer for agents that run code: an MCP server over stdio, with isolated workspaces and a verifiable log.
///
/// Without a command it serves the MCP client that started it, over stdin and stdout, by handing it to the user's one
/// server, which is started on demand.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version, disable_help_subcommand = true, after_help = MORE_SETTINGS)]
pub struct Cli {
    #[command(flatten)]
    settings: SettingFlags,

    /// Write this client's diagnostics to stderr as well, at level debug
    #[arg(long)]
    debug: bool,

    /// Do everything in this process: no server is looked for or started
    #[arg(long)]
    standalone: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

/// Settings that can be given on the command line, before or after the command.
#[derive(Debug, Args)]
struct SettingFlags {
    /// Where sessions, workspaces and the log are kept [default: $XDG_STATE_HOME/codegen-mcp or
    /// ~/.local/state/codegen-mcp] [env: CODEGEN_STATE_DIR]
    #[arg(long, value_name = "DIR", global = true, help_heading = "Settings")]
    state_dir: Option<PathBuf>,

    /// The configuration file [default: $XDG_CONFIG_HOME/codegen-mcp/config.toml, if it is there]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Settings")]
    config: Option<PathBuf>,

    /// Where workers register [default: 127.0.0.1:50050, or nowhere when it is taken] [env: GRPC_LISTEN]
    #[arg(long, value_name = "ADDRESS:PORT", global = true, help_heading = "Settings")]
    grpc: Option<String>,

    /// The port of the loopback interface where workers register, instead of --grpc [default: 50050] [env: GRPC_PORT]
    #[arg(long, value_name = "PORT", global = true, help_heading = "Settings")]
    grpc_port: Option<String>,

    /// Let workers of other hosts register without TLS: whoever is in between reads and changes everything [env:
    /// INSECURE_PLAINTEXT=on]
    #[arg(long, global = true, help_heading = "Settings")]
    insecure_plaintext: bool,

    /// Start no worker on this host: sessions are placed on those that join [env: EMBEDDED_WORKER=off]
    #[arg(long, global = true, help_heading = "Settings")]
    no_embedded_worker: bool,

    #[command(flatten)]
    session: session_flags::SessionFlags,

    #[command(flatten)]
    provision: provision::ProvisionFlags,

    /// Serve HTTP at this address, such as 127.0.0.1:8080 (with `serve`) [env: HTTP_LISTEN, or HTTP_PORT for 127.0.0.1]
    #[arg(long, value_name = "ADDRESS:PORT", global = true, help_heading = "Settings")]
    http: Option<String>,

    /// The file with the rules of which calls are allowed, denied or need approval; read again at SIGHUP
    /// [env: POLICY_FILE]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Settings")]
    policy: Option<PathBuf>,

    /// The certificates to encrypt HTTP and the port of workers with, a PEM file; read again at SIGHUP [env: TLS_CERT]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Settings")]
    tls_cert: Option<PathBuf>,

    /// The private key of the certificate, a PEM file [env: TLS_KEY]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Settings")]
    tls_key: Option<PathBuf>,

    /// The authority whose certificates may stand for a worker's token, a PEM file; read again at SIGHUP [env: TLS_CA]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Settings")]
    tls_ca: Option<PathBuf>,

    /// A range of addresses where workers may be dialled that advertise one; may be repeated [env: ADVERTISE_ALLOW]
    #[arg(long, value_name = "RANGE", global = true, help_heading = "Settings")]
    advertise_allow: Vec<String>,

    /// Tell whoever connects where workers register of the gRPC services there [env: GRPC_REFLECTION=on]
    #[arg(long, global = true, help_heading = "Settings")]
    grpc_reflection: bool,

    /// A host that HTTP requests may name besides localhost; may be repeated [env: HTTP_ALLOWED_HOSTS]
    #[arg(long, value_name = "HOST", global = true, help_heading = "Settings")]
    http_allowed_host: Vec<String>,

    /// An origin whose pages may make HTTP requests; may be repeated [env: HTTP_ALLOWED_ORIGINS]
    #[arg(long, value_name = "ORIGIN", global = true, help_heading = "Settings")]
    http_allowed_origin: Vec<String>,

    /// Whether requests over HTTP need credentials: auto, required or open [default: auto, which is: once there is a token
    /// or an issuer] [env: HTTP_AUTH]
    #[arg(long, value_name = "WHEN", global = true, help_heading = "Settings")]
    http_auth: Option<String>,

    /// How often each principal may call over HTTP, such as 50/s or `50/s burst 200`, or none [default: 50/s burst 200]
    /// [env: HTTP_RATE]
    #[arg(long, value_name = "RATE", global = true, help_heading = "Settings")]
    http_rate: Option<String>,

    /// An OAuth issuer whose tokens are let in, by its https URL; needs --oauth-audience [env: OAUTH_ISSUER]
    #[arg(long, value_name = "URL", global = true, help_heading = "Settings")]
    oauth_issuer: Option<String>,

    /// What the issuer's tokens must be for: the URL by which clients know this server [env: OAUTH_AUDIENCE]
    #[arg(long, value_name = "AUDIENCE", global = true, help_heading = "Settings")]
    oauth_audience: Option<String>,

    /// Where the issuer's keys are [default: where its metadata say] [env: OAUTH_JWKS_URL]
    #[arg(long, value_name = "URL", global = true, help_heading = "Settings")]
    oauth_jwks_url: Option<String>,

    /// The claim that names the user [default: sub] [env: OAUTH_PRINCIPAL_CLAIM]
    #[arg(long, value_name = "CLAIM", global = true, help_heading = "Settings")]
    oauth_principal_claim: Option<String>,

    /// Send traces of calls to this collector, OTLP over gRPC, such as http://127.0.0.1:4317 [env:
    /// OTEL_EXPORTER_OTLP_ENDPOINT]
    #[arg(long, value_name = "URL", global = true, help_heading = "Settings")]
    otlp_endpoint: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server without a client of its own, until SIGTERM or SIGINT
    Serve {
        /// Started by a front: says on stdout when it is ready, and ends when it is no longer needed
        #[arg(long, hide = true)]
        on_demand: bool,
    },
    /// Run a worker (`coordinator worker --help`); must be the first argument
    Worker {
        /// The worker's own arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        arguments: Vec<OsString>,
    },
    /// Read, verify and repair the audit log
    Audit {
        #[command(subcommand)]
        command: audit::AuditCommand,
    },
    /// Show what clients asked for and how it went, as the audit log has it
    Requests(requests::RequestsArgs),
    /// Show who used how much, added up from the audit log
    Usage(usage::UsageArgs),
    /// Make, list and revoke the tokens by which clients are known over HTTP
    Tokens {
        #[command(subcommand)]
        command: tokens::TokensCommand,
    },
    /// Keep, list and forget what workers put into requests of sessions, unseen by their code
    Secrets {
        #[command(subcommand)]
        command: secrets::SecretsCommand,
    },
    /// Check the policy's rules, and explain what they say
    Policy {
        #[command(subcommand)]
        command: policy::PolicyCommand,
    },
    /// Show and decide the calls that wait for approval
    Approvals {
        #[command(subcommand)]
        command: approvals::ApprovalsCommand,
    },
    /// Show the workers, and say what new work they get
    Workers {
        #[command(subcommand)]
        command: workers::WorkersCommand,
    },
    /// Show everybody's sessions, and end them
    Sessions {
        #[command(subcommand)]
        command: sessions::SessionsCommand,
    },
    /// Show everybody's tasks and what they wrote, and end them
    Tasks {
        #[command(subcommand)]
        command: tasks::TasksCommand,
    },
    /// Show the workers, sessions and running tasks, live
    Top(top::TopArgs),
    /// Find out whether this machine can run sessions well, and what to do where it cannot
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// The configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Tell a client of this server
    Install(install::InstallArgs),
    /// Print a script that completes this command line in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man {
        /// Write the pages of all commands to this directory instead
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print every value and where it comes from
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Everything a role or command is given.
#[derive(Debug, Clone)]
struct Given {
    config: Config,
    flags: Flags,
    environment: Environment,
    debug: bool,
}

/// Runs the process in the role that its arguments name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Without a stream to say it on, the exit code has to do.
            let _unheard = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    let with = |run: &dyn Fn(Given) -> ExitCode| match Given::resolve(&cli) {
        Ok(given) => run(given),
        Err(error) => complain(&error, USAGE),
    };
    match &cli.command {
        None if cli.standalone => with(&roles::standalone),
        None => with(&roles::front),
        Some(Command::Serve { on_demand }) => with(&|given| roles::serve(given, *on_demand)),
        Some(Command::Worker { .. }) => complain(&Misplaced, USAGE),
        Some(Command::Audit { command }) => with(&|given| audit::run(command, &given.config.state_dir.join(AUDIT_DIR))),
        Some(Command::Requests(args)) => with(&|given| requests::run(args, &given.config.state_dir.join(AUDIT_DIR))),
        Some(Command::Usage(args)) => with(&|given| usage::run(args, &given.config.state_dir.join(AUDIT_DIR))),
        Some(Command::Secrets { command }) => with(&|given| secrets::run(command, &given.config.state_dir)),
        Some(Command::Tokens { command }) => with(&|given| tokens::run(command, &given.config.state_dir)),
        Some(Command::Policy { command }) => {
            with(&|given| policy::run(command, given.config.policy.as_deref(), &(&given.config.packages).into()))
        }
        Some(Command::Approvals { command }) => with(&|given| approvals::run(command, &given.config.state_dir)),
        Some(Command::Workers { command }) => with(&|given| workers::run(command, &given.config.state_dir)),
        Some(Command::Sessions { command }) => with(&|given| sessions::run(command, &given.config.state_dir)),
        Some(Command::Tasks { command }) => with(&|given| tasks::run(command, &given.config.state_dir)),
        Some(Command::Top(args)) => with(&|given| top::run(args, &given.config.state_dir)),
        Some(Command::Doctor { json }) => with(&|given| doctor::run(&given, *json)),
        Some(Command::Config { command: ConfigCommand::Show { json } }) => {
            with(&|given| config_show::run(&given.config, *json))
        }
        Some(Command::Install(asked)) => with(&|given| install::run(asked, &given, cli.standalone)),
        // Neither depends on how this machine is set up.
        Some(Command::Completions { shell }) => pages::completions(*shell),
        Some(Command::Man { dir }) => pages::man(dir.as_deref()),
    }
}

/// Whether this program, started with these arguments, serves the client that started it.
fn serves_a_client(args: &[String]) -> bool {
    let args = std::iter::once("coordinator").chain(args.iter().map(String::as_str));
    Cli::try_parse_from(args).is_ok_and(|cli| cli.command.is_none())
}

#[derive(Debug, thiserror::Error)]
#[error("`worker` must be the first argument, since the worker makes its launcher before anything else happens")]
struct Misplaced;

impl Given {
    fn resolve(cli: &Cli) -> Result<Self, ConfigError> {
        let flags = cli.settings.flags();
        let environment = Environment::of_process();
        let config = Config::load(&flags, &environment)?;
        Ok(Self { config, flags, environment, debug: cli.debug })
    }
}

impl SettingFlags {
    fn flags(&self) -> Flags {
        let given = [
            ("--state-dir", self.state_dir.as_deref().map(|path| absolute(path).display().to_string())),
            ("--grpc", self.grpc.clone()),
            ("--grpc-port", self.grpc_port.clone()),
            ("--insecure-plaintext", self.insecure_plaintext.then(|| "on".to_owned())),
            ("--no-embedded-worker", self.no_embedded_worker.then(|| "off".to_owned())),
            ("--http", self.http.clone()),
            ("--policy", self.policy.as_deref().map(|path| absolute(path).display().to_string())),
            ("--tls-cert", self.tls_cert.as_deref().map(|path| absolute(path).display().to_string())),
            ("--tls-key", self.tls_key.as_deref().map(|path| absolute(path).display().to_string())),
            ("--tls-ca", self.tls_ca.as_deref().map(|path| absolute(path).display().to_string())),
            ("--advertise-allow", listed(&self.advertise_allow)),
            ("--grpc-reflection", self.grpc_reflection.then(|| "on".to_owned())),
            ("--http-allowed-host", listed(&self.http_allowed_host)),
            ("--http-allowed-origin", listed(&self.http_allowed_origin)),
            ("--http-auth", self.http_auth.clone()),
            ("--http-rate", self.http_rate.clone()),
            ("--oauth-issuer", self.oauth_issuer.clone()),
            ("--oauth-audience", self.oauth_audience.clone()),
            ("--oauth-jwks-url", self.oauth_jwks_url.clone()),
            ("--oauth-principal-claim", self.oauth_principal_claim.clone()),
            ("--otlp-endpoint", self.otlp_endpoint.clone()),
        ];
        let given = given.into_iter().chain(self.provision.given()).chain(self.session.given());
        let values: BTreeMap<_, _> = given.filter_map(|(flag, value)| Some((flag, value?))).collect();
        Flags { values, file: self.config.as_deref().map(absolute) }
    }
}

/// A flag that may be repeated, as the one text that the other layers have.
fn listed(values: &[String]) -> Option<String> {
    (!values.is_empty()).then(|| values.join(","))
}

/// Paths on the command line are relative to where it was typed; a server runs elsewhere.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Says on stderr what went wrong, with its causes.
fn complain(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("coordinator: {}", chain(error));
    ExitCode::from(code)
}

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
    })
}

/// Prints a command's result. A reader that is gone (`| head`) is no failure.
fn print(text: &str, code: ExitCode) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => code,
        Err(error) => complain(&error, 1),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_may_stand_before_or_after_the_command() {
        for args in [["coordinator", "--grpc-port", "0", "serve"], ["coordinator", "serve", "--grpc-port", "0"]] {
            let cli = Cli::try_parse_from(args).unwrap();
            assert_eq!(cli.settings.flags().values.get("--grpc-port").map(String::as_str), Some("0"));
        }
    }

    #[test]
    fn a_relative_state_directory_is_where_the_command_was_typed() {
        let cli = Cli::try_parse_from(["coordinator", "--state-dir", "state"]).unwrap();
        let expected = std::env::current_dir().unwrap().join("state");
        assert_eq!(cli.settings.flags().values["--state-dir"], expected.display().to_string());
    }
}
