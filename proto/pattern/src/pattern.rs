//! Patterns that cannot burn memory or time.
//!
//! A pattern becomes a lazily built automaton of bounded size, which takes one step per byte and never goes back. A step
//! can still cost as much as the pattern is large, and a search engine called as a whole cannot be stopped: in a line of
//! 1 MiB, `(a|b)*a(a|b){2000}c` kept one busy for 79 s. So we take the steps ourselves and look up between them.

use std::cell::RefCell;
use std::time::Instant;

use grep_matcher::{Match, Matcher, NoCaptures};
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::prefilter::Prefilter;
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind, Span};
use regex_syntax::hir::{Hir, HirKind, Look, Repetition};

use super::patience::{Ended, Patience};

/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 4_096;
/// A compiled pattern, in bytes.
const COMPILED_BYTES_MAX: usize = 2 << 20;
/// States that are remembered while searching, in bytes; beyond it all are forgotten and built anew.
const CACHE_BYTES_MAX: usize = 16 << 20;
/// How deeply groups may be nested.
const NESTING_MAX: u32 = 100;
/// The longest explanation of a fault, in characters.
const FAULT_CHARS_MAX: usize = 1_500;
/// Steps between two looks at the clock. One step of the largest pattern takes about a millisecond.
const STEPS_PER_LOOK: usize = 128;

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// A regular expression, 1 to 4096 bytes.
    pub pattern: &'a str,
    /// Whether the pattern is plain text.
    pub literal: bool,
    /// Whether letters match those of the other case.
    pub ignore_case: bool,
}

/// Why a pattern is not used, in words for whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// A compiled pattern, which says where in a line it is found.
#[derive(Debug)]
pub struct Pattern {
    automaton: DFA,
    cache: RefCell<Cache>,
    /// Finds quickly where a match could begin, when all begin with one of a few texts.
    beginnings: Option<Prefilter>,
    patience: Patience,
}

impl Pattern {
    /// Compiles what a search looks for.
    ///
    /// # Errors
    /// It is none, or costs too much.
    pub fn compile(wanted: &Wanted<'_>, patience: Patience) -> Result<Self, Refused> {
        if wanted.pattern.is_empty() || wanted.pattern.len() > PATTERN_BYTES_MAX {
            return Err(refused(&format!("it must have from 1 to {PATTERN_BYTES_MAX} bytes")));
        }
        let syntax =
            syntax::Config::new().case_insensitive(wanted.ignore_case).utf8(false).nest_limit(NESTING_MAX).octal(false);
        let parsed = match wanted.literal {
            true => syntax::parse_with(&regex_syntax::escape(wanted.pattern), &syntax),
            false => syntax::parse_with(wanted.pattern, &syntax),
        };
        let lines = of_lines(&parsed.map_err(|error| refused(&error.to_string()))?)?;
        let beginnings = Prefilter::from_hir_prefix(MatchKind::All, &lines);
        let limits = thompson::Config::new().utf8(false).nfa_size_limit(Some(COMPILED_BYTES_MAX));
        let compiled = thompson::Compiler::new().configure(limits).build_from_hir(&lines);
        let compiled = compiled.map_err(|_| {
            refused("compiled, it is too large; repeat less, or use `[a-z]` and the like in place of `\\w` or `\\p{…}`")
        })?;
        // Earliest matches are enough, so no alternative needs to be preferred.
        let settings = DFA::config().match_kind(MatchKind::All).cache_capacity(CACHE_BYTES_MAX);
        let automaton = DFA::builder().configure(settings).build_from_nfa(compiled);
        let automaton = automaton.map_err(|error| refused(&error.to_string()))?;
        let cache = RefCell::new(automaton.create_cache());
        Ok(Self { automaton, cache, beginnings, patience })
    }

    /// How long whoever searches goes on.
    pub const fn patience(&self) -> &Patience {
        &self.patience
    }

    /// Goes on until then.
    pub const fn until(&mut self, until: Instant) {
        self.patience.until = until;
    }

    /// Where the first match that is complete ends in a line without its end.
    ///
    /// # Errors
    /// Patience ended.
    pub fn find_end(&self, line: &[u8]) -> Result<Option<usize>, Ended> {
        self.patience.look()?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let begin = match &self.beginnings {
            Some(beginnings) => match beginnings.find(line, Span::from(0..line.len())) {
                Some(found) => found.start,
                None => return Ok(None),
            },
            None => 0,
        };
        self.run(line, begin)
    }

