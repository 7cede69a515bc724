//! How much each principal may ask for.

use std::time::Duration;

use coordinator_core::quota::Quotas;

use super::layers::{ConfigError, Layers};
use super::settings;
use super::values::{self, Why};
use crate::admission::{Rate, Rates};
use crate::tools;

/// How often each principal may call.
pub(super) fn rates(layers: &mut Layers) -> Result<Rates, ConfigError> {
    Ok(Rates {
        http: layers.require(&settings::HTTP_RATE, or_none(rate))?,
        stdio: layers.require(&settings::STDIO_RATE, or_none(rate))?,
        tools: layers.tool_rates(settings::RATE, rate_of_tool)?.into_iter().flatten().collect(),
    })
}

/// How much each principal may use.
pub(super) fn quotas(layers: &mut Layers) -> Result<Quotas, ConfigError> {
    let cpu = layers.require(&settings::QUOTA_CPU_PER_DAY, or_none(values::seconds(1, 1000 * super::DAY)))?;
    Ok(Quotas {
        sessions: layers.require(&settings::QUOTA_SESSIONS, values::count(1, 4096))?,
        tasks: layers.require(&settings::QUOTA_TASKS, or_none(values::count(1, 1_000_000)))?,
        cpu_ms_per_day: cpu.map(|cpu: Duration| u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX)),
        bytes_per_day: layers.require(&settings::QUOTA_BYTES_PER_DAY, or_none(values::bytes(1 << 10, 1 << 50)))?,
    })
}

fn or_none<T>(parse: impl Fn(&str) -> Result<T, Why>) -> impl Fn(&str) -> Result<Option<T>, Why> {
    move |text| if text == "none" { Ok(None) } else { parse(text).map(Some) }
}

fn rate(text: &str) -> Result<Rate, Why> {
    text.parse().map_err(|_| "no rate".to_owned())
}

/// A tool's rate under either of its names; a rate of a tool that there is not would never hold.
fn rate_of_tool(tool: &str, value: &toml::Value) -> Result<Option<(&'static str, Rate)>, Why> {
    let known = tools::find(tool).ok_or_else(|| "there is no such tool".to_owned())?;
    let text = value.as_str().ok_or_else(|| format!("it is a {}", value.type_str()))?;
    Ok(or_none(rate)(text)?.map(|rate| (known.name, rate)))
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Environment, Flags};

    fn load(file: &str, more: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, file).unwrap();
        let home = [("HOME", "/nowhere")];
        let environment = Environment::from_pairs(home.iter().chain(more).copied());
        Config::load(&Flags { file: Some(path), ..Flags::default() }, &environment).map_err(|error| error.to_string())
    }

    #[test]
    fn a_rate_holds_for_the_tool_that_it_names_and_for_no_other() {
        let config = load("[tool_rates]\nrun_python = '5/s burst 9'\n'fs.read' = '1/m'\n", &[]).unwrap();
        let shown: Vec<_> = config.rates.tools.iter().map(|(tool, rate)| format!("{tool} {rate}")).collect();
        assert_eq!(shown, ["fs_read 1/m burst 1", "run_python 5/s burst 9"]);
        assert!(config.show().iter().any(|row| row.name == "tool_rates.run_python" && row.source.starts_with("file")));
        assert!(load("[tool_rates]\nrun_perl = '5/s'\n", &[]).unwrap_err().contains("tool_rates.run_perl"));
        assert!(load("[tool_rates]\nrun_python = 5\n", &[]).unwrap_err().contains("it is a integer"));
        assert!(load("tool_rates = 'none'\n", &[]).unwrap_err().contains("a table `[tool_rates]`"));
    }

    #[test]
    fn over_http_there_is_a_rate_unless_the_operator_says_none() {
        let config = load("", &[]).unwrap();
        assert_eq!(config.rates, crate::admission::Rates::default());
        assert_eq!(config.quotas, coordinator_core::quota::Quotas::default());
        let config = load("quota_tasks = 3\n", &[("HTTP_RATE", "none"), ("QUOTA_CPU_PER_DAY", "1h")]).unwrap();
        assert_eq!((config.rates.http, config.quotas.tasks), (None, Some(3)));
        assert_eq!(config.quotas.cpu_ms_per_day, Some(3_600_000));
        assert!(load("", &[("HTTP_RATE", "fast")]).unwrap_err().contains("HTTP_RATE"));
    }
}
