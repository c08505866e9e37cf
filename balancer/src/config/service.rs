//! Services and their backends, and the rules among them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;

use super::catalog as key;
use super::conflict;
use super::cursor::{Cursor, Found};
use super::error::Errors;
use super::model::{Backend, Listen, Protocol, Scheduler, Service, Share, SourceNat};

/// By how much the sum of a service's probabilities may differ from 1: the documented 0.000001, and room for rounding,
/// so that three times 0.333333 is within it.
const TOLERANCE: f64 = 1e-6 + 1e-12;

/// A service as far as it could be read.
pub(super) struct Draft<'a> {
    pub(super) cursor: Cursor<'a>,
    pub(super) name: Option<Found<String>>,
    pub(super) listen: Option<Found<Listen>>,
    pub(super) protocol: Option<Found<Protocol>>,
    pub(super) interface: Option<Found<String>>,
    scheduler: Option<Found<Scheduler>>,
    source_nat: Option<Found<SourceNat>>,
    pub(super) backends: Vec<BackendDraft>,
}

pub(super) struct BackendDraft {
    pub(super) header: Range<usize>,
    address: Option<Found<(IpAddr, Option<u16>)>>,
    /// Present unless only a probability is given.
    weight: Option<Found<u16>>,
    weight_given: Option<Range<usize>>,
    probability: Option<Found<f64>>,
    probability_given: Option<Range<usize>>,
}

