//! Documents as text.

use std::fmt::Write as _;

use super::table::{Column, Style, pairs, table};
use super::units::{bytes, seconds, share};
use crate::control::document::{
    BackendState, Change, ConnectionState, ConnectionsDocument, DropsDocument, Engine, Refused,
    Reload, ReloadResult, ReloadStatus, Service, ServicesDocument, Status, WithoutSockets, Worker,
    Workers, XdpMode,
};

/// `status`
#[must_use]
pub fn status(style: Style, status: &Status) -> String {
    let engine = match status.engine {
        Engine::Kernel => "kernel",
        Engine::Userspace => "userspace",
    };
    let interfaces: Vec<_> = status
        .interfaces
        .iter()
        .map(|interface| {
            let mode = match interface.mode {
                XdpMode::Native => "native",
                XdpMode::Generic => "generic",
            };
            let bare = interface.without_sockets.as_ref().map(|bare| {
                let WithoutSockets { first_queue, error } = bare;
                format!("\n  no AF_XDP socket from receive queue {first_queue} on: {error}")
            });
            let bare = bare.unwrap_or_default();
            let (name, index) = (&interface.name, interface.index);
            format!("{name} ({mode}, index {index}){bare}")
        })
        .collect();
    let connections = &status.connections;
    let packets = &status.packets;
    let mut lines = vec![
        ("engine", engine.into()),
        ("version", status.version.clone()),
        ("process", status.pid.to_string()),
        ("config", status.config.display().to_string()),
        ("interfaces", interfaces.join("\n")),
        ("up", seconds(status.uptime_seconds)),
        ("generation", status.generation.to_string()),
        ("last reload", last_reload(&status.reload)),
        (
            "reloads",
            format!(
                "{} applied, {} refused",
                status.reload.succeeded, status.reload.failed
            ),
        ),
        ("connections", fill(connections.current, connections.max)),
        (
            "half-open",
            fill(connections.half_open, connections.half_open_max),
        ),
        (
            "packets",
            format!(
                "{} received: {} forwarded, {} passed, {} dropped, {} held",
                packets.received, packets.forwarded, packets.passed, packets.dropped, packets.held
            ),
        ),
        (
            "held packets",
            format!(
                "{} went on, {} too late, {} too many",
                status.slow_path.resumed, status.slow_path.expired, status.slow_path.overflowed
            ),
        ),
        (
            "senders told",
            format!(
                "{}, {} not, there being too many",
                status.slow_path.told, status.slow_path.limited
            ),
        ),
    ];
    if status.engine == Engine::Userspace {
        lines.push(("workers", workers(&status.workers)));
    }
    let mut text = pairs(lines);
    let tables = status.tables.iter().map(|entry| {
        vec![
            entry.name.clone(),
            entry.used.to_string(),
            entry.max.to_string(),
            share(entry.used, entry.max),
        ]
    });
    let columns = [
        Column::Left("TABLE"),
        Column::Right("USED"),
        Column::Right("MAX"),
        Column::Right("FILL"),
    ];
    text.push('\n');
    text += &table(style, &columns, tables.collect());
    let pressure = status
        .pressure
        .iter()
        .map(|(name, count)| vec![name.clone(), count.to_string()])
        .collect();
    text.push('\n');
    text += &table(
        style,
        &[Column::Left("PRESSURE"), Column::Right("COUNT")],
        pressure,
    );
    text
}

/// The workers, one a line, and how often one has died.
fn workers(workers: &Workers) -> String {
    let mut text = String::new();
    for Worker {
        name,
        cpu,
        answers,
        queues,
        received,
        frames,
    } in &workers.threads
    {
        let cpu = cpu.map_or_else(String::new, |cpu| format!(" on CPU {cpu}"));
        let state = if *answers {
            format!("{}, {received} received", queues.join(", "))
        } else {
            "does not answer".to_owned()
        };
        let _ = write!(text, "{name}{cpu}: {state}");
        if frames.missing != 0 {
            let _ = write!(text, "; {} frames missing", frames.missing);
        }
        text.push('\n');
    }
    let _ = write!(text, "{} begun again", workers.begun_again);
    text
}

fn last_reload(reload: &ReloadStatus) -> String {
    let result = match reload.result {
        ReloadResult::Ok => "applied",
        ReloadResult::Error => "refused, the old configuration is in effect",
    };
    let mut text = format!("{}: {result}", reload.at);
    if let Some(error) = &reload.error {
        let _ = write!(text, "\n{error}");
    }
    text
}

