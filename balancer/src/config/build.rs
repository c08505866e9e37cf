//! Builds a configuration from a parsed file, and checks what several keys say together.

use toml::de::DeTable;

use super::catalog as key;
use super::cursor::Cursor;
use super::error::Errors;
use super::model::{Config, Daemon, Datapath, Timeouts};
use super::service;

/// The configuration, if no error was found.
pub(super) fn config(document: &DeTable<'_>, file: &str, errors: &mut Errors) -> Option<Config> {
    let root = Cursor::root(document, file, errors);
    let daemon = root
        .section(&key::DAEMON, errors)
        .and_then(|cursor| daemon(&cursor, errors));
    let datapath = root.section(&key::DATAPATH, errors);
    let interfaces = datapath
        .as_ref()
        .and_then(|cursor| cursor.get(&key::INTERFACES, errors));
    let interfaces = interfaces.map(|found| found.value);
    let datapath = datapath.and_then(|cursor| datapath_of(&cursor, interfaces.clone(), errors));
    let timeouts = root
        .section(&key::TIMEOUTS, errors)
        .and_then(|cursor| timeouts(&cursor, errors));
    let services = root.sections(&key::SERVICES, errors);
    let services =
        services.and_then(|cursors| service::services(&cursors, interfaces.as_deref(), errors));
    Some(Config {
        daemon: daemon?,
        datapath: datapath?,
        timeouts: timeouts?,
        services: services?,
    })
}

fn daemon(cursor: &Cursor<'_>, errors: &mut Errors) -> Option<Daemon> {
    let control_socket = cursor.get(&key::CONTROL_SOCKET, errors);
    let pin_path = cursor.get(&key::PIN_PATH, errors);
    let on_exit = cursor.get(&key::ON_EXIT, errors);
    Some(Daemon {
        control_socket: control_socket?.value,
        pin_path: pin_path?.value,
        on_exit: on_exit?.value,
    })
}

fn datapath_of(
    cursor: &Cursor<'_>,
    interfaces: Option<Vec<String>>,
    errors: &mut Errors,
) -> Option<Datapath> {
    let engine = cursor.get(&key::ENGINE, errors);
    let xdp_mode = cursor.get(&key::XDP_MODE, errors);
    let max_connections = cursor.get(&key::MAX_CONNECTIONS, errors);
    let mut max_half_open = cursor.get(&key::MAX_HALF_OPEN, errors);
    let source_ports = cursor.get(&key::SOURCE_PORTS, errors);
    let flow_lookup = cursor.get(&key::FLOW_LOOKUP, errors);
    let worker_cpus = cursor.get(&key::WORKER_CPUS, errors);
    let busy_poll = cursor.get(&key::BUSY_POLL, errors);
    let on_daemon_loss = cursor.get(&key::ON_DAEMON_LOSS, errors);
    if let (Some(all), Some(half_open)) = (&max_connections, &mut max_half_open)
        && half_open.value > all.value
    {
        if cursor.given(&key::MAX_HALF_OPEN).is_some() {
            errors
                .add(
                    &half_open.span,
                    format!(
                        "`max_half_open` is larger than `max_connections`, {}",
                        all.value
                    ),
                )
                .help(format!(
                    "use {} or less, or raise `max_connections`",
                    all.value
                ));
        } else {
            half_open.value = all.value;
        }
    }
    Some(Datapath {
        interfaces: interfaces?,
        engine: engine?.value,
        xdp_mode: xdp_mode?.value,
        max_connections: max_connections?.value,
        max_half_open: max_half_open?.value,
        source_ports: source_ports?.value,
        flow_lookup: flow_lookup?.value,
        worker_cpus: worker_cpus?.value,
        busy_poll: busy_poll?.value,
        on_daemon_loss: on_daemon_loss?.value,
    })
}

fn timeouts(cursor: &Cursor<'_>, errors: &mut Errors) -> Option<Timeouts> {
    let tcp_handshake = cursor.get(&key::TCP_HANDSHAKE, errors);
    let tcp_established = cursor.get(&key::TCP_ESTABLISHED, errors);
    let tcp_closing = cursor.get(&key::TCP_CLOSING, errors);
    let udp = cursor.get(&key::UDP, errors);
    let udp_stream = cursor.get(&key::UDP_STREAM, errors);
    let fragment = cursor.get(&key::FRAGMENT, errors);
    Some(Timeouts {
        tcp_handshake: tcp_handshake?.value,
        tcp_established: tcp_established?.value,
        tcp_closing: tcp_closing?.value,
        udp: udp?.value,
        udp_stream: udp_stream?.value,
        fragment: fragment?.value,
    })
}
