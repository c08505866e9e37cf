//! What operators changed at run time: drained backends and other weights. Kept across reloads as long as the
//! configuration has the backend, lost when the daemon ends.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::config::{Backend, Config, Service, Share};

/// A backend of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    service: String,
    address: IpAddr,
    port: Option<u16>,
}

fn key(service: &Service, backend: &Backend) -> Key {
    Key {
        service: service.name.clone(),
        address: backend.address,
        port: backend.port,
    }
}

/// The changes in effect.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    drained: HashSet<Key>,
    weights: HashMap<Key, u16>,
}

impl Overrides {
    /// Drains a backend, or takes that back.
    pub fn drain(&mut self, service: &Service, backend: &Backend, drained: bool) {
        let key = key(service, backend);
        if drained {
            self.drained.insert(key);
        } else {
            self.drained.remove(&key);
        }
    }

    /// Whether a backend is drained.
    #[must_use]
    pub fn is_drained(&self, service: &Service, backend: &Backend) -> bool {
        self.drained.contains(&key(service, backend))
    }

    /// Gives a backend another weight than the configuration does.
    pub fn set_weight(&mut self, service: &Service, backend: &Backend, weight: u16) {
        self.weights.insert(key(service, backend), weight);
    }

    /// The share of a backend that is not drained.
    #[must_use]
    pub fn share(&self, service: &Service, backend: &Backend) -> Share {
        match self.weights.get(&key(service, backend)) {
            Some(&weight) if matches!(backend.share, Share::Weight(_)) => Share::Weight(weight),
            _ => backend.share,
        }
    }

    /// Forgets the changes to backends that a configuration does not have, and the weights that it sets anew.
    pub fn keep(&mut self, old: &Config, new: &Config) {
        let shares = |config: &Config| -> HashMap<Key, Share> {
            let backends = config.services.iter().flat_map(|service| {
                service
                    .backends
                    .iter()
                    .map(move |backend| (key(service, backend), backend.share))
            });
            backends.collect()
        };
        let (before, after) = (shares(old), shares(new));
        self.drained.retain(|key| after.contains_key(key));
        self.weights
            .retain(|key, _| after.contains_key(key) && before.get(key) == after.get(key));
    }

    /// A service with the shares in effect. A backend that `is_resolved` denies, by its index, gets none as long as
    /// there are others: a packet to it could not leave.
    #[must_use]
    pub fn apply(&self, service: &Service, is_resolved: impl Fn(usize) -> bool) -> Service {
        let mut service = service.clone();
        let takes = |share: Share| share != Share::Weight(0) && share != Share::Probability(0.0);
        let mut shares: Vec<Share> = service
            .backends
            .iter()
            .map(|backend| {
                if self.is_drained(&service, backend) {
                    none(backend.share)
                } else {
                    self.share(&service, backend)
                }
            })
            .collect();
        let any_resolved = shares
            .iter()
            .enumerate()
            .any(|(index, share)| takes(*share) && is_resolved(index));
        if any_resolved {
            for (index, share) in shares.iter_mut().enumerate() {
                if !is_resolved(index) {
                    *share = none(*share);
                }
            }
        }
        for (backend, share) in service.backends.iter_mut().zip(shares) {
            backend.share = share;
        }
        service
    }
}

/// No share, of the same kind.
fn none(share: Share) -> Share {
    match share {
        Share::Weight(_) => Share::Weight(0),
        Share::Probability(_) => Share::Probability(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn config(backends: &str) -> Config {
        let text = format!(
            "[datapath]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\nlisten = \"192.0.2.1:80\"\n\
             backend = [{backends}]\n"
        );
        config::parse("test.toml", &text).unwrap()
    }

    fn shares(service: &Service) -> Vec<Share> {
        service
            .backends
            .iter()
            .map(|backend| backend.share)
            .collect()
    }

    const TWO: &str = "{ address = \"10.0.0.1\", weight = 3 }, { address = \"10.0.0.2\" }";

    #[test]
    fn a_drained_backend_gets_nothing_and_its_weight_back_afterwards() {
        let config = config(TWO);
        let service = &config.services[0];
        let mut overrides = Overrides::default();
        overrides.drain(service, &service.backends[0], true);
        let applied = overrides.apply(service, |_| true);
        assert_eq!(shares(&applied), [Share::Weight(0), Share::Weight(1)]);
        overrides.drain(service, &service.backends[0], false);
        assert_eq!(overrides.apply(service, |_| true), *service);
    }

    #[test]
    fn an_unresolved_backend_gets_nothing_while_there_are_others() {
        let config = config(TWO);
        let service = &config.services[0];
        let mut overrides = Overrides::default();
        let applied = overrides.apply(service, |index| index == 1);
        assert_eq!(shares(&applied), [Share::Weight(0), Share::Weight(1)]);
        assert_eq!(overrides.apply(service, |_| false), *service);
        // The one that is resolved takes no connections: the other keeps its share, and gets them when it is there.
        overrides.drain(service, &service.backends[1], true);
        let applied = overrides.apply(service, |index| index == 1);
        assert_eq!(shares(&applied), [Share::Weight(3), Share::Weight(0)]);
    }

    #[test]
    fn a_reload_keeps_changes_to_what_it_does_not_change() {
        let old = config(TWO);
        let service = &old.services[0];
        let mut overrides = Overrides::default();
        for backend in &service.backends {
            overrides.set_weight(service, backend, 7);
            overrides.drain(service, backend, true);
        }
        let new = config(
            "{ address = \"10.0.0.3\" }, { address = \"10.0.0.1\", weight = 4 }, { address = \"10.0.0.2\" }",
        );
        overrides.keep(&old, &new);
        let service = &new.services[0];
        let of = |index: usize| {
            let backend = &service.backends[index];
            (
                overrides.is_drained(service, backend),
                overrides.share(service, backend),
            )
        };
        assert_eq!(of(0), (false, Share::Weight(1)));
        assert_eq!(
            of(1),
            (true, Share::Weight(4)),
            "the file's new weight counts"
        );
        assert_eq!(of(2), (true, Share::Weight(7)));
        overrides.keep(&new, &config("{ address = \"10.0.0.3\" }"));
        overrides.keep(&config("{ address = \"10.0.0.3\" }"), &new);
        assert!(!overrides.is_drained(service, &service.backends[2]));
    }
}
