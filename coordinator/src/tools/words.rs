//! Amounts, times and signals as people and models read them.

use std::borrow::Cow;

use jiff::Timestamp;

/// A number of bytes, such as `512 B`, `1.5 KiB` or `14 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1023.5 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(amount < 9.95);
    format!("{amount:.digits$} {}", UNITS[unit])
}

/// A wall time, such as `0.12 s` or `75 s`.
pub(super) fn seconds(ms: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let seconds = ms as f64 / 1000.0;
    let digits = if seconds < 10.0 { 2 } else { usize::from(seconds < 100.0) };
    format!("{seconds:.digits$} s")
}

/// A point in time, given in milliseconds since the Unix epoch, as RFC 3339.
pub(super) fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// A text of about so many characters: of a longer one its beginning and its end.
pub(super) fn shortened(text: &str, chars_max: usize) -> Cow<'_, str> {
    let chars = text.chars().count();
    if chars <= chars_max {
        return Cow::Borrowed(text);
    }
    let half = chars_max / 2;
    let [first, last]: [String; 2] = [text.chars().take(half).collect(), text.chars().skip(chars - half).collect()];
    Cow::Owned(format!("{first}…{last}"))
}

/// The name of a Linux signal.
pub(super) fn signal(number: i32) -> Cow<'static, str> {
    const NAMES: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    let place = usize::try_from(number).ok().and_then(|n| n.checked_sub(1));
    match place.and_then(|n| NAMES.get(n)) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(format!("signal {number}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short_and_have_units() {
        let shown = [0, 1023, 1024, 1536, 14 << 20, (1 << 30) - 1, 5 << 40].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "14 MiB", "1.0 GiB", "5.0 TiB"]);
        assert_eq!([0, 123, 9_999, 75_300, 600_000].map(seconds), ["0.00 s", "0.12 s", "10.00 s", "75.3 s", "600 s"]);
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(
            [9, 11, 31, 0, 40, -1].map(signal),
            ["SIGKILL", "SIGSEGV", "SIGSYS", "signal 0", "signal 40", "signal -1"]
        );
    }
}
