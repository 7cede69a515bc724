//! The arguments that the run tools share, written out once.

/// Declares the input of a run tool: its own fields, between the session and those about running and answering.
///
/// A macro and no flattened struct, since serde does not refuse unknown fields of the latter.
macro_rules! run_input {
    ($scope:vis struct $name:ident { $($own:tt)* }) => {
        #[derive(Debug, ::serde::Deserialize, ::schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        $scope struct $name {
            /// Session handle; left out: the default one.
            session_id: Option<String>,
            $($own)*
            /// Wall time after which the program is ended; fractions are allowed. Default 60.
            timeout_seconds: Option<f64>,
            /// Answer with the task's id if it still runs after so many seconds. Default 45.
            yield_after_seconds: Option<f64>,
            /// Answer at once with the task's id. Its wall time is then the longest allowed unless `timeout_seconds`
            /// says else.
            background: Option<bool>,
            /// Characters of output shown, 200 to 100000. Default 20000.
            max_output_chars: Option<u64>,
            /// At most 128 bytes. The same key and arguments again get the first result; nothing runs.
            idempotency_key: Option<String>,
        }

        impl $name {
            fn answer(&self) -> $crate::tools::yielding::AnswerArgs {
                $crate::tools::yielding::AnswerArgs {
                    timeout_seconds: self.timeout_seconds,
                    yield_after_seconds: self.yield_after_seconds,
                    background: self.background,
                    max_output_chars: self.max_output_chars,
                }
            }
        }
    };
}

pub(super) use run_input;
