//! The table of settings: one row each, with its names, its default and what is allowed.

/// One setting and how it is spelt in each place.
#[derive(Debug)]
pub struct Key {
    /// In the configuration file.
    pub name: &'static str,
    /// In the environment.
    pub env: &'static str,
    /// On the command line, if it can be given there.
    pub flag: Option<&'static str>,
    /// What holds when nobody says anything.
    pub default: Option<&'static str>,
    /// What may be written, for people.
    pub allowed: &'static str,
}

macro_rules! settings {
    ($($ident:ident { $name:literal, $env:literal, $flag:expr, $default:expr, $allowed:expr })*) => {
        $(pub(super) static $ident: Key =
            Key { name: $name, env: $env, flag: $flag, default: $default, allowed: $allowed };)*
        /// Every setting but the tables `limits` and `tool_rates`.
        pub static KEYS: &[&Key] = &[$(&$ident,)*];
    };
}

/// How a rate is written.
pub(super) const RATE: &str = "none, or calls per second, minute or hour such as `50/s`, `100/m` or `1000/h`, with or without how many at once: `50/s burst 200`";

settings! {
    LOG_LEVEL { "log_level", "LOG_LEVEL", None, Some("info"), "error, warn, info, debug or trace" }
    STATE_DIR { "state_dir", "CODEGEN_STATE_DIR", Some("--state-dir"), None, "an absolute path" }
    BASE_WORKSPACE { "base_workspace", "BASE_WORKSPACE", None, None, "an absolute path" }
    SESSION_MAX_AGE { "session_max_age", "SESSION_MAX_AGE", None, Some("30m"),
        "a duration such as `30m`, from 1s to 30days" }
    CLEANUP_INTERVAL { "cleanup_interval", "CLEANUP_INTERVAL", None, Some("5m"),
        "a duration such as `5m`, from 1s to 1day" }
    WORKSPACE_RETENTION { "workspace_retention", "WORKSPACE_RETENTION", None, Some("7d"),
        "a duration such as `7d`, from 1m to 10years" }
    WORKSPACE_RETENTION_BYTES { "workspace_retention_bytes", "WORKSPACE_RETENTION_BYTES", None, Some("20GiB"),
        "a number of bytes or one with its unit such as `20GiB`, from 1MiB to 1024TiB" }
    WORKER_HEARTBEAT_TIMEOUT { "worker_heartbeat_timeout", "WORKER_HEARTBEAT_TIMEOUT", None, Some("5m"),
        "a duration such as `5m`, from 4s to 1day, and longer than worker_reconnect_grace" }
    WORKER_HEARTBEAT_INTERVAL { "worker_heartbeat_interval", "WORKER_HEARTBEAT_INTERVAL", None, Some("30s"),
        "a duration such as `30s`, from 1s to 1m" }
    WORKER_RECONNECT_GRACE { "worker_reconnect_grace", "WORKER_RECONNECT_GRACE", None, Some("2m"),
        "a duration such as `2m`, from 3s to 1day, and longer than twice worker_keep_alive" }
    WORKER_KEEP_ALIVE { "worker_keep_alive", "WORKER_KEEP_ALIVE", None, Some("10s"),
        "a duration such as `10s`, from 1s to 1m" }
    LINGER { "linger", "LINGER", None, Some("1m"), "a duration such as `60s`, from 0s to 1day" }
    YIELD_AFTER { "yield_after", "YIELD_AFTER", None, Some("45s"),
        "a duration such as `45s`, from 1s to 1h; clients that are known to wait less get their task sooner" }
    GRPC { "grpc", "GRPC_LISTEN", Some("--grpc"), None,
        "an address and a port such as `0.0.0.0:50050` or `127.0.0.1:50050` (port 0: the system chooses)" }
    GRPC_PORT { "grpc_port", "GRPC_PORT", Some("--grpc-port"), Some("50050"),
        "a port from 0 to 65535 (0: the system chooses), on 127.0.0.1" }
    INSECURE_PLAINTEXT { "insecure_plaintext", "INSECURE_PLAINTEXT", Some("--insecure-plaintext"), Some("off"),
        "off, or on: workers of other hosts are spoken to without TLS" }
    EMBEDDED_WORKER { "embedded_worker", "EMBEDDED_WORKER", Some("--no-embedded-worker"), Some("on"),
        "on, or off: sessions are placed on workers of other hosts alone" }
    PROVISION { "provision", "PROVISION", Some("--provision"), Some("none"),
        "none (workers join by themselves), or docker or kubernetes (the server starts and ends them)" }
    WORKERS_MIN { "workers_min", "WORKERS_MIN", Some("--workers-min"), Some("1"), "a number from 0 to 1000" }
    WORKERS_MAX { "workers_max", "WORKERS_MAX", Some("--workers-max"), Some("4"), "a number from 1 to 1000" }
    WORKER_IMAGE { "worker_image", "WORKER_IMAGE", Some("--worker-image"), Some("codegen-mcp/worker:latest"),
        "the name of an image that the engine has" }
    WORKER_NETWORK { "worker_network", "WORKER_NETWORK", Some("--worker-network"), Some("bridge"),
        "the name of a network of the engine" }
    WORKER_COORDINATOR { "worker_coordinator", "WORKER_COORDINATOR", Some("--worker-coordinator"), None,
        "where the containers of workers find this server, such as `172.17.0.1:50050`" }
    WORKER_TLS_CA { "worker_tls_ca", "WORKER_TLS_CA", None, None,
        "the absolute path of a file with certificates (PEM) by which containers of workers check this server" }
    WORKER_STATEFULSET { "worker_statefulset", "WORKER_STATEFULSET", None, Some("worker"),
        "the name of a StatefulSet in this server's namespace" }
    WORKER_SLOTS { "worker_slots", "WORKER_SLOTS", None, Some("16"), "a number from 1 to 4096" }
    WORKER_MEMORY { "worker_memory", "WORKER_MEMORY", None, Some("4GiB"),
        "a number of bytes or one with its unit such as `4GiB`, from 64MiB to 1024TiB" }
    WORKER_IDLE { "worker_idle", "WORKER_IDLE", None, Some("10m"), "a duration such as `10m`, from 5s to 1day" }
    HTTP { "http", "HTTP_LISTEN", Some("--http"), None,
        "an address and a port such as `127.0.0.1:8080` or `[::1]:8080` (port 0: the system chooses)" }
    HTTP_PORT { "http_port", "HTTP_PORT", None, None, "a port from 0 to 65535, on 127.0.0.1" }
    HTTP_ALLOWED_HOSTS { "http_allowed_hosts", "HTTP_ALLOWED_HOSTS", Some("--http-allowed-host"), None,
        "names or addresses, with or without a port, separated by commas, such as `code.example` or `10.0.0.5:8080`" }
    HTTP_ALLOWED_ORIGINS { "http_allowed_origins", "HTTP_ALLOWED_ORIGINS", Some("--http-allowed-origin"), None,
        "origins separated by commas, such as `https://app.example` or `http://app.example:3000`" }
    TLS_CERT { "tls_cert", "TLS_CERT", Some("--tls-cert"), None, "the absolute path of a file with certificates (PEM)" }
    TLS_KEY { "tls_key", "TLS_KEY", Some("--tls-key"), None, "the absolute path of a file with a private key (PEM)" }
    TLS_CA { "tls_ca", "TLS_CA", Some("--tls-ca"), None,
        "the absolute path of a file with the certificates of an authority (PEM)" }
    ADVERTISE_ALLOW { "advertise_allow", "ADVERTISE_ALLOW", Some("--advertise-allow"), None,
        "ranges of addresses separated by commas, such as `10.0.0.0/8` or `fd00:1::/64`; or none" }
    GRPC_REFLECTION { "grpc_reflection", "GRPC_REFLECTION", Some("--grpc-reflection"), Some("off"), "on or off" }
    HTTP_CONNECTIONS_MAX { "http_connections_max", "HTTP_CONNECTIONS_MAX", None, Some("4096"),
        "a number from 1 to 1000000" }
    HTTP_CONNECTIONS_PER_ADDRESS_MAX { "http_connections_per_address_max", "HTTP_CONNECTIONS_PER_ADDRESS_MAX", None,
        Some("2048"), "a number from 1 to 1000000" }
    HTTP_AUTH { "http_auth", "HTTP_AUTH", Some("--http-auth"), Some("auto"),
        "auto (required once there is a token or an issuer), required, or open (on the loopback interface alone)" }
    OAUTH_ISSUER { "oauth_issuer", "OAUTH_ISSUER", Some("--oauth-issuer"), None,
        "the issuer's https URL, exactly as its tokens name it" }
    OAUTH_AUDIENCE { "oauth_audience", "OAUTH_AUDIENCE", Some("--oauth-audience"), None,
        "what tokens must be for: the http or https URL by which clients know this server" }
    OAUTH_JWKS_URL { "oauth_jwks_url", "OAUTH_JWKS_URL", Some("--oauth-jwks-url"), None,
        "the https URL of the issuer's keys" }
    OAUTH_PRINCIPAL_CLAIM { "oauth_principal_claim", "OAUTH_PRINCIPAL_CLAIM", Some("--oauth-principal-claim"),
        Some("sub"), "the name of a claim, of 1 to 64 letters, digits or `_-`" }
    OTLP_ENDPOINT { "otlp_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT", Some("--otlp-endpoint"), None,
        "the URL of a collector that takes OTLP over gRPC, such as `http://127.0.0.1:4317`" }
    TRACE_RATIO { "trace_ratio", "OTEL_TRACES_SAMPLER_ARG", None, Some("1"),
        "a number from 0 to 1: the share of traces that is recorded, where the caller has not decided" }
    HTTP_RATE { "http_rate", "HTTP_RATE", Some("--http-rate"), Some("50/s burst 200"), RATE }
    STDIO_RATE { "stdio_rate", "STDIO_RATE", None, Some("none"), RATE }
    QUOTA_SESSIONS { "quota_sessions", "QUOTA_SESSIONS", None, Some("256"), "a number from 1 to 4096" }
    QUOTA_TASKS { "quota_tasks", "QUOTA_TASKS", None, Some("128"), "a number from 1 to 1000000, or none" }
    QUOTA_CPU_PER_DAY { "quota_cpu_per_day", "QUOTA_CPU_PER_DAY", None, Some("none"),
        "processor time such as `2h`, from 1s to 1000days, or none" }
    QUOTA_BYTES_PER_DAY { "quota_bytes_per_day", "QUOTA_BYTES_PER_DAY", None, Some("none"),
        "a number of bytes or one with its unit such as `20GiB`, from 1KiB to 1024TiB, or none" }
    POLICY { "policy", "POLICY_FILE", Some("--policy"), None, "the absolute path of a file with rules (TOML)" }
    MAX_SESSIONS { "max_sessions", "MAX_SESSIONS", None, Some("256"), "a number from 1 to 4096" }
    REDUCED_SESSIONS { "reduced_sessions", "REDUCED_SESSIONS", None, Some("1"), "a number from 1 to 4096" }
    ISOLATION_MINIMUM { "isolation_minimum", "ISOLATION_MINIMUM", Some("--isolation-minimum"), Some("full"),
        "reduced, portable or full" }
    PACKAGE_INDEXES { "package_indexes", "PACKAGE_INDEXES", None, None,
        "URLs of package indexes, separated by commas, the default first; or none" }
    PACKAGE_HOSTS { "package_hosts", "PACKAGE_HOSTS", None, None,
        "hosts of the files that indexes point to, separated by commas, such as `files.example` or `files.example:8443`; or none" }
    EGRESS_HOSTS { "egress_hosts", "EGRESS_HOSTS", Some("--egress-hosts"), Some("none"),
        "hosts that sessions may reach when they ask for it, separated by commas, such as `api.example.com`, `api.example.com:8443` or `*.example.com`; or none" }
    EGRESS_PRIVATE_HOSTS { "egress_private_hosts", "EGRESS_PRIVATE_HOSTS", None, Some("none"),
        "further such hosts whose names may lead to private addresses, separated by commas, such as `git.corp.example`; or none" }
    SECRETS_WORKERS { "secrets_workers", "SECRETS_WORKERS", None, Some("named"),
        "embedded (secrets are told to this server's own worker alone), named (also to workers with a token or certificate of their own) or all (also to those that share a token)" }
    TOOL_NAMES { "tool_names", "TOOL_NAMES", Some("--tool-names"), Some("underscored"), "underscored or dotted" }
}
