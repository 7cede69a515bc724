//! Globs over text: what stands for one character stands for one character, however many bytes it has.

use regex::{Regex, RegexBuilder};

use super::pattern::Case;

/// A compiled glob: `*` for any text, `?` for one character, `[a-z]` and `[!a-z]` for one of some, `{a,b}` for either, and
/// `\` before what stands for itself.
#[derive(Debug)]
pub(super) struct Glob {
    exact: Regex,
    /// The same in any case of letters, where that is disregarded. It adds to what is meant: of `[!a-z]` alone, it would
    /// leave out capitals.
    folded: Option<Regex>,
}

impl Glob {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn new(text: &str, case: Case) -> Result<Self, String> {
        let source = format!(r"\A(?:{})\z", translated(text)?);
        let compiled = |any_case: bool| {
            let mut builder = RegexBuilder::new(&source);
            let built = builder.case_insensitive(any_case).dot_matches_new_line(true).build();
            built.map_err(|_| "it is too complicated".to_owned())
        };
        let folded = (case == Case::IsDisregarded).then(|| compiled(true)).transpose()?;
        Ok(Self { exact: compiled(false)?, folded })
    }

    /// Whether a text is meant, all of it.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.exact.is_match(text) || self.folded.as_ref().is_some_and(|folded| folded.is_match(text))
    }
}

/// The glob as a regular expression.
fn translated(text: &str) -> Result<String, String> {
    let mut chars = text.chars().peekable();
    let (mut source, mut open) = (String::new(), 0_usize);
    while let Some(char) = chars.next() {
        match char {
            '*' => source.push_str(".*"),
            '?' => source.push('.'),
            '[' => source.push_str(&class(&mut chars)?),
            '{' => {
                open += 1;
                source.push_str("(?:");
            }
            '}' if open > 0 => {
                open -= 1;
                source.push(')');
            }
            '}' => return Err("a `}` without its `{`".to_owned()),
            ',' if open > 0 => source.push('|'),
            '\\' => source.push_str(&literal(chars.next().ok_or("a `\\` at the end")?)),
            other => source.push_str(&literal(other)),
        }
    }
    if open > 0 { Err("a `{` without its `}`".to_owned()) } else { Ok(source) }
}

/// One of some characters. What begins it was read.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, String> {
    let unclosed = || "a `[` without its `]`".to_owned();
    let negated = chars.next_if(|char| matches!(char, '!' | '^')).is_some();
    let mut source = String::from(if negated { "[^" } else { "[" });
    let mut is_first = true;
    loop {
        let from = chars.next().ok_or_else(unclosed)?;
        if from == ']' && !is_first {
            source.push(']');
            return Ok(source);
        }
        is_first = false;
        source.push_str(&literal(from));
        let mut ahead = chars.clone();
        // A `-` at the end is one.
        if ahead.next() == Some('-') && ahead.next().is_some_and(|to| to != ']') {
            chars.next();
            let to = chars.next().ok_or_else(unclosed)?;
            if to < from {
                return Err(format!("the range {from}-{to} has nothing in it"));
            }
            source.push('-');
            source.push_str(&literal(to));
        }
    }
}

fn literal(char: char) -> String {
    regex::escape(char.encode_utf8(&mut [0; 4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_means_whole_characters() {
        for (glob, meant, others) in [
            ("?.txt", &["a.txt", "é.txt", "漢.txt"][..], &[".txt", "éé.txt", "e\u{301}.txt"][..]),
            ("*", &["", "a", "é\n漢"], &[]),
            ("a*é", &["aé", "abcé"], &["a", "é", "aéb"]),
            ("[!a-z]x", &["éx", "Ax", "-x"], &["ax", "x", "ééx"]),
            ("[é漢]", &["é", "漢"], &["e", "é漢", "Ã"]),
            ("[]a-]", &["]", "a", "-"], &["b"]),
            ("{a,b*}.{py,{c,h}}", &["a.py", "bcd.h", "a.c"], &["c.py", "a.", "a.cpp"]),
            (r"\*\?\[", &["*?["], &["a?["]),
            ("a.b+(c)|d^$&&~", &["a.b+(c)|d^$&&~"], &["aab+(c)|d^$&&~", "d^$&&~"]),
            ("[&&a]", &["&", "a"], &["b"]),
            ("[a[b]", &["a", "[", "b"], &["]"]),
        ] {
            let glob = |case| Glob::new(glob, case).unwrap_or_else(|wrong| panic!("{glob}: {wrong}"));
            for text in meant {
                assert!(glob(Case::Counts).is_match(text) && glob(Case::IsDisregarded).is_match(text), "{text}");
            }
            assert!(others.iter().all(|text| !glob(Case::Counts).is_match(text)), "{others:?}");
        }
        assert!(Glob::new("É*", Case::IsDisregarded).is_ok_and(|glob| glob.is_match("éa")));
        assert!(Glob::new("É*", Case::Counts).is_ok_and(|glob| !glob.is_match("éa")));
    }

    #[test]
    fn what_is_no_glob_is_said() {
        for text in ["[a", "{a", "a}", "a\\", "[z-a]", "[", "[!"] {
            assert!(Glob::new(text, Case::Counts).is_err(), "{text}");
        }
    }
}
