//! W3C trace context: which trace a request belongs to, as whoever asks says it.
//!
//! What does not keep to the grammar to the letter is no context at all: it comes from clients, and goes into records,
//! to collectors and to workers.

use std::fmt;

/// The longest `tracestate` that is passed on, in bytes (W3C Trace Context, 3.3.1.5).
const STATE_BYTES_MAX: usize = 512;
/// The most members of a `tracestate` (3.3.1.1).
const STATE_MEMBERS_MAX: usize = 32;
/// The bytes of a `traceparent` of the version that we speak.
const PARENT_BYTES: usize = 55;
/// The flag that says that the caller records the trace.
const SAMPLED: u8 = 1;

/// A place in a trace: the caller's span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never zero.
    pub trace: u128,
    /// The span in it; never zero.
    pub span: u64,
    /// Whether the trace is recorded.
    pub sampled: bool,
    /// What vendors want passed on with it, as it came.
    state: Option<String>,
}

impl TraceContext {
    /// The context of one of our own spans in a trace that is new.
    pub const fn new(trace: u128, span: u64, sampled: bool) -> Self {
        Self { trace, span, sampled, state: None }
    }

    /// Reads the values of `traceparent` and `tracestate`. A bad `tracestate` is left out, as the standard says.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let bytes = traceparent.as_bytes();
        let dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        if !dashes || bytes.len() < PARENT_BYTES {
            return None;
        }
        // Later versions may add fields behind a dash; `ff` is none.
        match (hex(bytes.get(..2)?)?, bytes.get(PARENT_BYTES)) {
            (0xff, _) => return None,
            (0, None) | (1.., None | Some(b'-')) => {}
            _ => return None,
        }
        let trace = hex(bytes.get(3..35)?).filter(|trace| *trace != 0)?;
        let span = hex(bytes.get(36..52)?).filter(|span| *span != 0)?;
        let flags = hex(bytes.get(53..55)?)?;
        let state = tracestate.filter(|state| is_state(state)).map(str::to_owned);
        Some(Self { trace, span: u64::try_from(span).ok()?, sampled: flags & u128::from(SAMPLED) != 0, state })
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn with_span(&self, span: u64) -> Self {
        Self { span, ..self.clone() }
    }

    /// The value of `tracestate`, if there is one.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

/// The value of `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = if self.sampled { SAMPLED } else { 0 };
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span)
    }
}

/// A number in lowercase hexadecimal, of at most 32 digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0_u128, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

fn is_state(state: &str) -> bool {
    let members: Vec<&str> = state.split(',').map(|member| member.trim_matches([' ', '\t'])).collect();
    let mut keys: Vec<&str> = members.iter().filter_map(|member| Some(member.split_once('=')?.0)).collect();
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    state.len() <= STATE_BYTES_MAX
        && members.len() <= STATE_MEMBERS_MAX
        && keys.len() == count
        && members.iter().all(|member| is_member(member))
}

/// One `key=value` (3.3.1.3).
fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let of_value = |byte: u8| (0x20..=0x7e).contains(&byte) && byte != b',' && byte != b'=';
    is_key(key) && (1..=256).contains(&value.len()) && value.bytes().all(of_value) && !value.ends_with(' ')
}

fn is_key(key: &str) -> bool {
    let of_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(&byte);
    let begins = |part: &str, digit: bool| {
        part.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || digit && byte.is_ascii_digit())
    };
    match key.split_once('@') {
        None => key.len() <= 256 && begins(key, false) && key.bytes().all(of_key),
        Some((tenant, system)) => {
            tenant.len() <= 241
                && system.len() <= 14
                && begins(tenant, true)
                && begins(system, false)
                && tenant.bytes().chain(system.bytes()).all(of_key)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_read_and_written_as_it_came() {
        let context = TraceContext::parse(GOOD, Some("congo=t61rcWkgMzE,tenant@rojo=00f067aa0ba902b7")).unwrap();
        assert!(context.sampled);
        assert_eq!(context.to_string(), GOOD);
        assert_eq!(context.state(), Some("congo=t61rcWkgMzE,tenant@rojo=00f067aa0ba902b7"));
        let next = context.with_span(1);
        assert_eq!(next.to_string(), "00-0af7651916cd43dd8448eb211c80319c-0000000000000001-01");
        let unsampled = TraceContext::parse(&GOOD.replace("-01", "-fe"), None).unwrap();
        assert!(!unsampled.sampled && unsampled.to_string().ends_with("-00"));
        let later = GOOD.replacen("00", "01", 1);
        assert!(TraceContext::parse(&later, None).is_some());
        assert!(TraceContext::parse(&format!("{later}-more"), None).is_some());
    }

    #[test]
    fn what_is_not_to_the_letter_is_no_context() {
        let bad = [
            String::new(),
            GOOD.to_uppercase(),
            format!(" {GOOD}"),
            format!("{GOOD}\n"),
            format!("{GOOD}-more"),
            GOOD.replacen("00", "ff", 1),
            GOOD.replacen("00", "01", 1) + "x",
            GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            GOOD.replace("b7ad", "b7aé"),
            GOOD.replace("b7ad", "+7ad"),
            GOOD.replace('-', "_"),
            GOOD[..54].to_owned(),
            "x".repeat(1 << 20),
        ];
        for text in bad {
            assert_eq!(TraceContext::parse(&text, None), None, "{text:.80}");
        }
    }

    #[test]
    fn a_state_that_is_not_to_the_letter_is_left_out_alone() {
        let many = (0..33).map(|number| format!("k{number}=v")).collect::<Vec<_>>().join(",");
        let long = format!("k={}", "v".repeat(600));
        for bad in ["", "k", "K=v", "k=a=b", "k=v,k=w", "k=v\r\nx: y", "k=é", "a@b@c=v", "k=,", &many, &long] {
            let context = TraceContext::parse(GOOD, Some(bad)).unwrap();
            assert_eq!(context.state(), None, "{bad:.80}");
        }
    }
}
