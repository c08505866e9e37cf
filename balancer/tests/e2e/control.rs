//! balancerctl against the live daemon.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use balancer::control::document::{
    BackendState, ChangeDocument, ConnectionState, ConnectionsDocument, FlushDocument,
};
use balancer_lab::{TcpEcho, eventually};

use crate::schedule::{backend, nth};
use crate::site::{PATIENCE, SOON, Shape, Site, greeting};

const TO: ([u8; 4], u16) = ([192, 0, 2, 10], 7);

fn site(name: &str) -> Option<(Site, Vec<TcpEcho>)> {
    let mut site = Site::new(name, Shape::Links, 2)?;
    let echo = site.tcp_echo();
    site.start(&nth(
        "192.0.2.10:7",
        &[backend("10.0.1.3:7"), backend("10.0.2.3:7")],
    ));
    Some((site, echo))
}

#[test]
fn a_drained_backend_keeps_what_it_has_and_gets_nothing_new() {
    let Some((site, _echo)) = site("drain") else {
        return;
    };
    let held = [0; 2].map(|_| site.client.connect(TO.into(), None, SOON).unwrap());
    let changed = site
        .document::<ChangeDocument>(&["drain", "web", "10.0.1.3:7"])
        .changed;
    assert_eq!(
        (changed.state, changed.connections_active),
        (BackendState::Drained, 1)
    );
    for _ in 0..4 {
        assert_eq!(greeting(&site.client, TO.into(), None).0, "b2");
    }
    // A reload does not take it back.
    site.reload(&nth(
        "192.0.2.10:7",
        &[backend("10.0.2.3:7"), backend("10.0.1.3:7")],
    ));
    assert_eq!(greeting(&site.client, TO.into(), None).0, "b2");
    // Waiting ends when the connection does.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| site.ctl(&["drain", "web", "10.0.1.3:7", "--wait"]));
        thread::sleep(Duration::from_millis(300));
        assert!(!waiting.is_finished());
        drop(held);
        waiting.join().unwrap().unwrap();
    });
    site.ctl(&["undrain", "web", "10.0.1.3:7"]).unwrap();
    let mut who = [0; 2].map(|_| greeting(&site.client, TO.into(), None).0);
    who.sort();
    assert_eq!(who, ["b1", "b2"]);

    let changed = site
        .document::<ChangeDocument>(&["weight", "web", "10.0.1.3:7", "3"])
        .changed;
    assert_eq!(changed.weight, 3);
    let who = [0; 8].map(|_| greeting(&site.client, TO.into(), None).0);
    assert_eq!(
        who.iter().filter(|name| *name == "b1").count(),
        6,
        "{who:?}"
    );
    let error = site.ctl(&["drain", "web", "10.0.1.4:7"]).unwrap_err();
    assert!(
        error.contains("has no backend \"10.0.1.4:7\" (backends: "),
        "{error}"
    );
}

#[test]
fn connections_are_listed_as_they_are_and_flushed() {
    let Some((site, _echo)) = site("connections") else {
        return;
    };
    let stream = site.client.connect(TO.into(), Some(5000), SOON).unwrap();
    let list = site.connections();
    assert_eq!((list.total, list.truncated), (1, false));
    let connection = &list.connections[0];
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    assert_eq!(
        (connection.service.as_str(), connection.protocol.as_str()),
        ("web", "tcp")
    );
    assert_eq!(connection.client, address("192.0.2.1:5000"));
    assert_eq!(connection.virtual_address, address("192.0.2.10:7"));
    let number = if connection.backend == "10.0.1.3:7" {
        1
    } else {
        2
    };
    assert_eq!(connection.source, address(&format!("10.0.{number}.1:5000")));
    assert_eq!(
        connection.destination,
        address(&format!("10.0.{number}.3:7"))
    );
    assert_eq!(connection.state, ConnectionState::Established);
    // SYN and ACK; SYN-ACK and the greeting, at least.
    assert!(connection.forward.packets >= 2 && connection.reply.packets >= 1);
    let text = site.ctl(&["connections", "--service", "web"]).unwrap();
    assert!(text.contains("192.0.2.1:5000"), "{text}");
    assert!(
        site.ctl(&["connections", "--service", "wbe"])
            .unwrap_err()
            .contains("no service \"wbe\"")
    );

    let flushed: FlushDocument = site.document(&["flush", "connections", "--service", "web"]);
    assert_eq!(flushed.flushed, 1);
    assert_eq!(site.connections().total, 0);
    assert_eq!(site.status().connections.current, 0);
    drop(stream);
    // Its FIN is no new connection.
    eventually("the FIN to be refused", PATIENCE, || {
        site.drops().drops["no_connection"] > 0
    })
    .unwrap();
    greeting(&site.client, TO.into(), None);
}

