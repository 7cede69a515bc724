//! Which hosts sessions may reach: what an operator permits, and what a session asks for.

use codegen_types::packages::HostPort;
use codegen_types::{HostPattern, Principal, Reach, SessionNetwork};

use crate::policy::{Action, Effect, Policy, Subject};

/// The tool by which sessions are made, under whose name rules about hosts are asked.
const TOOL: &str = "session_create";

/// What an operator permits sessions to reach. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PermittedHosts {
    /// Hosts of the public Internet.
    pub public: Vec<HostPattern>,
    /// Hosts whose names may lead to private addresses, too.
    pub private: Vec<HostPort>,
}

/// What a session reaches of what it asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    /// The hosts that it reaches, each with the addresses that it may have.
    pub hosts: Vec<(HostPort, Reach)>,
    /// Those that are permitted no more.
    pub dropped: Vec<HostPort>,
}

/// A session asks for more than is permitted. Written for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the operator does not permit sessions to reach {}; {}", names(.denied), offered(.permitted))]
pub struct NotPermitted {
    /// What was asked for in vain.
    pub denied: Vec<HostPort>,
    /// What is permitted, as the operator wrote it.
    pub permitted: Vec<String>,
}

impl PermittedHosts {
    /// At which addresses a host may be reached; none: not at all.
    pub fn reach(&self, host: &HostPort) -> Option<Reach> {
        if self.private.contains(host) {
            return Some(Reach::Private);
        }
        self.public.iter().any(|pattern| pattern.covers(host)).then_some(Reach::Public)
    }

    /// What of a session's list is in force: the hosts with which its owner could make the session today. An operator may
    /// have become stricter since it was made. What has to be approved by now is reached when the session's making was.
    pub fn of(&self, policy: &Policy, owner: &Principal, network: &SessionNetwork) -> InForce {
        let mut in_force = InForce::default();
        for host in &network.allow {
            let subject = Subject { host: Some(host.name.clone()), ..Subject::default() };
            let action = Action { principal: owner, tool: TOOL, subjects: std::slice::from_ref(&subject) };
            let allowed = match policy.decide(action).effect {
                Effect::Allow => true,
                Effect::RequireApproval => network.approved,
                Effect::Deny => false,
            };
            match self.reach(host).filter(|_| allowed) {
                Some(reach) => in_force.hosts.push((host.clone(), reach)),
                None => in_force.dropped.push(host.clone()),
            }
        }
        in_force
    }

    /// Checks what a new session asks for.
    ///
    /// # Errors
    /// [`NotPermitted`] names every host that is not.
    pub fn check(&self, network: &SessionNetwork) -> Result<(), NotPermitted> {
        let denied: Vec<HostPort> = network.allow.iter().filter(|host| self.reach(host).is_none()).cloned().collect();
        if denied.is_empty() {
            return Ok(());
        }
        let permitted = self.public.iter().map(ToString::to_string).chain(self.private.iter().map(ToString::to_string));
        Err(NotPermitted { denied, permitted: permitted.collect() })
    }
}

fn names(hosts: &[HostPort]) -> String {
    hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn offered(permitted: &[String]) -> String {
    match permitted {
        [] => "they may reach no host (EGRESS_HOSTS)".to_owned(),
        some => format!("permitted are: {}", some.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostPort {
        HostPort::parse(text, 443).unwrap()
    }

    fn network(hosts: &[&str]) -> SessionNetwork {
        SessionNetwork { allow: hosts.iter().map(|text| host(text)).collect(), ..SessionNetwork::default() }
    }

    /// What somebody reaches under no rules.
    fn reached(permitted: &PermittedHosts, network: &SessionNetwork) -> InForce {
        permitted.of(&Policy::default(), &Principal::os_user("ann"), network)
    }

    #[test]
    fn a_session_gets_what_the_operator_permits_and_is_told_what_it_does_not_get() {
        let permitted = PermittedHosts {
            public: ["api.example.com", "*.files.example:8443"].map(|text| text.parse().unwrap()).to_vec(),
            private: vec![host("git.corp:443")],
        };
        let all = network(&["api.example.com", "a.files.example:8443", "git.corp"]);
        assert_eq!(permitted.check(&all), Ok(()));
        let all_reached = reached(&permitted, &all);
        assert!(all_reached.dropped.is_empty());
        assert_eq!(
            all_reached.hosts.iter().map(|(_, reach)| *reach).collect::<Vec<_>>(),
            [Reach::Public, Reach::Public, Reach::Private]
        );
        let refused =
            permitted.check(&network(&["api.example.com", "api.example.com:80", "evil.example"])).unwrap_err();
        let said = refused.to_string();
        assert!(
            said.contains("reach api.example.com:80, evil.example:443; permitted are: api.example.com:443"),
            "{said}"
        );
        assert!(PermittedHosts::default().check(&network(&["a.example"])).is_err());
        assert_eq!(PermittedHosts::default().check(&SessionNetwork::default()), Ok(()));
        let nothing = reached(&PermittedHosts::default(), &all);
        assert_eq!((nothing.hosts.len(), nothing.dropped), (0, all.allow), "what is permitted no more is not reached");
    }

    #[test]
    fn a_rule_that_came_later_takes_a_host_away_and_one_that_asks_spares_what_was_approved() {
        let permitted = PermittedHosts { public: vec!["*.example".parse().unwrap()], private: Vec::new() };
        let policy = Policy::parse(
            "[[rule]]\nname = 'no'\neffect = 'deny'\nhost = 'a.example'\n\
             [[rule]]\nname = 'bob'\neffect = 'deny'\nprincipal = 'os:bob'\nhost = 'c.example'\n\
             [[rule]]\nname = 'ask'\neffect = 'require_approval'\nhost = 'b.example'\n",
        );
        let policy = policy.unwrap();
        let asked = network(&["a.example", "b.example", "c.example"]);
        let names = |owner: &str, network: &SessionNetwork| -> Vec<String> {
            let in_force = permitted.of(&policy, &Principal::os_user(owner), network);
            assert_eq!(in_force.hosts.len() + in_force.dropped.len(), network.allow.len());
            in_force.hosts.into_iter().map(|(host, _)| host.name).collect()
        };
        assert_eq!(names("ann", &asked), ["c.example"]);
        let approved = SessionNetwork { approved: true, ..asked };
        assert_eq!(names("ann", &approved), ["b.example", "c.example"]);
        assert_eq!(names("bob", &approved), ["b.example"]);
    }
}
