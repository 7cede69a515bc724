//! What is known of clients that do things their own way: one table, by the name that a client gives itself.
//!
//! A row says only what a source supports; the source stands beside it, and what is unknown is as in `UNKNOWN`. Nothing
//! here is a permission: a name can be made up, so a row may change how a result is put, never what a caller may do.

use std::time::Duration;

/// How the server adapts to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quirks {
    /// The shortest time after which some release of the client cuts a call, unless its user configured another.
    pub(crate) call_limit: Duration,
    /// What becomes of content when a result has structured content as well.
    pub(crate) structured: Structured,
    /// Whether a block of type `resource_link` may be in a result.
    pub(crate) resource_links: bool,
    /// Characters of one result's text that reach the model undiminished.
    pub(crate) result_chars_max: usize,
}

/// What a client does with a result that has content and structured content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Structured {
    /// The model gets the content, too.
    Beside,
    /// The model gets the structured content instead of the text or of all content; a result without is taken.
    Instead,
    /// As `Instead`, but a tool that declares an output schema must give structured content, else the call fails.
    InsteadAndRequired,
}

/// What is taken to hold for every other client. 60 s is what the TypeScript SDK waits when nobody chose otherwise.
const UNKNOWN: Quirks = Quirks {
    call_limit: Duration::from_secs(60),
    structured: Structured::Beside,
    resource_links: false,
    result_chars_max: 20_000,
};

/// The name's beginning, in lower case and with `-` for blanks, and what is known of its bearer.
const TABLE: &[(&str, Quirks)] = &[
    // Claude Desktop and claude.ai. Cut after 60 s: github.com/anthropics/claude-code/issues/22542; the model reads the
    // content: github.com/blockscout/mcp-server/issues/324; results with a link are refused as being of an unsupported
    // format: github.com/modelcontextprotocol/modelcontextprotocol/issues/1638; text cut at 100 000 characters:
    // github.com/lirantal/awesome-mcp-best-practices/issues/2.
    ("claude-ai", Quirks { result_chars_max: 100_000, ..UNKNOWN }),
    // The command line waits, but inside the desktop application 60 s are the end: github.com/anthropics/claude-code
    // issue 63379. Structured content hides the content, pictures included: issues 54737 and 79944; and results without
    // are refused: github.com/tuannvm/codex-mcp-server/issues/161. Links are taken: issue 1638 above. Above 10 000
    // tokens it warns, above 25 000 it puts a file in place of the result: code.claude.com/docs/en/mcp.
    (
        "claude-code",
        Quirks {
            structured: Structured::InsteadAndRequired,
            resource_links: true,
            result_chars_max: 30_000,
            ..UNKNOWN
        },
    ),
    // Cut after 300 s: github.com/cursor/cursor/issues/3510. Structured content is shown in place of the content:
    // github.com/modelcontextprotocol/modelcontextprotocol/issues/1411; a tool with an output schema must give it:
    // github.com/DitriXNew/EDT-MCP/issues/574.
    ("cursor", Quirks { call_limit: Duration::from_secs(300), structured: Structured::InsteadAndRequired, ..UNKNOWN }),
    // Cut after 300 s whatever the progress: github.com/microsoft/vscode/issues/261734. Structured content replaces
    // text, not pictures, is not checked against a schema, and links are taken: microsoft/vscode,
    // src/vs/workbench/contrib/mcp/common/mcpLanguageModelToolContribution.ts.
    (
        "visual-studio-code",
        Quirks {
            call_limit: Duration::from_secs(300),
            structured: Structured::Instead,
            resource_links: true,
            ..UNKNOWN
        },
    ),
    // Codex. Cut after 60 s, in later releases 120 and 300: github.com/openai/codex/pull/28234. Structured content
    // replaces all content and is not checked, and a block that is neither text nor picture turns the whole result,
    // pictures included, into JSON text: openai/codex, codex-rs/protocol/src/models.rs. Text is cut at 10 kB:
    // github.com/openai/codex/issues/6544 and 7906.
    ("codex", Quirks { structured: Structured::Instead, result_chars_max: 10_000, ..UNKNOWN }),
    // Structured content replaces all content: github.com/anomalyco/opencode/pull/32074. It is made with the SDK that
    // refuses results without.
    ("opencode", Quirks { structured: Structured::InsteadAndRequired, ..UNKNOWN }),
];