#[test]
fn every_command_answers_as_text_and_as_json() {
    let Some((site, _echo)) = site("commands") else {
        return;
    };
    let _held = site.client.connect(TO.into(), Some(5000), SOON).unwrap();
    // One with nothing on it, so that waiting ends.
    let backend = match site.connections().connections[0].backend.as_str() {
        "10.0.1.3:7" => "10.0.2.3:7",
        _ => "10.0.1.3:7",
    };
    // The command, what its text tells, and what its document has beside the version.
    let commands: [(&[&str], &str, &str); 11] = [
        (&["status"], "eth1 (native, index ", "status"),
        (&["services"], "192.0.2.10:7", "services"),
        (&["connections"], "192.0.2.1:5000", "connections"),
        (&["drops"], "REASON", "drops"),
        (&["drain", "web", backend], ": drained", "changed"),
        (&["drain", "web", backend, "--wait"], ": drained", "changed"),
        (&["undrain", "web", backend], ": up", "changed"),
        (&["weight", "web", backend, "3"], "weight 3", "changed"),
        (&["reload", "--dry-run"], "would change nothing", "reload"),
        (&["reload"], ": no changes", "reload"),
        (&["flush", "connections"], "1 connections", "flushed"),
    ];
    for (command, told, key) in commands {
        let text = site.ctl(command).unwrap();
        assert!(text.contains(told), "{command:?}: {text}");
        let document: serde_json::Value = site.document(command);
        assert_eq!(document["version"], 1, "{command:?}: {document}");
        assert!(!document[key].is_null(), "{command:?}: {document}");
    }
}

#[test]
fn connections_are_chosen_and_cut() {
    let Some((site, _echo)) = site("chosen") else {
        return;
    };
    let _held = [0; 4].map(|_| site.client.connect(TO.into(), None, SOON).unwrap());
    let list = |arguments: &[&str]| -> ConnectionsDocument {
        site.document(&[&["connections"], arguments].concat())
    };
    let on_one = list(&["--backend", "10.0.1.3:7"]);
    assert_eq!((on_one.total, on_one.truncated), (2, false));
    for connection in on_one.connections {
        assert_eq!(connection.backend, "10.0.1.3:7");
    }
    let cut = list(&["--service", "web", "--limit", "3"]);
    assert_eq!(
        (cut.total, cut.connections.len(), cut.truncated),
        (4, 3, true)
    );
}

#[test]
fn waiting_for_a_drain_is_bounded() {
    let Some((site, _echo)) = site("drain-wait") else {
        return;
    };
    let held = [0; 2].map(|_| site.client.connect(TO.into(), None, SOON).unwrap());
    let drain = ["drain", "web", "10.0.1.3:7", "--wait", "--timeout"];
    let error = site.ctl(&[&drain[..], &["1s"]].concat()).unwrap_err();
    assert!(
        error.contains("is drained, but 1 connections have not ended in time"),
        "{error}"
    );
    drop(held);
    let changed = site
        .document::<ChangeDocument>(&[&drain[..], &["20s"]].concat())
        .changed;
    assert_eq!(
        (changed.state, changed.connections_active),
        (BackendState::Drained, 0)
    );
}