fn fill(used: u64, max: u64) -> String {
    format!("{used} of {max} ({})", share(used, max))
}

/// `services`: a row a backend, then what the services refused.
#[must_use]
pub fn services(style: Style, document: &ServicesDocument) -> String {
    const COLUMNS: [Column; 14] = [
        Column::Left("SERVICE"),
        Column::Left("PROTOCOL"),
        Column::Left("LISTEN"),
        Column::Left("SCHEDULER"),
        Column::Left("SOURCE-NAT"),
        Column::Left("BACKEND"),
        Column::Left("STATE"),
        Column::Right("WEIGHT"),
        Column::Right("ACTIVE"),
        Column::Right("TOTAL"),
        Column::Right("FWD-PACKETS"),
        Column::Right("FWD-BYTES"),
        Column::Right("REPLY-PACKETS"),
        Column::Right("REPLY-BYTES"),
    ];
    let mut text = table(
        style,
        &COLUMNS,
        document.services.iter().flat_map(service).collect(),
    );
    let refused = document.services.iter().flat_map(|service| {
        reasons(&service.refused)
            .into_iter()
            .filter(|&(_, count)| count > 0)
            .map(|(reason, count)| vec![service.name.clone(), reason.into(), count.to_string()])
    });
    let refused: Vec<_> = refused.collect();
    if !refused.is_empty() {
        text.push('\n');
        let columns = [
            Column::Left("SERVICE"),
            Column::Left("REFUSED"),
            Column::Right("COUNT"),
        ];
        text += &table(style, &columns, refused);
    }
    text
}

fn service(service: &Service) -> Vec<Vec<String>> {
    let head = [
        &service.name,
        &service.protocol,
        &service.listen,
        &service.scheduler,
        &service.source_nat,
    ];
    let row = |tail: [String; 9]| head.into_iter().cloned().chain(tail).collect();
    if service.backends.is_empty() {
        return vec![row(std::array::from_fn(|_| "-".into()))];
    }
    let backends = service.backends.iter().map(|backend| {
        row([
            backend.address.clone(),
            backend_state(backend.state).into(),
            backend.probability.map_or_else(
                || backend.weight.to_string(),
                |probability| probability.to_string(),
            ),
            backend.connections_active.to_string(),
            backend.connections_total.to_string(),
            backend.forward.packets.to_string(),
            bytes(backend.forward.bytes),
            backend.reply.packets.to_string(),
            bytes(backend.reply.bytes),
        ])
    });
    backends.collect()
}

fn reasons(refused: &Refused) -> [(&'static str, u64); 5] {
    let Refused {
        no_backend,
        limit,
        connections,
        ports_exhausted,
        table_full,
    } = *refused;
    [
        ("no_backend", no_backend),
        ("limit", limit),
        ("connections", connections),
        ("ports_exhausted", ports_exhausted),
        ("table_full", table_full),
    ]
}

fn backend_state(state: BackendState) -> &'static str {
    match state {
        BackendState::Up => "up",
        BackendState::Drained => "drained",
        BackendState::Unresolved => "unresolved",
        BackendState::Removed => "removed",
    }
}

/// `connections`: a row a connection, from the client to the backend.
#[must_use]
pub fn connections(style: Style, document: &ConnectionsDocument) -> String {
    const COLUMNS: [Column; 11] = [
        Column::Left("SERVICE"),
        Column::Left("PROTOCOL"),
        Column::Left("STATE"),
        Column::Left("CLIENT"),
        Column::Left("VIRTUAL"),
        Column::Left("SOURCE"),
        Column::Left("BACKEND"),
        Column::Right("AGE"),
        Column::Right("IDLE"),
        Column::Right("FWD-BYTES"),
        Column::Right("REPLY-BYTES"),
    ];
    let rows = document.connections.iter().map(|connection| {
        let state = match connection.state {
            ConnectionState::Handshake => "handshake",
            ConnectionState::Established => "established",
            ConnectionState::Closing => "closing",
            ConnectionState::OneWay => "one-way",
            ConnectionState::Stream => "stream",
        };
        vec![
            connection.service.clone(),
            connection.protocol.clone(),
            state.into(),
            connection.client.to_string(),
            connection.virtual_address.to_string(),
            connection.source.to_string(),
            connection.destination.to_string(),
            seconds(connection.age_seconds),
            seconds(connection.idle_seconds),
            bytes(connection.forward.bytes),
            bytes(connection.reply.bytes),
        ]
    });
    table(style, &COLUMNS, rows.collect())
}

