//! What services cannot have in common, and how many there can be.

use std::collections::HashMap;

use super::catalog as key;
use super::cursor::Found;
use super::error::Errors;
use super::model::Listen;
use super::service::Draft;

/// How many services a configuration may have.
const MAX_SERVICES: usize = 4096;
/// How many backends all services together may have.
const MAX_BACKENDS: usize = 16_384;
/// On how many ports all services together may listen. Each is an entry of the image, which takes 64 to 256 bytes of it.
const MAX_LISTENERS: usize = 1 << 20;

/// Checks all services against each other.
pub(super) fn check(drafts: &[Draft<'_>], errors: &mut Errors) {
    check_numbers(drafts, errors);
    check_names(drafts, errors);
    check_listens(drafts, errors);
}

fn check_numbers(drafts: &[Draft<'_>], errors: &mut Errors) {
    if let Some(draft) = drafts.get(MAX_SERVICES) {
        errors
            .add(
                &draft.cursor.span,
                format!("this is service number {}", MAX_SERVICES + 1),
            )
            .help(format!(
                "there can be {MAX_SERVICES} services; a range of ports needs only one"
            ));
    }
    if let Some(backend) = drafts
        .iter()
        .flat_map(|draft| &draft.backends)
        .nth(MAX_BACKENDS)
    {
        errors
            .add(
                &backend.header,
                format!("this is backend number {}", MAX_BACKENDS + 1),
            )
            .help(format!(
                "all services together can have {MAX_BACKENDS} backends"
            ));
    }
    let mut listeners = 0;
    for listen in drafts.iter().filter_map(|draft| draft.listen.as_ref()) {
        listeners += listen.value.ports.count();
        if listeners > MAX_LISTENERS {
            errors
                .add(
                    &listen.span,
                    format!("up to here services listen on {listeners} ports"),
                )
                .help(format!(
                    "all services together can listen on {MAX_LISTENERS} ports; one that several listen on counts for each"
                ));
            return;
        }
    }
}

fn check_names(drafts: &[Draft<'_>], errors: &mut Errors) {
    let mut seen = HashMap::new();
    for name in drafts.iter().filter_map(|draft| draft.name.as_ref()) {
        match seen.get(&name.value) {
            Some(first) => {
                errors
                    .add(
                        &name.span,
                        format!("two services are named `{}`", name.value),
                    )
                    .also(first, "first here")
                    .help("give each service a name of its own");
            }
            None => {
                seen.insert(&name.value, name.span.clone());
            }
        }
    }
}

/// No two services may want the same packets: same protocol, interface and address, and a port in common.
fn check_listens(drafts: &[Draft<'_>], errors: &mut Errors) {
    let mut groups: HashMap<_, Vec<(&Found<Listen>, &Draft<'_>)>> = HashMap::new();
    for draft in drafts {
        let (Some(listen), Some(protocol), Some((family, _))) =
            (&draft.listen, &draft.protocol, draft.family())
        else {
            continue;
        };
        if draft.interface.is_none() && draft.cursor.given(&key::INTERFACE).is_some() {
            continue;
        }
        let interface = draft.interface.as_ref().map(|interface| &interface.value);
        let key = (
            listen.value.address,
            family.is_ipv4(),
            protocol.value,
            interface,
        );
        groups.entry(key).or_default().push((listen, draft));
    }
    for mut group in groups.into_values() {
        group.sort_by_key(|(listen, _)| (listen.value.ports.first, listen.span.start));
        let mut services = group.into_iter();
        let Some(mut reaching) = services.next() else {
            continue;
        };
        for next in services {
            if next.0.value.ports.first <= reaching.0.value.ports.last {
                let (first, second) = if next.0.span.start < reaching.0.span.start {
                    (next, reaching)
                } else {
                    (reaching, next)
                };
                errors
                    .add(
                        &second.0.span,
                        format!(
                            "{} is in use twice, by {} and {}",
                            second.0.value,
                            first.1.title(),
                            second.1.title()
                        ),
                    )
                    .also(&first.0.span, "first here")
                    .help("give one of them another address, port or `interface`");
            }
            if next.0.value.ports.last > reaching.0.value.ports.last {
                reaching = next;
            }
        }
    }
}
