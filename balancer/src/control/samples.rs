//! One document of each kind, for the tests of what is written and of what is shown.

use std::collections::BTreeMap;

use super::document::{
    Backend, BackendState, Change, ChangeDocument, Connection, ConnectionCounts, ConnectionState,
    ConnectionsDocument, DropsDocument, Engine, FrameCounts, Interface, PacketCounts, Refused,
    Reload, ReloadDocument, ReloadResult, ReloadStatus, Service, ServicesDocument, SlowPathCounts,
    Status, StatusDocument, Table, Traffic, Version, WithoutSockets, Worker, Workers, XdpMode,
};

fn counters(list: &[(&str, u64)]) -> BTreeMap<String, u64> {
    list.iter()
        .map(|&(name, count)| (name.to_owned(), count))
        .collect()
}

pub fn status() -> StatusDocument {
    let interface = |name: &str, index, mode| Interface {
        name: name.into(),
        index,
        mode,
        without_sockets: (mode == XdpMode::Generic).then(|| WithoutSockets {
            first_queue: 1,
            error: "Device or resource busy (os error 16)".into(),
        }),
    };
    let worker = |number: u64, answers| Worker {
        name: format!("worker-{number}"),
        cpu: Some(number + 2),
        answers,
        queues: if answers {
            vec![format!("eth0:{number}"), format!("eth1:{number}")]
        } else {
            Vec::new()
        },
        received: if answers { 1009 } else { 0 },
        frames: if answers {
            FrameCounts {
                total: 8192,
                free: 4090,
                receiving: 4096,
                sending: 4,
                missing: 2,
            }
        } else {
            FrameCounts::default()
        },
    };
    let table = |name: &str, used, max| Table {
        name: name.into(),
        used,
        max,
    };
    StatusDocument {
        version: Version,
        status: Status {
            engine: Engine::Userspace,
            version: "0.1.0".into(),
            pid: 4711,
            config: "/etc/balancerd/lb.toml".into(),
            interfaces: vec![
                interface("eth0", 2, XdpMode::Native),
                interface("eth1", 13, XdpMode::Generic),
            ],
            uptime_seconds: 93_784,
            generation: 7,
            reload: ReloadStatus {
                at: "2026-11-30T12:21:36Z".into(),
                result: ReloadResult::Error,
                error: Some("lb.toml:3:1: unknown key `listne`\ndid you mean `listen`?".into()),
                succeeded: 6,
                failed: 1,
            },
            connections: ConnectionCounts {
                current: 131_072,
                max: 262_144,
                half_open: 12,
                half_open_max: 65_536,
            },
            packets: PacketCounts {
                received: 1009,
                forwarded: 900,
                passed: 90,
                dropped: 10,
                held: 9,
            },
            tables: vec![
                table("connections", 131_072, 262_144),
                table("fragments", 0, 4096),
                table("neighbours", 3, 1024),
            ],
            pressure: counters(&[("ports_exhausted", 0), ("table_full", 5)]),
            slow_path: SlowPathCounts {
                dropped: counters(&[("no_backend", 4), ("ttl_exceeded", 3)]),
                told: 5,
                limited: 1,
                untold: 1,
                unsent: 0,
                held: counters(&[("fragment", 9)]),
                resumed: 6,
                expired: 1,
                overflowed: 1,
                failed: 0,
            },
            workers: Workers {
                threads: vec![worker(0, true), worker(1, false)],
                begun_again: 3,
            },
        },
    }
}

pub fn services() -> ServicesDocument {
    let backend = |address: &str, state, weight| Backend {
        address: address.into(),
        state,
        weight,
        probability: None,
        connections_active: 3,
        connections_total: 120,
        forward: Traffic {
            packets: 900,
            bytes: 81_000,
        },
        reply: Traffic {
            packets: 870,
            bytes: 640_000,
        },
    };
    ServicesDocument {
        version: Version,
        services: vec![
            Service {
                name: "web".into(),
                protocol: "tcp".into(),
                listen: "192.0.2.10:443".into(),
                scheduler: "nth".into(),
                source_nat: "masquerade".into(),
                backends: vec![
                    backend("10.0.0.3:8443", BackendState::Up, 1),
                    backend("10.0.0.4:8443", BackendState::Drained, 65_535),
                    backend("10.0.0.5:8443", BackendState::Unresolved, 10),
                    backend("10.0.0.6:8443", BackendState::Removed, 0),
                ],
                refused: Refused {
                    limit: 3,
                    table_full: 1,
                    ..Refused::default()
                },
            },
            Service {
                name: "dns".into(),
                protocol: "udp".into(),
                listen: "[2001:db8::10]:53".into(),
                scheduler: "random".into(),
                source_nat: "none".into(),
                backends: Vec::new(),
                refused: Refused::default(),
            },
        ],
    }
}

pub fn connections() -> ConnectionsDocument {
    ConnectionsDocument {
        version: Version,
        connections: vec![
            Connection {
                service: "web".into(),
                backend: "10.0.0.3:8443".into(),
                protocol: "tcp".into(),
                client: "198.51.100.7:50123".parse().unwrap(),
                virtual_address: "192.0.2.10:443".parse().unwrap(),
                source: "10.0.0.1:1024".parse().unwrap(),
                destination: "10.0.0.3:8443".parse().unwrap(),
                state: ConnectionState::Established,
                age_seconds: 7453,
                idle_seconds: 0,
                forward: Traffic {
                    packets: 12,
                    bytes: 1234,
                },
                reply: Traffic {
                    packets: 9,
                    bytes: 5_000_000,
                },
            },
            Connection {
                service: "dns".into(),
                backend: "[2001:db8:1::5]:53".into(),
                protocol: "udp".into(),
                client: "[2001:db8::7]:5353".parse().unwrap(),
                virtual_address: "[2001:db8::10]:53".parse().unwrap(),
                source: "[2001:db8::7]:5353".parse().unwrap(),
                destination: "[2001:db8:1::5]:53".parse().unwrap(),
                state: ConnectionState::OneWay,
                age_seconds: 2,
                idle_seconds: 2,
                forward: Traffic {
                    packets: 1,
                    bytes: 60,
                },
                reply: Traffic::default(),
            },
        ],
        truncated: true,
        total: 4096,
    }
}

pub fn drops() -> DropsDocument {
    let drops = counters(&[
        ("bad_checksum", 3),
        ("land", 0),
        ("ttl_exceeded", 1_000_000),
    ]);
    DropsDocument {
        version: Version,
        drops,
    }
}

pub fn reload_applied() -> ReloadDocument {
    let changes = vec![
        "web: backend 10.0.0.4:8443 added".into(),
        "dns: removed".into(),
    ];
    let reload = Reload {
        applied: true,
        generation: 8,
        changes,
        errors: Vec::new(),
    };
    ReloadDocument {
        version: Version,
        reload,
    }
}

pub fn reload_refused() -> ReloadDocument {
    let errors = vec![
        "lb.toml:3:1: unknown key `listne`\ndid you mean `listen`?".into(),
        "lb.toml:9:11: weight 70000 is out of range".into(),
    ];
    let reload = Reload {
        applied: false,
        generation: 7,
        changes: Vec::new(),
        errors,
    };
    ReloadDocument {
        version: Version,
        reload,
    }
}

pub fn change() -> ChangeDocument {
    ChangeDocument {
        version: Version,
        changed: Change {
            service: "web".into(),
            backend: "10.0.0.3:8443".into(),
            weight: 1,
            state: BackendState::Drained,
            connections_active: 3,
        },
    }
}
