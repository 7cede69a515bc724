//! What a session may reach outside, as its worker is told, and what became of it.

use std::fmt;

use codegen_types::egress::{SESSION_HOSTS_MAX, SESSION_SECRETS_MAX};
use codegen_types::packages::HostPort;
use codegen_types::{Contact, ContactOutcome, Reach};

use crate::bounds::{NAME_BYTES_MAX, SECRET_BYTES_MAX, TOKEN_BYTES_MAX};
use crate::field::{bounded, list, text, word, word_text};
use crate::invalid::InvalidMessage;
use crate::secret::Secret;
use crate::v1;

/// What a session may reach; nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    /// The hosts.
    pub hosts: Vec<EgressHost>,
    /// What the worker's proxy puts into requests to some of them.
    pub secrets: Vec<EgressSecret>,
}

/// A host that may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressHost {
    /// Its name and port.
    pub host: HostPort,
    /// At which addresses.
    pub reach: Reach,
}

/// A header that the worker's proxy puts into each request to a host.
#[derive(Debug, Clone)]
pub struct EgressSecret {
    /// What people call it.
    pub name: String,
    /// The host, one of those that may be reached.
    pub host: HostPort,
    /// The header.
    pub header: String,
    /// What the header says.
    pub value: Secret,
}

// For tests of what travels; nobody is let in by this comparison.
impl PartialEq for EgressSecret {
    fn eq(&self, other: &Self) -> bool {
        let named = (&self.name, &self.host, &self.header) == (&other.name, &other.host, &other.header);
        named && self.value.expose() == other.value.expose()
    }
}

impl Eq for EgressSecret {}

// The generated one would show the value.
impl fmt::Debug for v1::EgressSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EgressSecret").field("name", &self.name).field("host", &self.host).finish_non_exhaustive()
    }
}

fn host(value: &str, field: &'static str) -> Result<HostPort, InvalidMessage> {
    // A host without its port would get one here that nobody meant.
    HostPort::parse(value, 443)
        .ok()
        .filter(|host| host.to_string() == value)
        .ok_or(InvalidMessage::OutOfRange { field, expected: "a host with its port" })
}

impl From<Egress> for v1::Egress {
    fn from(egress: Egress) -> Self {
        let hosts = egress.hosts.into_iter().map(|EgressHost { host, reach }| v1::EgressHost {
            host: host.to_string(),
            may_be_private: reach == Reach::Private,
        });
        let secrets = egress.secrets.into_iter().map(|secret| v1::EgressSecret {
            name: secret.name,
            host: secret.host.to_string(),
            header: secret.header,
            value: secret.value.expose().to_owned(),
        });
        Self { hosts: hosts.collect(), secrets: secrets.collect() }
    }
}

impl TryFrom<v1::Egress> for Egress {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Egress) -> Result<Self, InvalidMessage> {
        let allowed = |wire: v1::EgressHost| {
            let reach = if wire.may_be_private { Reach::Private } else { Reach::Public };
            Ok(EgressHost { host: host(&wire.host, "EgressHost.host")?, reach })
        };
        Ok(Self {
            hosts: list(wire.hosts, SESSION_HOSTS_MAX, "Egress.hosts", allowed)?,
            secrets: list(wire.secrets, SESSION_SECRETS_MAX, "Egress.secrets", EgressSecret::try_from)?,
        })
    }
}

impl TryFrom<v1::EgressSecret> for EgressSecret {
    type Error = InvalidMessage;

    fn try_from(wire: v1::EgressSecret) -> Result<Self, InvalidMessage> {
        bounded(wire.value.len(), SECRET_BYTES_MAX, "EgressSecret.value")?;
        Ok(Self {
            name: text(wire.name, NAME_BYTES_MAX, "EgressSecret.name")?,
            host: host(&wire.host, "EgressSecret.host")?,
            header: text(wire.header, NAME_BYTES_MAX, "EgressSecret.header")?,
            value: Secret::new(wire.value),
        })
    }
}

impl From<Contact> for v1::Contact {
    fn from(contact: Contact) -> Self {
        Self {
            host: contact.host,
            outcome: word_text(&contact.outcome, &ContactOutcome::NAMES),
            connections: contact.connections,
            sent_bytes: contact.sent_bytes,
            received_bytes: contact.received_bytes,
        }
    }
}

impl TryFrom<v1::Contact> for Contact {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Contact) -> Result<Self, InvalidMessage> {
        let host = text(wire.host, TOKEN_BYTES_MAX, "Contact.host")?;
        // It is shown to people, and a worker may have made it up.
        if !host.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidMessage::OutOfRange { field: "Contact.host", expected: "printable" });
        }
        Ok(Self {
            host,
            outcome: word(&wire.outcome, &ContactOutcome::NAMES, "Contact.outcome")?,
            connections: wire.connections,
            sent_bytes: wire.sent_bytes,
            received_bytes: wire.received_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_by_nothing_that_it_travels_in() {
        let secret = EgressSecret {
            name: "n".to_owned(),
            host: HostPort::new("a.example", 443).unwrap(),
            header: "authorization".to_owned(),
            value: Secret::new("hunter2"),
        };
        let egress = Egress { hosts: Vec::new(), secrets: vec![secret] };
        let wire = v1::OpenSessionRequest { egress: Some(egress.clone().into()), ..Default::default() };
        assert!(!format!("{egress:?} {wire:?}").contains("hunter2"));
        assert_eq!(Egress::try_from(wire.egress.unwrap()), Ok(egress));
    }
}
