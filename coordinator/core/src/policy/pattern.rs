//! Patterns of names and of paths.

use super::glob::Glob;

/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1_024;
/// The most components of a pattern of paths, as of a path itself.
const COMPONENTS_MAX: usize = 64;

/// Whether the case of letters counts. Rules that restrict disregard it, since there are file systems that do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Counts,
    IsDisregarded,
}

/// What a pattern of names is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Principal,
    /// Either name of a tool.
    Tool,
    /// A package in the one spelling that all its spellings share (PEP 503).
    Package,
    /// A host without its port, in lower case.
    Host,
}

/// Patterns of names, of which one must match.
#[derive(Debug)]
pub(super) struct Names(Vec<(String, Glob)>);

/// Patterns of paths, of which one must match.
#[derive(Debug)]
pub(super) struct Paths(Vec<PathPattern>);

/// A pattern of paths. It is about what it matches and all that is below.
#[derive(Debug)]
pub(super) struct PathPattern(Vec<Part>);

#[derive(Debug)]
enum Part {
    /// Any number of components, none included.
    Any,
    One(Glob),
}

/// How far patterns follow a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Followed {
    /// The path, or a directory above it, is matched.
    pub(super) touched: bool,
    /// Which positions of which patterns something below the path could still go on from.
    live: Vec<bool>,
}

impl Kind {
    /// The one spelling in which both sides are compared.
    pub(super) fn folded(self, text: &str) -> String {
        match self {
            Self::Principal => text.to_owned(),
            Self::Tool => text.replace('.', "_"),
            Self::Package => canonical(text),
            Self::Host => text.to_ascii_lowercase().trim_end_matches('.').to_owned(),
        }
    }

    const fn others_allowed(self) -> &'static [u8] {
        match self {
            Self::Principal => b"._-+@:/|%=~*?",
            Self::Tool => b"._/*?",
            Self::Package => b"._-*?",
            Self::Host => b".-:*?",
        }
    }
}

impl Names {
    pub(super) fn parse(kind: Kind, texts: &[impl AsRef<str>]) -> Result<Self, String> {
        texts.iter().map(|text| name(kind, text.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a name in the one spelling of its kind is meant.
    pub(super) fn is_match(&self, folded: &str) -> bool {
        self.0.iter().any(|(_, glob)| glob.is_match(folded))
    }

    /// The patterns, as they are compared.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(text, _)| text.as_str())
    }

    /// Of the patterns, those that mean none of these names.
    pub(super) fn matching_none<'a>(&'a self, names: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(|(_, glob)| !names.iter().any(|name| glob.is_match(name))).map(|(text, _)| text.as_str())
    }
}

fn name(kind: Kind, text: &str) -> Result<(String, Glob), String> {
    bounded(text)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || kind.others_allowed().contains(&byte);
    if !text.bytes().all(plain) {
        let others = String::from_utf8_lossy(kind.others_allowed());
        return Err(format!("{text:?} has characters other than letters, digits and `{others}`"));
    }
    let text = kind.folded(text);
    let glob = glob(&text, Case::Counts)?;
    Ok((text, glob))
}

impl Paths {
    pub(super) fn parse(texts: &[impl AsRef<str>], case: Case) -> Result<Self, String> {
        texts.iter().map(|text| PathPattern::parse(text.as_ref(), case)).collect::<Result<_, _>>().map(Self)
    }

    /// Follows a path, given by its components.
    pub(super) fn follow<'a>(&self, path: impl Iterator<Item = &'a str> + Clone) -> Followed {
        let mut all = Followed { touched: false, live: Vec::new() };
        for pattern in &self.0 {
            let followed = pattern.follow(path.clone());
            all.touched |= followed.touched;
            all.live.extend(followed.live);
        }
        all
    }
}

impl Followed {
    /// Whether something below the path can be meant.
    pub(super) fn reaches_below(&self) -> bool {
        self.live.contains(&true)
    }

    /// Whether something below this path can be meant that would no longer be below another.
    pub(super) fn is_lost_at(&self, other: &Self) -> bool {
        !other.touched && self.live.iter().zip(&other.live).any(|(here, there)| *here && !there)
    }
}

impl PathPattern {
    fn parse(text: &str, case: Case) -> Result<Self, String> {
        bounded(text)?;
        if text.starts_with('/') {
            return Err(format!("{text:?} begins with `/`; paths are relative to the workspace"));
        }
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.is_empty() {
            return Err(format!("{text:?} matches nothing; `**` is everything"));
        }
        if parts.contains(&"..") {
            return Err(format!("{text:?} has a component `..`; no path in a workspace has"));
        }
        if parts.len() > COMPONENTS_MAX {
            return Err(format!("a pattern has at most {COMPONENTS_MAX} components"));
        }
        let part = |part: &&str| match *part {
            "**" => Ok(Part::Any),
            // Globs of paths know a meaning for this that is not meant here.
            part if part.contains("**") => Err(format!("{text:?}: `**` stands for whole components")),
            part => glob(part, case).map(Part::One),
        };
        parts.iter().map(part).collect::<Result<_, _>>().map(Self)
    }

    /// The positions in the pattern that the path can have come to, one component after the other.
    fn follow<'a>(&self, path: impl Iterator<Item = &'a str>) -> Followed {
        let end = self.0.len();
        let mut at = vec![false; end + 1];
        at[0] = true;
        self.skip_any(&mut at);
        let mut touched = at[end];
        for component in path {
            let mut next = vec![false; end + 1];
            for (place, part) in self.0.iter().enumerate().filter(|(place, _)| at[*place]) {
                match part {
                    Part::Any => next[place] = true,
                    Part::One(glob) if glob.is_match(component) => next[place + 1] = true,
                    Part::One(_) => {}
                }
            }
            self.skip_any(&mut next);
            touched |= next[end];
            at = next;
        }
        at.truncate(end);
        Followed { touched, live: at }
    }

    /// `**` may stand for nothing.
    fn skip_any(&self, at: &mut [bool]) {
        for (place, part) in self.0.iter().enumerate() {
            if at[place] && matches!(part, Part::Any) {
                at[place + 1] = true;
            }
        }
    }
}

fn bounded(text: &str) -> Result<(), String> {
    match text.len() {
        0 => Err("an empty pattern matches nothing".to_owned()),
        1..=PATTERN_BYTES_MAX if text.contains('\0') => Err("a pattern has no NUL".to_owned()),
        1..=PATTERN_BYTES_MAX => Ok(()),
        _ => Err(format!("a pattern has at most {PATTERN_BYTES_MAX} bytes")),
    }
}

fn glob(text: &str, case: Case) -> Result<Glob, String> {
    Glob::new(text, case).map_err(|wrong| format!("{text:?} is no pattern: {wrong}"))
}

fn canonical(text: &str) -> String {
    let mut canonical = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '-' | '_' | '.' if canonical.ends_with('-') => {}
            '-' | '_' | '.' => canonical.push('-'),
            other => canonical.push(other.to_ascii_lowercase()),
        }
    }
    canonical
}
