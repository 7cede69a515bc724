//! Text that shows what it is on a terminal, whoever said it.

use std::fmt::Write as _;

/// Whether a character could move the cursor, hide, or reorder what stands around it.
const fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

/// The text with every control, bidirectional and invisible character written as `\u{…}`, for a terminal.
pub fn for_terminal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_deceptive(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// JSON, as `serde_json` writes it, in which such characters are `\uXXXX`, for a terminal: it means what it meant. Line breaks
/// stay; inside of its strings there are none.
pub fn json_for_terminal(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' {
            out.push(c);
        } else {
            push_in_json(&mut out, c);
        }
    }
    out
}

/// A character of a string in JSON, behind what there is of it.
pub fn push_in_json(out: &mut String, c: char) {
    if !is_deceptive(c) {
        return out.push(c);
    }
    for unit in c.encode_utf16(&mut [0; 2]) {
        write!(out, "\\u{unit:04x}").expect("a String takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: &str = "a\nb\r\x1b[31m\u{7f}\u{85}\u{2028}\u{202e}evil\u{2066}\u{feff}\u{e0041}ü漢\"\\";

    #[test]
    fn json_of_any_layout_deceives_no_terminal_and_means_the_same() {
        let value = serde_json::json!({NASTY: [NASTY, 1], "plain": {}});
        for json in [value.to_string(), format!("{value:#}")] {
            let shown = json_for_terminal(&json);
            assert!(!shown.chars().any(|c| c != '\n' && is_deceptive(c)), "{shown:?}");
            assert_eq!(shown.lines().count(), json.lines().count());
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }

    #[test]
    fn terminal_text_has_no_deceptive_characters() {
        let shown = for_terminal(NASTY);
        assert!(!shown.chars().any(is_deceptive), "{shown:?}");
        assert!(shown.contains("\\u{1b}[31m"));
    }
}
