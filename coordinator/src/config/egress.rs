//! Which hosts sessions may reach, and which workers are told the operator's secrets.

use codegen_types::HostPattern;
use coordinator_core::egress::PermittedHosts;

use super::grpc::Plaintext;
use super::layers::{ConfigError, Layers};
use super::settings::{EGRESS_HOSTS, EGRESS_PRIVATE_HOSTS, SECRETS_WORKERS};
use super::values::{self, Why};

/// Which workers are told the operator's secrets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SecretsWorkers {
    /// This server's own.
    Embedded,
    /// And those that joined with a token or certificate of their own.
    #[default]
    Named,
    /// And those that share a token: whoever has that can be such a worker.
    All,
}

/// Reads which workers are told secrets. Where what leaves this host may be plain text, none of another host is.
pub(super) fn secrets_workers(layers: &mut Layers, plaintext: Plaintext) -> Result<SecretsWorkers, ConfigError> {
    let wanted = layers.require(&SECRETS_WORKERS, |text| match text {
        "embedded" => Ok(SecretsWorkers::Embedded),
        "named" => Ok(SecretsWorkers::Named),
        "all" => Ok(SecretsWorkers::All),
        _ => Err("none of these".to_owned()),
    })?;
    Ok(match plaintext {
        Plaintext::Local => wanted,
        Plaintext::Anywhere => SecretsWorkers::Embedded,
    })
}

/// Reads what the operator permits; nothing when nobody says anything.
pub(super) fn read(layers: &mut Layers) -> Result<PermittedHosts, ConfigError> {
    Ok(PermittedHosts {
        public: layers.require(&EGRESS_HOSTS, patterns)?,
        private: layers.require(&EGRESS_PRIVATE_HOSTS, values::hosts)?,
    })
}

fn patterns(text: &str) -> Result<Vec<HostPattern>, Why> {
    values::listed(text).map(|one| one.parse().map_err(|error| format!("{one:?}: {error}"))).collect()
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Environment, Flags};

    fn permitted(value: &str) -> Result<usize, String> {
        let environment = Environment::from_pairs([("HOME", "/nonexistent"), ("EGRESS_HOSTS", value)]);
        let config = Config::load(&Flags::default(), &environment).map_err(|error| error.to_string())?;
        Ok(config.egress.public.len())
    }

    #[test]
    fn nothing_is_permitted_unless_the_operator_says_what() {
        let config = Config::load(&Flags::default(), &Environment::from_pairs([("HOME", "/nonexistent")])).unwrap();
        assert_eq!(config.egress, Default::default());
        assert_eq!(permitted("none"), Ok(0));
        assert_eq!(permitted("api.example.com, *.example.org:8443"), Ok(2));
        for bad in ["*", "https://a.example", "a.example:0", "*.1.2.3"] {
            assert!(permitted(bad).is_err_and(|said| said.contains("EGRESS_HOSTS")), "{bad}");
        }
    }
}