    fn run(&self, line: &[u8], begin: usize) -> Result<Option<usize>, Ended> {
        let (automaton, cache) = (&self.automaton, &mut *self.cache.borrow_mut());
        // The cache is emptied whenever it is full and the pattern fits into it, so no step can fail.
        let broken = |_| Ended::Broken;
        let input = Input::new(line).range(begin..);
        let mut state = automaton.start_state_forward(cache, &input).map_err(|_| Ended::Broken)?;
        for (at, byte) in (begin..).zip(&line[begin..]) {
            state = automaton.next_state(cache, state, *byte).map_err(broken)?;
            if state.is_match() {
                // A match is known one byte late.
                return Ok(Some(at));
            }
            if state.is_dead() {
                return Ok(None);
            }
            if at % STEPS_PER_LOOK == 0 {
                self.patience.look()?;
            }
        }
        let state = automaton.next_eoi_state(cache, state).map_err(broken)?;
        Ok(state.is_match().then_some(line.len()))
    }
}

impl Matcher for Pattern {
    type Captures = NoCaptures;
    type Error = Ended;

    /// Only whether there is a match matters to a search by line, and only [`Self::shortest_match_at`] is asked for.
    fn find_at(&self, haystack: &[u8], at: usize) -> Result<Option<Match>, Ended> {
        Ok(self.shortest_match_at(haystack, at)?.map(|end| Match::new(at, end)))
    }

    fn shortest_match_at(&self, haystack: &[u8], at: usize) -> Result<Option<usize>, Ended> {
        Ok(self.find_end(&haystack[at..])?.map(|end| at + end))
    }

    fn new_captures(&self) -> Result<NoCaptures, Ended> {
        Ok(NoCaptures::new())
    }
}

/// The pattern as it is matched with single lines: what names a line's end is refused, since it would never match, and
/// the automaton knows word boundaries between ASCII characters only.
fn of_lines(hir: &Hir) -> Result<Hir, Refused> {
    let each = |parts: &[Hir]| parts.iter().map(of_lines).collect::<Result<Vec<_>, _>>();
    Ok(match hir.kind() {
        HirKind::Literal(literal) if literal.0.contains(&b'\n') => {
            return Err(refused("it names the end of a line, and lines are searched one by one; use ^ or $"));
        }
        HirKind::Look(look) => Hir::look(match look {
            Look::WordUnicode => Look::WordAscii,
            Look::WordUnicodeNegate => Look::WordAsciiNegate,
            Look::WordStartUnicode => Look::WordStartAscii,
            Look::WordEndUnicode => Look::WordEndAscii,
            Look::WordStartHalfUnicode => Look::WordStartHalfAscii,
            Look::WordEndHalfUnicode => Look::WordEndHalfAscii,
            ascii => *ascii,
        }),
        HirKind::Repetition(repetition) => {
            let sub = Box::new(of_lines(&repetition.sub)?);
            Hir::repetition(Repetition { sub, ..repetition.clone() })
        }
        HirKind::Capture(capture) => of_lines(&capture.sub)?,
        HirKind::Concat(parts) => Hir::concat(each(parts)?),
        HirKind::Alternation(parts) => Hir::alternation(each(parts)?),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) => hir.clone(),
    })
}

fn refused(why: &str) -> Refused {
    Refused(why.chars().take(FAULT_CHARS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn compiled(pattern: &str, time: Duration) -> Pattern {
        let patience = Patience { stop: Default::default(), until: Instant::now() + time };
        Pattern::compile(&Wanted { pattern, literal: false, ignore_case: false }, patience).expect(pattern)
    }

    /// Random letters make every step a new state: as one call of a search engine this line takes minutes.
    #[test]
    fn patience_ends_in_the_middle_of_a_line() {
        let mut random = 12_345_u64;
        let letters = std::iter::repeat_with(|| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if random >> 40 & 1 == 1 { b'a' } else { b'b' }
        });
        let line: Vec<u8> = letters.take(3 << 20).collect();
        let begun = Instant::now();
        let pattern = compiled("(a|b)*a(a|b){1500}c", Duration::from_millis(500));
        assert_eq!(pattern.find_end(&line), Err(Ended::TimedOut));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    #[test]
    fn the_end_of_the_first_complete_match_is_found() {
        let end = |pattern: &str, line: &str| {
            compiled(pattern, Duration::from_secs(60)).find_end(line.as_bytes()).expect("patience lasts")
        };
        assert_eq!(end("b+", "aabbb"), Some(3));
        assert_eq!(end("^a|c$", "xac"), Some(3));
        assert_eq!(end("c$", "xac\r"), Some(3));
        assert_eq!(end("^$", ""), Some(0));
        assert_eq!(end("^$", "\r"), Some(0));
        assert_eq!(end("needle|noodle", "a noodle"), Some(8));
        assert_eq!(end("needle", "a noodle"), None);
        assert_eq!(end(r"\bb", "ab b"), Some(4));
        assert_eq!(end("[^x]", "xxé"), Some(4));
    }
}