/// Reads the services. `interfaces` are those of the datapath, if they are known.
pub(super) fn services(
    cursors: &[Cursor<'_>],
    interfaces: Option<&[String]>,
    errors: &mut Errors,
) -> Option<Vec<Service>> {
    let drafts: Vec<_> = cursors
        .iter()
        .map(|cursor| Draft::read(cursor, errors))
        .collect();
    for draft in &drafts {
        draft.check_interface(interfaces, errors);
        draft.check_families(errors);
        draft.check_shares(errors);
        draft.check_backends(errors);
    }
    conflict::check(&drafts, errors);
    drafts.into_iter().map(Draft::finish).collect()
}

impl<'a> Draft<'a> {
    fn read(cursor: &Cursor<'a>, errors: &mut Errors) -> Self {
        let name = cursor.get(&key::NAME, errors);
        let listen = cursor.get(&key::LISTEN, errors);
        let protocol = cursor.get(&key::PROTOCOL, errors);
        let interface = cursor.get(&key::INTERFACE, errors);
        let scheduler = cursor.get(&key::SCHEDULER, errors);
        let source_nat = cursor.get(&key::SOURCE_NAT, errors);
        let backends = cursor.sections(&key::BACKENDS, errors);
        if backends.as_ref().is_some_and(Vec::is_empty) {
            errors
                .add(&cursor.span, "this service has no backend")
                .help("add [[service.backend]] with an `address` below it; to refuse new connections use `weight = 0`");
        }
        let backends = backends.unwrap_or_default();
        let backends = backends
            .iter()
            .map(|cursor| BackendDraft::read(cursor, errors))
            .collect();
        Self {
            cursor: cursor.clone(),
            name,
            listen,
            protocol,
            interface,
            scheduler,
            source_nat,
            backends,
        }
    }

    pub(super) fn title(&self) -> String {
        self.name.as_ref().map_or_else(
            || "the service".to_owned(),
            |name| format!("service `{}`", name.value),
        )
    }

    /// The backends' port where they do not name one.
    fn default_port(&self) -> Option<u16> {
        self.listen
            .as_ref()
            .and_then(|listen| listen.value.ports.single())
    }

    fn check_interface(&self, interfaces: Option<&[String]>, errors: &mut Errors) {
        let (Some(interface), Some(known)) = (&self.interface, interfaces) else {
            return;
        };
        if !known.contains(&interface.value) {
            let help = format!("add it there, or use one of: {}", known.join(", "));
            errors
                .add(
                    &interface.span,
                    format!(
                        "interface `{}` is not one of `interfaces` in [datapath]",
                        interface.value
                    ),
                )
                .help(help);
        }
    }

    /// The service's address family: an address that has it, and where it stands.
    pub(super) fn family(&self) -> Option<(IpAddr, Range<usize>)> {
        let listen = self.listen.as_ref()?;
        match listen.value.address {
            Some(address) => Some((address, listen.span.clone())),
            None => self
                .backends
                .iter()
                .find_map(|b| b.address.as_ref())
                .map(|a| (a.value.0, a.span.clone())),
        }
    }

    fn check_families(&self, errors: &mut Errors) {
        let Some((family, place)) = self.family() else {
            return;
        };
        let any = self
            .listen
            .as_ref()
            .is_some_and(|listen| listen.value.address.is_none());
        let (wanted, rule) = if any {
            (
                format!("the first backend is {}", version(family)),
                "all backends of a service are IPv4, or all are IPv6",
            )
        } else {
            (
                format!("{} listens on {}", self.title(), version(family)),
                "a service does not translate between IPv4 and IPv6",
            )
        };
        for found in self
            .backends
            .iter()
            .filter_map(|backend| backend.address.as_ref())
        {
            let address = found.value.0;
            if address.is_ipv4() != family.is_ipv4() {
                errors
                    .add(
                        &found.span,
                        format!("backend {address} is {}, but {wanted}", version(address)),
                    )
                    .also(&place, version(family))
                    .help(format!("{rule}: make two services"));
            }
        }
        if let Some(Found {
            value: SourceNat::Address(address),
            span,
        }) = &self.source_nat
            && address.is_ipv4() != family.is_ipv4()
        {
            let (has, wants) = (version(*address), version(family));
            errors
                .add(
                    span,
                    format!(
                        "`source_nat` is {has}, but the packets of {} are {wants}",
                        self.title()
                    ),
                )
                .also(&place, wants)
                .help(format!(
                    "write an {wants} address of the box, or \"masquerade\""
                ));
        }
    }

    fn check_shares(&self, errors: &mut Errors) {
        let Some(first) = self
            .backends
            .iter()
            .find_map(|backend| backend.probability_given.clone())
        else {
            return;
        };
        match self.scheduler.as_ref().map(|scheduler| scheduler.value) {
            None => return,
            Some(Scheduler::Nth) => {
                for given in self
                    .backends
                    .iter()
                    .filter_map(|backend| backend.probability_given.as_ref())
                {
                    errors
                        .add(given, "`probability` has no meaning with scheduler `nth`")
                        .help("use scheduler = \"random\", or `weight` instead");
                }
                return;
            }
            Some(Scheduler::Random) => {}
        }
        let mut sum = Some(0.0);
        for backend in &self.backends {
            if let Some(given) = &backend.weight_given {
                sum = None;
                errors
                    .add(given, "`weight` and `probability` are mixed in one service")
                    .also(&first, "probability")
                    .help("give every backend a `probability`, or every backend a `weight`");
            } else if backend.probability_given.is_none() {
                sum = None;
                errors
                    .add(
                        &backend.header,
                        "this backend has no `probability`, others of its service have one",
                    )
                    .also(&first, "probability")
                    .help("give every backend a `probability`, or none");
            }
            sum = sum
                .zip(backend.probability.as_ref())
                .map(|(sum, found)| sum + found.value);
        }
        if let Some(sum) = sum
            && (sum - 1.0_f64).abs() > TOLERANCE
        {
            let rounded = (sum * 1e6).round() / 1e6;
            errors
                .add(
                    &first,
                    format!(
                        "the probabilities of {} sum to {rounded}, not to 1",
                        self.title()
                    ),
                )
                .help("change them so that they sum to 1, or use `weight`, which needs no sum");
        }
    }

    /// No backend twice, none that is the service itself.
    fn check_backends(&self, errors: &mut Errors) {
        let mut seen = HashMap::new();
        for found in self
            .backends
            .iter()
            .filter_map(|backend| backend.address.as_ref())
        {
            let (address, own_port) = found.value;
            let port = own_port.or(self.default_port());
            if let Some(listen) = &self.listen
                && listen.value.address == Some(address)
                && port.is_none_or(|port| listen.value.ports.contains(port))
            {
                errors
                    .add(
                        &found.span,
                        format!(
                            "this backend is {} itself: packets would go round in a loop",
                            self.title()
                        ),
                    )
                    .also(&listen.span, "the service listens here")
                    .help(
                        "write the address of a server, or a port the service does not listen on",
                    );
            }
            match seen.get(&(address, port)) {
                Some(first) => {
                    errors
                        .add(
                            &found.span,
                            format!("backend {address} is listed twice in {}", self.title()),
                        )
                        .also(first, "first here")
                        .help("remove one of them; for a larger share raise its `weight`");
                }
                None => {
                    seen.insert((address, port), found.span.clone());
                }
            }
        }
    }

    fn finish(self) -> Option<Service> {
        let default_port = self.default_port();
        let interface_is_bad =
            self.interface.is_none() && self.cursor.given(&key::INTERFACE).is_some();
        if interface_is_bad {
            return None;
        }
        let backends: Option<Vec<_>> = self
            .backends
            .into_iter()
            .map(|backend| backend.finish(default_port))
            .collect();
        Some(Service {
            name: self.name?.value,
            listen: self.listen?.value,
            protocol: self.protocol?.value,
            interface: self.interface.map(|interface| interface.value),
            scheduler: self.scheduler?.value,
            source_nat: self.source_nat?.value,
            backends: backends?,
        })
    }
}

impl BackendDraft {
    fn read(cursor: &Cursor<'_>, errors: &mut Errors) -> Self {
        let weight = cursor.get(&key::WEIGHT, errors);
        Self {
            header: cursor.span.clone(),
            address: cursor.get(&key::ADDRESS, errors),
            // The catalog's limit is that of the type.
            weight: weight.map(|weight| Found {
                value: weight.value as u16,
                span: weight.span,
            }),
            weight_given: cursor.given(&key::WEIGHT),
            probability: cursor.get(&key::PROBABILITY, errors),
            probability_given: cursor.given(&key::PROBABILITY),
        }
    }

    fn finish(self, default_port: Option<u16>) -> Option<Backend> {
        let (address, port) = self.address?.value;
        let share = match self.probability_given {
            Some(_) => Share::Probability(self.probability?.value),
            None => Share::Weight(self.weight?.value),
        };
        Some(Backend {
            address,
            port: port.or(default_port),
            share,
        })
    }
}

fn version(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
