//! Environment markers of PEP 508, such as `python_version < "3.11" and os_name == "posix"`.

/// How deep parentheses may be nested.
const DEPTH_MAX: usize = 16;
const VARIABLES: [&str; 12] = [
    "python_version",
    "python_full_version",
    "os_name",
    "sys_platform",
    "platform_release",
    "platform_system",
    "platform_version",
    "platform_machine",
    "platform_python_implementation",
    "implementation_name",
    "implementation_version",
    "extra",
];
const OPERATORS: [&str; 8] = ["===", "~=", "==", "!=", "<=", ">=", "<", ">"];

/// Why a text is no marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMarker {
    /// Neither a variable nor a quoted text is where one should be.
    #[error("a comparison has a variable such as `python_version` or a quoted text on each side")]
    Value,
    /// There is no operator where one should be.
    #[error("a comparison has one of `<`, `<=`, `==`, `!=`, `>=`, `>`, `~=`, `===`, `in`, `not in`")]
    Operator,
    /// Parentheses do not match, or are nested too deep.
    #[error("parentheses must match, at most {DEPTH_MAX} deep")]
    Parentheses,
    /// Something follows that belongs to nothing.
    #[error("comparisons are joined by `and` or `or`")]
    Rest,
}

/// Checks a marker and gives it without the space around it.
pub(super) fn parse(text: &str) -> Result<String, InvalidMarker> {
    let text = text.trim_matches([' ', '\t']);
    let mut reader = Reader { rest: text };
    reader.alternatives(0)?;
    if reader.rest.is_empty() { Ok(text.to_owned()) } else { Err(InvalidMarker::Rest) }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn alternatives(&mut self, depth: usize) -> Result<(), InvalidMarker> {
        loop {
            self.term(depth)?;
            if !self.word("and") && !self.word("or") {
                return Ok(());
            }
        }
    }

    fn term(&mut self, depth: usize) -> Result<(), InvalidMarker> {
        if !self.take("(") {
            self.value()?;
            self.operator()?;
            return self.value();
        }
        if depth == DEPTH_MAX {
            return Err(InvalidMarker::Parentheses);
        }
        self.alternatives(depth + 1)?;
        if self.take(")") { Ok(()) } else { Err(InvalidMarker::Parentheses) }
    }

    fn value(&mut self) -> Result<(), InvalidMarker> {
        for quote in ['"', '\''] {
            if let Some(inside) = self.rest.strip_prefix(quote) {
                let (quoted, rest) = inside.split_once(quote).ok_or(InvalidMarker::Value)?;
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b" ,._+*!#~-".contains(&byte);
                if !quoted.bytes().all(plain) {
                    return Err(InvalidMarker::Value);
                }
                self.rest = rest.trim_start_matches([' ', '\t']);
                return Ok(());
            }
        }
        if VARIABLES.iter().any(|name| self.word(name)) { Ok(()) } else { Err(InvalidMarker::Value) }
    }

    fn operator(&mut self) -> Result<(), InvalidMarker> {
        if self.word("in") || (self.word("not") && self.word("in")) || OPERATORS.iter().any(|sign| self.take(sign)) {
            Ok(())
        } else {
            Err(InvalidMarker::Operator)
        }
    }

    /// Takes a word that does not go on.
    fn word(&mut self, word: &str) -> bool {
        let goes_on = |rest: &str| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        self.rest.strip_prefix(word).is_some_and(|rest| !goes_on(rest)) && self.take(word)
    }

    fn take(&mut self, sign: &str) -> bool {
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest.trim_start_matches([' ', '\t']);
                true
            }
            None => false,
        }
    }
}
