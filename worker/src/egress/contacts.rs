//! Whom a session asked to reach, and what became of it, until a task tells of it.

use std::collections::BTreeMap;

use codegen_types::egress::{CONTACTS_MAX, STRANGERS_MAX};
use codegen_types::packages::HostPort;
use codegen_types::{Contact, ContactOutcome};
use parking_lot::Mutex;

/// What stands for a host that is none.
const INVALID: &str = "invalid";

/// The contacts since they were last taken. Hosts of the list, which is bounded, always keep their name; of the others, which a
/// program can invent, some do, and the rest is counted together.
#[derive(Debug, Default)]
pub(crate) struct Contacts(Mutex<Tallies>);

#[derive(Debug, Default)]
struct Tallies {
    listed: BTreeMap<(String, ContactOutcome), Tally>,
    /// What was refused since it is not on the list.
    strangers: BTreeMap<String, Tally>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    connections: u32,
    sent_bytes: u64,
    received_bytes: u64,
}

impl Contacts {
    /// One more connection to a host of the list that was made, or not.
    pub fn note(&self, listed: &HostPort, outcome: ContactOutcome) {
        self.add(listed, outcome, Tally { connections: 1, ..Tally::default() });
    }

    /// What a connection to a host of the list carried since it was last said.
    pub fn carried(&self, listed: &HostPort, sent_bytes: u64, received_bytes: u64) {
        self.add(listed, ContactOutcome::Reached, Tally { connections: 0, sent_bytes, received_bytes });
    }

    /// One more that was refused since it is not on the list; no host: what was asked for is none.
    pub fn refuse_stranger(&self, host: Option<&HostPort>) {
        let mut name = host.map_or_else(|| INVALID.to_owned(), HostPort::to_string);
        let strangers = &mut self.0.lock().strangers;
        // Room is left for what stands for the others.
        if !strangers.contains_key(&name) && strangers.len() >= STRANGERS_MAX - 1 {
            name = Contact::OTHERS.to_owned();
        }
        strangers.entry(name).or_default().add(Tally { connections: 1, ..Tally::default() });
    }

    fn add(&self, listed: &HostPort, outcome: ContactOutcome, more: Tally) {
        self.0.lock().listed.entry((listed.to_string(), outcome)).or_default().add(more);
    }

    /// Whether there is nothing to be told.
    pub fn is_empty(&self) -> bool {
        let tallies = self.0.lock();
        tallies.listed.is_empty() && tallies.strangers.is_empty()
    }

    /// All of them, once.
    pub fn take(&self) -> Vec<Contact> {
        let Tallies { listed, strangers } = std::mem::take(&mut *self.0.lock());
        let strangers = strangers.into_iter().map(|(host, tally)| ((host, ContactOutcome::Refused), tally));
        let contact = |((host, outcome), tally): Told| {
            let Tally { connections, sent_bytes, received_bytes } = tally;
            Contact { host, outcome, connections, sent_bytes, received_bytes }
        };
        bounded(listed.into_iter().chain(strangers).collect()).into_iter().map(contact).collect()
    }
}

/// What is told of one host with one outcome.
type Told = ((String, ContactOutcome), Tally);

/// No more than the coordinator takes: lists that change give more names than one list has, and the last are counted together.
fn bounded(mut told: Vec<Told>) -> Vec<Told> {
    if told.len() <= CONTACTS_MAX {
        return told;
    }
    // Each outcome may need an entry that stands for the others.
    for ((_, outcome), tally) in told.split_off(CONTACTS_MAX - ContactOutcome::NAMES.len()) {
        let others = (Contact::OTHERS.to_owned(), outcome);
        match told.iter_mut().find(|(known, _)| *known == others) {
            Some((_, sum)) => sum.add(tally),
            None => told.push((others, tally)),
        }
    }
    told
}