/// Characters of a client's name that are looked at.
const NAME_CHARS_MAX: usize = 64;

/// What is known of the client that calls itself so. Releases add to their names ("Visual Studio Code - Insiders",
/// "claude-ai (via mcp-remote 0.1.37)"), so a row holds for every name that goes on after its own with something that
/// is no letter or digit.
pub(crate) fn of(client_name: Option<&str>) -> Quirks {
    let Some(name) = client_name else { return UNKNOWN };
    let name: String = name.trim().chars().take(NAME_CHARS_MAX).map(normal).collect();
    let known = |known: &str| {
        let rest = name.strip_prefix(known)?;
        (!rest.starts_with(char::is_alphanumeric)).then_some(())
    };
    TABLE.iter().find(|(prefix, _)| known(prefix).is_some()).map_or(UNKNOWN, |(_, quirks)| *quirks)
}

const fn normal(c: char) -> char {
    match c {
        ' ' | '_' => '-',
        c => c.to_ascii_lowercase(),
    }
}

impl Quirks {
    /// After how long at most a call is answered with its task, so that the client does not cut it first.
    pub(crate) fn yield_after(self) -> Duration {
        self.call_limit / 4 * 3
    }

    /// Whether a result is better given without its structured content, which would hide its content. A tool that
    /// declares an output schema owes it to the clients that check.
    pub(crate) const fn omits_structured(self, declares_output_schema: bool) -> bool {
        match self.structured {
            Structured::Beside => false,
            Structured::Instead => true,
            Structured::InsteadAndRequired => !declares_output_schema,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str) -> Quirks {
        TABLE.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no row {name}")).1
    }

    #[test]
    fn a_client_is_known_by_its_exact_name() {
        for (name, quirks) in TABLE {
            assert_eq!(of(Some(name)), *quirks, "{name}");
        }
    }

    #[test]
    fn a_client_is_known_in_other_spellings_and_with_more_after_its_name() {
        for (given, known) in [
            ("claude-ai (via mcp-remote 0.1.37)", "claude-ai"),
            ("Claude Code", "claude-code"),
            ("claude-code/2.1.280", "claude-code"),
            ("cursor-vscode", "cursor"),
            ("Cursor", "cursor"),
            ("Visual Studio Code", "visual-studio-code"),
            ("Visual Studio Code - Insiders", "visual-studio-code"),
            ("codex-mcp-client", "codex"),
            (" Codex_CLI ", "codex"),
        ] {
            assert_eq!(of(Some(given)), row(known), "{given}");
        }
    }

    #[test]
    fn every_other_client_is_taken_to_be_careful_with() {
        let long = format!("{}codex", "x".repeat(1 << 20));
        for name in ["", "t", "claude", "claude-coder", "cursory", "codexical", "my-codex", "\u{0}codex", long.as_str()]
        {
            assert_eq!(of(Some(name)), UNKNOWN, "{:?}", name.get(..9));
        }
        assert_eq!(of(None), UNKNOWN);
    }

    #[test]
    fn names_in_the_table_are_as_names_are_compared() {
        for (at, (name, _)) in TABLE.iter().enumerate() {
            assert_eq!(name.chars().map(normal).collect::<String>(), *name);
            assert!(TABLE[..at].iter().all(|(earlier, _)| !name.starts_with(earlier)), "{name} is never reached");
        }
    }

    #[test]
    fn a_call_yields_before_any_client_cuts_it() {
        for (name, quirks) in TABLE.iter().chain([&("unknown", UNKNOWN)]) {
            assert!(quirks.yield_after() + Duration::from_secs(5) < quirks.call_limit, "{name}");
        }
        let hasty = Quirks { call_limit: Duration::from_secs(20), ..UNKNOWN };
        assert_eq!(hasty.yield_after(), Duration::from_secs(15));
    }

    #[test]
    fn structured_content_is_left_out_only_where_it_hides_content_and_nobody_insists() {
        assert!(!of(None).omits_structured(true) && !of(None).omits_structured(false));
        assert!(!of(Some("claude-ai")).omits_structured(false));
        assert!(of(Some("codex-mcp-client")).omits_structured(true));
        assert!(of(Some("claude-code")).omits_structured(false));
        assert!(!of(Some("claude-code")).omits_structured(true));
    }
}