/// What to say beside the table when the limit cut it.
#[must_use]
pub fn truncation(document: &ConnectionsDocument) -> Option<String> {
    document.truncated.then(|| {
        let shown = document.connections.len();
        format!(
            "{shown} of {} connections shown; --limit 0 shows all",
            document.total
        )
    })
}

/// `drops`: the reasons with a packet.
#[must_use]
pub fn drops(style: Style, document: &DropsDocument) -> String {
    let rows = document.drops.iter().filter(|&(_, &packets)| packets > 0);
    let rows = rows.map(|(reason, packets)| vec![reason.clone(), packets.to_string()]);
    table(
        style,
        &[Column::Left("REASON"), Column::Right("PACKETS")],
        rows.collect(),
    )
}

/// `reload`: what changed, or would; the errors are not among it.
#[must_use]
pub fn reload(reload: &Reload) -> String {
    if !reload.errors.is_empty() {
        return String::new();
    }
    let head = match (reload.applied, reload.changes.is_empty()) {
        (true, true) => format!("generation {}: no changes\n", reload.generation),
        (true, false) => format!("generation {}:\n", reload.generation),
        (false, true) => format!("would change nothing (generation {})\n", reload.generation),
        (false, false) => format!("would change (generation {} stays):\n", reload.generation),
    };
    reload
        .changes
        .iter()
        .fold(head, |text, change| text + "  " + change + "\n")
}

/// `drain`, `undrain`, `weight`: the backend as it is now.
#[must_use]
pub fn change(change: &Change) -> String {
    let Change {
        service,
        backend,
        weight,
        state,
        connections_active,
    } = change;
    let state = backend_state(*state);
    let plural = if *connections_active == 1 { "" } else { "s" };
    format!(
        "{service} {backend}: {state}, weight {weight}, {connections_active} connection{plural}\n"
    )
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::control::samples;

    #[test]
    fn status_plain() {
        assert_snapshot!(status(Style::Plain, &samples::status().status));
    }

    #[test]
    fn status_terminal() {
        assert_snapshot!(status(Style::Terminal, &samples::status().status));
    }

    #[test]
    fn services_plain() {
        assert_snapshot!(services(Style::Plain, &samples::services()));
    }

    #[test]
    fn services_terminal() {
        assert_snapshot!(services(Style::Terminal, &samples::services()));
    }

    #[test]
    fn connections_plain() {
        assert_snapshot!(connections(Style::Plain, &samples::connections()));
    }

    #[test]
    fn connections_terminal() {
        assert_snapshot!(connections(Style::Terminal, &samples::connections()));
    }

    #[test]
    fn drops_plain() {
        assert_snapshot!(drops(Style::Plain, &samples::drops()));
    }

    #[test]
    fn drops_terminal() {
        assert_snapshot!(drops(Style::Terminal, &samples::drops()));
    }

    #[test]
    fn reloads() {
        let mut document = samples::reload_applied().reload;
        let mut text = reload(&document);
        document.applied = false;
        text += &reload(&document);
        document.changes.clear();
        text += &reload(&document);
        document.applied = true;
        text += &reload(&document);
        text += &reload(&samples::reload_refused().reload);
        assert_snapshot!(text);
    }

    #[test]
    fn changes() {
        let mut document = samples::change().changed;
        let mut text = change(&document);
        document.connections_active = 1;
        text += &change(&document);
        assert_snapshot!(text);
    }

    #[test]
    fn plain_text_is_ascii_without_spaces_at_line_ends() {
        let text = [
            status(Style::Plain, &samples::status().status),
            services(Style::Plain, &samples::services()),
            connections(Style::Plain, &samples::connections()),
            drops(Style::Plain, &samples::drops()),
        ]
        .concat();
        assert!(text.is_ascii());
        assert!(text.lines().all(|line| line.trim_end() == line));
    }

    #[test]
    fn only_a_list_that_was_cut_says_so() {
        let mut document = samples::connections();
        let note = truncation(&document).unwrap();
        assert_eq!(note, "2 of 4096 connections shown; --limit 0 shows all");
        document.truncated = false;
        assert_eq!(truncation(&document), None);
    }
}
