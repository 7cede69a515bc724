//! The table of clients that `coordinator install` knows: where each keeps its servers on Linux, and in what form.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::config::Environment;

/// A client that can be told of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Client {
    /// Claude Desktop
    ClaudeDesktop,
    /// Claude Code
    ClaudeCode,
    /// Cursor
    Cursor,
    /// Visual Studio Code
    #[value(name = "vscode")]
    VsCode,
    /// Codex
    Codex,
}

/// What is known of one client. Each file is the one for all of a user's projects.
#[derive(Debug)]
pub(super) struct Row {
    client: Client,
    /// Its name for people.
    pub(super) title: &'static str,
    base: Base,
    /// The file below the base.
    file: &'static str,
    /// What the file is made of.
    pub(super) format: Format,
    /// What makes the client read the file again.
    pub(super) then: &'static str,
}

/// The directory in which a client's file is.
#[derive(Debug)]
enum Base {
    /// `$HOME`.
    Home,
    /// `$XDG_CONFIG_HOME`, else `~/.config`.
    Config,
    /// What the variable names, else this directory in `$HOME`.
    Variable(&'static str, &'static str),
}

/// How servers stand in a client's file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Format {
    /// JSON, comments and trailing commas allowed.
    Json {
        /// The name of the object that holds the servers.
        servers: &'static str,
        /// Whether an entry says that it is of type `stdio`.
        typed: bool,
    },
    /// TOML with a table `[mcp_servers.NAME]`.
    Toml,
}

/// There is no place for the client's file.
#[derive(Debug, thiserror::Error)]
#[error("{title} keeps its servers below {variables}, and none of them names an absolute directory")]
pub(super) struct NoPlace {
    title: &'static str,
    variables: String,
}

const MCP_SERVERS: &str = "mcpServers";

static TABLE: &[Row] = &[
    Row {
        client: Client::ClaudeDesktop,
        title: "Claude Desktop",
        base: Base::Config,
        file: "Claude/claude_desktop_config.json",
        format: Format::Json { servers: MCP_SERVERS, typed: false },
        then: "restart Claude Desktop",
    },
    Row {
        client: Client::ClaudeCode,
        title: "Claude Code",
        base: Base::Variable("CLAUDE_CONFIG_DIR", ""),
        file: ".claude.json",
        format: Format::Json { servers: MCP_SERVERS, typed: true },
        then: "start a new session; `/mcp` shows the server",
    },
    Row {
        client: Client::Cursor,
        title: "Cursor",
        base: Base::Home,
        file: ".cursor/mcp.json",
        format: Format::Json { servers: MCP_SERVERS, typed: false },
        then: "switch the server on under Settings, MCP",
    },
    Row {
        client: Client::VsCode,
        title: "Visual Studio Code",
        base: Base::Config,
        file: "Code/User/mcp.json",
        format: Format::Json { servers: "servers", typed: true },
        then: "run `MCP: List Servers` and start the server",
    },
    Row {
        client: Client::Codex,
        title: "Codex",
        base: Base::Variable("CODEX_HOME", ".codex"),
        file: "config.toml",
        format: Format::Toml,
        then: "start a new session; `/mcp` shows the server",
    },
];

impl Client {
    /// What is known of it.
    pub(super) fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.client == self).expect("every client has a row")
    }
}

impl Row {
    /// The client's file for the user whose environment this is.
    pub(super) fn path(&self, environment: &Environment) -> Result<PathBuf, NoPlace> {
        let home = || environment.directory("HOME");
        let (base, variables) = match self.base {
            Base::Home => (home(), "HOME".to_owned()),
            Base::Config => (
                environment.directory("XDG_CONFIG_HOME").or_else(|| home().map(|home| home.join(".config"))),
                "XDG_CONFIG_HOME or HOME".to_owned(),
            ),
            Base::Variable(name, below) => {
                (environment.directory(name).or_else(|| home().map(|home| home.join(below))), format!("{name} or HOME"))
            }
        };
        base.map(|base| base.join(self.file)).ok_or(NoPlace { title: self.title, variables })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(client: Client, environment: &[(&str, &str)]) -> Option<String> {
        let path = client.row().path(&Environment::from_pairs(environment.iter().copied())).ok()?;
        Some(path.to_str().unwrap().to_owned())
    }

    #[test]
    fn each_client_has_its_file_in_the_usual_place() {
        let expected = [
            "/users/u/.config/Claude/claude_desktop_config.json",
            "/users/u/.claude.json",
            "/users/u/.cursor/mcp.json",
            "/users/u/.config/Code/User/mcp.json",
            "/users/u/.codex/config.toml",
        ];
        for (client, expected) in Client::value_variants().iter().zip(expected) {
            assert_eq!(path(*client, &[("HOME", "/users/u")]).as_deref(), Some(expected));
            assert_eq!(path(*client, &[("HOME", "relative")]), None);
        }
    }

    #[test]
    fn variables_that_move_a_file_are_followed() {
        let moved = [("HOME", "/h"), ("XDG_CONFIG_HOME", "/x"), ("CODEX_HOME", "/c"), ("CLAUDE_CONFIG_DIR", "/d")];
        assert_eq!(path(Client::ClaudeDesktop, &moved).unwrap(), "/x/Claude/claude_desktop_config.json");
        assert_eq!(path(Client::ClaudeCode, &moved).unwrap(), "/d/.claude.json");
        assert_eq!(path(Client::Cursor, &moved).unwrap(), "/h/.cursor/mcp.json");
        assert_eq!(path(Client::VsCode, &moved).unwrap(), "/x/Code/User/mcp.json");
        assert_eq!(path(Client::Codex, &moved).unwrap(), "/c/config.toml");
    }
}
