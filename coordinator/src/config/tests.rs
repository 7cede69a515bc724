//! Which layer wins, and how a bad value is reported.

use super::*;

fn environment<'a>(pairs: &[(&'a str, &'a str)]) -> Environment {
    Environment::from_pairs([("HOME", "/nonexistent")].into_iter().chain(pairs.iter().copied()))
}

fn flags(pairs: &[(&'static str, &str)]) -> Flags {
    Flags { values: pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(), file: None }
}

fn file(text: &str) -> (tempfile::TempDir, Flags) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    (dir, Flags { file: Some(path), ..Flags::default() })
}

fn source_of(config: &Config, name: &str) -> String {
    config.show().into_iter().find(|row| row.name == name).unwrap().source
}

#[test]
fn without_anything_the_documented_defaults_hold() {
    let config = Config::load(&Flags::default(), &environment(&[])).unwrap();
    assert_eq!(config.session_max_age, Duration::from_secs(1800));
    assert_eq!(config.workspace_retention_bytes, 20 << 30);
    assert_eq!(config.grpc.listen, GrpcListen::Default("127.0.0.1:50050".parse().unwrap()));
    assert_eq!(config.isolation_minimum, IsolationLevel::Full);
    assert_eq!(config.state_dir, PathBuf::from("/nonexistent/.local/state/codegen-mcp"));
    assert_eq!(config.limits, Limits::default());
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let (_dir, mut flags) = file("grpc_port = 1\nlog_level = 'warn'\nlinger = '1s'\n[limits]\nprocesses = 7\n");
    flags.values.insert("--grpc-port", "3".to_owned());
    let config = Config::load(&flags, &environment(&[("GRPC_PORT", "2"), ("LOG_LEVEL", "DEBUG")])).unwrap();
    assert_eq!(config.grpc.listen, GrpcListen::Chosen("127.0.0.1:3".parse().unwrap()));
    assert_eq!(config.log_level, LogLevel::Debug);
    assert_eq!(config.linger, Duration::from_secs(1));
    assert_eq!(config.limits.processes, 7);
    assert_eq!(source_of(&config, "grpc_port"), "flag --grpc-port");
    assert_eq!(source_of(&config, "log_level"), "environment LOG_LEVEL");
    assert!(source_of(&config, "limits.processes").starts_with("file "));
    assert_eq!(source_of(&config, "limits.open_files"), "default");
}

#[test]
fn http_is_served_where_the_stronger_of_its_settings_says() {
    let listen = |flags: &Flags, pairs: &[(&str, &str)]| {
        let config = Config::load(flags, &environment(pairs)).unwrap();
        config.http.map(|http| http.listen.to_string())
    };
    assert_eq!(listen(&Flags::default(), &[]), None);
    assert_eq!(listen(&Flags::default(), &[("HTTP_PORT", "8080")]).as_deref(), Some("127.0.0.1:8080"));
    let flags = flags(&[("--http", "[::1]:9000")]);
    assert_eq!(listen(&flags, &[("HTTP_PORT", "8080")]).as_deref(), Some("[::1]:9000"));
    let (_dir, file) = file("http = '127.0.0.1:1'\n");
    assert_eq!(listen(&file, &[]).as_deref(), Some("127.0.0.1:1"));
    assert_eq!(listen(&file, &[("HTTP_PORT", "2")]).as_deref(), Some("127.0.0.1:2"));
    assert!(Config::load(&Flags::default(), &environment(&[("HTTP_LISTEN", "localhost")])).is_err());
}

#[test]
fn workers_register_where_the_stronger_of_its_settings_says() {
    let listen = |flags: &Flags, pairs: &[(&str, &str)]| {
        let config = Config::load(flags, &environment(pairs)).unwrap();
        config.grpc.listen.address().to_string()
    };
    let flags = flags(&[("--grpc", "0.0.0.0:7000")]);
    assert_eq!(listen(&flags, &[("GRPC_PORT", "2")]), "0.0.0.0:7000");
    let (_dir, file) = file("grpc = '10.0.0.1:1'\n");
    assert_eq!(listen(&file, &[]), "10.0.0.1:1");
    assert_eq!(listen(&file, &[("GRPC_PORT", "2")]), "127.0.0.1:2");
    assert_eq!(listen(&file, &[("GRPC_PORT", "2"), ("GRPC_LISTEN", "[::1]:3")]), "[::1]:3");
    assert!(Config::load(&Flags::default(), &environment(&[("GRPC_LISTEN", "50050")])).is_err());
}

#[test]
fn a_bad_value_is_named_with_its_source_and_what_is_allowed() {
    let error = Config::load(&Flags::default(), &environment(&[("SESSION_MAX_AGE", "30")])).unwrap_err().to_string();
    for part in ["SESSION_MAX_AGE", "`30`", "environment SESSION_MAX_AGE", "a duration such as `30m`"] {
        assert!(error.contains(part), "{error}");
    }
    let error = Config::load(&flags(&[("--isolation-minimum", "none")]), &environment(&[])).unwrap_err().to_string();
    assert!(error.contains("flag --isolation-minimum") && error.contains("reduced, portable or full"), "{error}");
}

#[test]
fn an_unknown_name_or_type_in_the_file_is_an_error() {
    for (text, part) in [
        ("grpc_prot = 1", "grpc_prot"),
        ("grpc_port = true", "boolean"),
        ("limits = 1", "[limits]"),
        ("[limits]\nprocesss = 1", "processs"),
        ("[limits]\nprocesses = 0", "limits.processes"),
        ("[limits]\nprocesses = -1", "limits"),
        ("[limits]\nopen_files = 127", "at least 128"),
        ("grpc_port =", "not valid TOML"),
    ] {
        let (_dir, flags) = file(text);
        let error = Config::load(&flags, &environment(&[])).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    let flags = Flags { file: Some(PathBuf::from("/nonexistent/x.toml")), ..Flags::default() };
    assert!(matches!(Config::load(&flags, &environment(&[])), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn the_environment_of_a_server_holds_nothing_but_configuration_and_places() {
    let environment = environment(&[("AWS_SECRET_ACCESS_KEY", "x"), ("LOG_LEVEL", "info"), ("LD_PRELOAD", "y")]);
    let kept: Vec<_> = environment.reduced().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    assert_eq!(kept, ["HOME", "LOG_LEVEL"]);
}

#[test]
fn an_empty_variable_is_no_value() {
    let config = Config::load(&Flags::default(), &environment(&[("LOG_LEVEL", ""), ("GRPC_PORT", "")])).unwrap();
    assert_eq!(config.log_level, LogLevel::Info);
    assert_eq!(config.grpc.listen, GrpcListen::Default("127.0.0.1:50050".parse().unwrap()));
}

#[test]
fn a_size_is_a_number_of_bytes_or_has_a_unit() {
    let load = |text| Config::load(&Flags::default(), &environment(&[("WORKSPACE_RETENTION_BYTES", text)]));
    for (text, bytes) in [("1048576", 1 << 20), ("3GiB", 3 << 30), ("2 TiB", 2 << 40)] {
        let config = load(text).unwrap();
        assert_eq!(config.workspace_retention_bytes, bytes);
        assert_eq!(source_of(&config, "workspace_retention_bytes"), "environment WORKSPACE_RETENTION_BYTES");
    }
    for text in ["0", "1023KiB", "1025TiB", "18014398509481985KiB", "3GB", "GiB", "-1", "1.5GiB"] {
        assert!(load(text).unwrap_err().to_string().contains("such as `20GiB`"), "{text}");
    }
}
