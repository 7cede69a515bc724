//! What a repeated call gets: the same key and arguments give the same outcome, other arguments an error.

/// The SHA-256 of a call's tool and arguments.
pub type ArgumentDigest = [u8; 32];

/// An earlier call under the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earlier {
    /// Of its tool and arguments.
    pub digest: ArgumentDigest,
    /// Whether it is over.
    pub is_over: bool,
}

/// What to do with a call that has a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The key is new: run it.
    Run,
    /// The same call runs: wait for its outcome.
    Join,
    /// The same call is over: give its outcome.
    Replay,
    /// The key belongs to another call: refuse it.
    Conflict,
}

/// Decides on a call with this digest, given the earlier one under its key.
pub fn judge(earlier: Option<&Earlier>, digest: &ArgumentDigest) -> Verdict {
    match earlier {
        None => Verdict::Run,
        Some(earlier) if earlier.digest != *digest => Verdict::Conflict,
        Some(earlier) if earlier.is_over => Verdict::Replay,
        Some(_) => Verdict::Join,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_stands_for_one_call() {
        let (mine, other) = ([1; 32], [2; 32]);
        let running = Earlier { digest: mine, is_over: false };
        let over = Earlier { digest: mine, is_over: true };
        assert_eq!(judge(None, &mine), Verdict::Run);
        assert_eq!(judge(Some(&running), &mine), Verdict::Join);
        assert_eq!(judge(Some(&over), &mine), Verdict::Replay);
        assert_eq!(judge(Some(&running), &other), Verdict::Conflict);
        assert_eq!(judge(Some(&over), &other), Verdict::Conflict);
    }
}