impl Tally {
    const fn add(&mut self, more: Self) {
        self.connections = self.connections.saturating_add(more.connections);
        self.sent_bytes = self.sent_bytes.saturating_add(more.sent_bytes);
        self.received_bytes = self.received_bytes.saturating_add(more.received_bytes);
    }
}

#[cfg(test)]
mod tests {
    use codegen_types::egress::SESSION_HOSTS_MAX;

    use super::*;

    #[test]
    fn contacts_are_told_once_and_are_bounded_whatever_is_asked_for() {
        let contacts = Contacts::default();
        let host = |n: usize| HostPort::new(&format!("h{n}.example"), 443).unwrap();
        contacts.note(&host(0), ContactOutcome::Reached);
        contacts.carried(&host(0), 3, 4);
        contacts.refuse_stranger(None);
        let told = contacts.take();
        assert_eq!((told[0].host.as_str(), told[0].sent_bytes, told[0].received_bytes), ("h0.example:443", 3, 4));
        assert_eq!((told[1].host.as_str(), told[1].outcome), (INVALID, ContactOutcome::Refused));
        assert!(contacts.take().is_empty());
        for n in 0..10_000 {
            contacts.refuse_stranger(Some(&host(n)));
        }
        contacts.refuse_stranger(None);
        let told = contacts.take();
        assert_eq!(told.len(), STRANGERS_MAX);
        assert_eq!(told.iter().map(|contact| contact.connections).sum::<u32>(), 10_001, "none is lost");
    }

    #[test]
    fn beyond_the_bound_refusals_and_connections_are_counted_together_and_none_is_lost() {
        let contacts = Contacts::default();
        let host = |name: &str, n: usize| HostPort::new(&format!("{name}{n}.example"), 443).unwrap();
        let lists = CONTACTS_MAX;
        for n in 0..lists {
            contacts.note(&host("listed", n), ContactOutcome::Reached);
            contacts.carried(&host("listed", n), 1, 2);
            contacts.refuse_stranger(Some(&host("stranger", n)));
        }
        let told = contacts.take();
        assert!(told.len() <= CONTACTS_MAX, "{}", told.len());
        let sum = |outcome: ContactOutcome, of: fn(&Contact) -> u64| -> u64 {
            told.iter().filter(|contact| contact.outcome == outcome).map(of).sum()
        };
        for outcome in [ContactOutcome::Reached, ContactOutcome::Refused] {
            assert_eq!(sum(outcome, |contact| contact.connections.into()), lists as u64, "{outcome:?}");
            let others = told.iter().filter(|contact| contact.host == Contact::OTHERS && contact.outcome == outcome);
            assert_eq!(others.count(), 1, "{outcome:?}");
        }
        let carried =
            (sum(ContactOutcome::Reached, |c| c.sent_bytes), sum(ContactOutcome::Reached, |c| c.received_bytes));
        assert_eq!(carried, (lists as u64, 2 * lists as u64));
    }

    #[test]
    fn a_flood_of_strangers_hides_no_host_of_the_list() {
        let contacts = Contacts::default();
        let host = |name: &str, n: usize| HostPort::new(&format!("{name}{n}.example"), 443).unwrap();
        for n in 0..1_000 {
            contacts.refuse_stranger(Some(&host("stranger", n)));
        }
        for n in 0..SESSION_HOSTS_MAX {
            for (_, outcome) in ContactOutcome::NAMES {
                contacts.note(&host("listed", n), outcome);
            }
            contacts.carried(&host("listed", n), 1, 2);
        }
        let told = contacts.take();
        assert_eq!(told.len(), CONTACTS_MAX);
        for n in 0..SESSION_HOSTS_MAX {
            let name = host("listed", n).to_string();
            let reached = |contact: &&Contact| contact.host == name && contact.outcome == ContactOutcome::Reached;
            let contact = told.iter().find(reached).expect("its name is told");
            assert_eq!((contact.connections, contact.sent_bytes, contact.received_bytes), (1, 1, 2));
        }
    }
}
