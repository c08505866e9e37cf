//! Good configurations, the schema and the documentation; and that no file makes the parser panic.

#![expect(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use balancer::config::{
    Backend, Config, ConfigError, ConfigErrors, Daemon, Datapath, Engine, FlowLookup, Listen,
    OnDaemonLoss, OnExit, PortRange, Protocol, Rendering, Scheduler, Service, Share, SourceNat,
    Timeouts, XdpMode, parse, schema,
};
use proptest::prelude::*;
use serde_json::Value;

const REFERENCE: &str = include_str!("../../configs/reference.toml");

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn good(text: &str) -> Config {
    parse("lb.toml", text).unwrap_or_else(|errors| panic!("{}", errors.render(Rendering::Plain)))
}

fn lines(errors: &ConfigErrors) -> String {
    errors.iter().map(|error| error.one_line() + "\n").collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ports(first: u16, last: u16) -> PortRange {
    PortRange { first, last }
}

/// The defaults, written out once more on purpose.
fn defaults(interfaces: &[&str], services: Vec<Service>) -> Config {
    Config {
        daemon: Daemon {
            control_socket: "/run/balancerd/control.sock".into(),
            pin_path: "/sys/fs/bpf/balancerd".into(),
            on_exit: OnExit::Detach,
        },
        datapath: Datapath {
            interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
            engine: Engine::Kernel,
            xdp_mode: XdpMode::Auto,
            max_connections: 262_144,
            max_half_open: 65_536,
            source_ports: ports(1024, 32_767),
            flow_lookup: FlowLookup::Table,
            worker_cpus: Vec::new(),
            busy_poll: false,
            on_daemon_loss: OnDaemonLoss::Pass,
        },
        timeouts: Timeouts {
            tcp_handshake: Duration::from_secs(30),
            tcp_established: Duration::from_mins(124),
            tcp_closing: Duration::from_mins(4),
            udp: Duration::from_secs(30),
            udp_stream: Duration::from_mins(5),
            fragment: Duration::from_secs(2),
        },
        services,
    }
}

fn web(backends: Vec<Backend>) -> Service {
    Service {
        name: "web".to_owned(),
        listen: Listen {
            address: Some(ip("192.0.2.10")),
            ports: ports(443, 443),
        },
        protocol: Protocol::Tcp,
        interface: None,
        scheduler: Scheduler::Nth,
        source_nat: SourceNat::Masquerade,
        backends,
    }
}

fn backend(address: &str, port: Option<u16>, share: Share) -> Backend {
    Backend {
        address: ip(address),
        port,
        share,
    }
}

#[test]
fn defaults_fill_in_what_is_left_out() {
    assert_eq!(
        good("[datapath]\ninterfaces = [\"eth0\"]\n"),
        defaults(&["eth0"], vec![]),
        "no service is allowed"
    );
    let text = r#"
        datapath.interfaces = ["eth0"]
        [[service]]
        name = "web"
        listen = "192.0.2.10:443"
        [[service.backend]]
        address = "10.0.0.3"
    "#;
    assert_eq!(
        good(text),
        defaults(
            &["eth0"],
            vec![web(vec![backend("10.0.0.3", Some(443), Share::Weight(1))])]
        )
    );
}

#[test]
fn the_reference_has_every_supported_key() {
    let web = web(vec![backend("10.0.0.3", Some(8443), Share::Weight(1))]);
    let voice = Service {
        name: "voice".to_owned(),
        listen: Listen {
            address: None,
            ports: ports(5060, 5061),
        },
        protocol: Protocol::Udp,
        interface: Some("eth0".to_owned()),
        scheduler: Scheduler::Random,
        source_nat: SourceNat::Address(ip("192.0.2.10")),
        backends: vec![
            backend("10.0.0.4", None, Share::Probability(0.75)),
            backend("10.0.0.5", None, Share::Probability(0.25)),
        ],
    };
    assert_eq!(
        good(REFERENCE),
        defaults(&["eth0", "eth1"], vec![web, voice])
    );
    for (key, schema) in keys() {
        let name = key.rsplit('.').next().unwrap();
        let later = schema["x-not-supported-yet"] == true;
        assert!(
            later || REFERENCE.contains(name),
            "{key} is missing from configs/reference.toml"
        );
    }
}

#[test]
fn values_at_their_limits_are_allowed() {
    let config = good(
        r#"
        [daemon]
        control_socket = "/s"
        on_exit = "keep"
        [datapath]
        interfaces = ["a", "fifteen-bytes-x"]
        engine = "kernel"
        xdp_mode = "generic"
        max_connections = 1
        source_ports = "1024-65535"
        [timeouts]
        tcp_handshake = "1s"
        tcp_established = "24d"
        [[service]]
        name = "drained_Service.1-x"
        listen = "[2001:db8::10]:1-65535"
        source_nat = "2001:db8::11"
        backend = [{ address = "[2001:db8::3]", weight = 0 }, { address = "[2001:db8::4]:65535", weight = 65535 }]
        [[service]]
        name = "thirds"
        listen = "*:80"
        scheduler = "random"
        source_nat = "none"
        interface = "a"
        backend = [
          { address = "10.0.0.1", probability = 0.333333 },
          { address = "10.0.0.2", probability = 0.333333 },
          { address = "10.0.0.3:81", probability = 0.333333 },
          { address = "10.0.0.3", probability = 0 },
        ]
    "#,
    );
    assert_eq!(
        config.datapath.max_half_open, 1,
        "the default is never above max_connections"
    );
    assert_eq!(config.datapath.source_ports, ports(1024, 65_535));
    assert_eq!(config.timeouts.tcp_handshake, Duration::from_secs(1));
    assert_eq!(
        config.timeouts.tcp_established,
        Duration::from_hours(24 * 24)
    );
    let shown: Vec<_> = config
        .services
        .iter()
        .flat_map(|s| &s.backends)
        .map(|b| format!("{b} {}", b.share))
        .collect();
    assert_eq!(
        shown,
        [
            "[2001:db8::3] weight 0",
            "[2001:db8::4]:65535 weight 65535",
            "10.0.0.1:80 probability 0.333333",
            "10.0.0.2:80 probability 0.333333",
            "10.0.0.3:81 probability 0.333333",
            "10.0.0.3:80 probability 0",
        ]
    );
}

#[test]
fn services_that_differ_may_share_a_port() {
    let service = |name: &str, listen: &str, more: &str, backend: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\nlisten = \"{listen}\"\n{more}\nbackend = [{{ address = \"{backend}\" }}]\n"
        )
    };
    let config = good(
        &[
            "[datapath]\ninterfaces = [\"eth0\", \"eth1\"]\n".to_owned(),
            service("address", "192.0.2.10:80", "", "10.0.0.3"),
            service("other-address", "192.0.2.11:80", "", "10.0.0.3"),
            service("udp", "192.0.2.10:80", "protocol = \"udp\"", "10.0.0.3"),
            service(
                "interface",
                "192.0.2.10:80",
                "interface = \"eth0\"",
                "10.0.0.3",
            ),
            service(
                "other-interface",
                "192.0.2.10:80",
                "interface = \"eth1\"",
                "10.0.0.3",
            ),
            service("next-ports", "192.0.2.10:81-90", "", "10.0.0.3"),
            service("any-ipv4", "*:80", "", "10.0.0.3"),
            service("any-ipv6", "*:80", "", "[2001:db8::3]"),
        ]
        .concat(),
    );
    assert_eq!(config.services.len(), 8);
}

#[test]
fn there_are_limits_to_services_and_backends() {
    let text = |services: usize, backends: usize| {
        let mut text = "[datapath]\ninterfaces = [\"eth0\"]\n".to_owned();
        for service in 0..services {
            write!(
                text,
                "[[service]]\nname = \"s{service}\"\nlisten = \"192.0.2.10:{}\"\nbackend = [",
                service + 1
            )
            .unwrap();
            for backend in 0..backends {
                write!(
                    text,
                    "{{ address = \"10.0.{}.{}\" }},",
                    backend / 256,
                    backend % 256
                )
                .unwrap();
            }
            text.push_str("]\n");
        }
        text
    };
    assert_eq!(good(&text(4096, 4)).services.len(), 4096);
    let errors = parse("lb.toml", &text(4097, 1)).unwrap_err();
    assert_eq!(
        lines(&errors),
        "lb.toml:16387:1: this is service number 4097\n"
    );
    let errors = parse("lb.toml", &text(1, 16_385)).unwrap_err();
    assert!(
        lines(&errors).ends_with(": this is backend number 16385\n"),
        "{}",
        lines(&errors)
    );
}

#[test]
fn there_is_a_limit_to_the_ports_of_all_services() {
    // 16 with all ports have 16 less than the most, and one service more has the rest.
    let text = |services: u16, last: u16| {
        let mut text = "[datapath]\ninterfaces = [\"eth0\"]\n".to_owned();
        for service in 1..=services {
            let last = if service == 17 { last } else { 65_535 };
            write!(
                text,
                "[[service]]\nname = \"s{service}\"\nlisten = \"192.0.2.{service}:1-{last}\"\nbackend = [{{ address = \"10.0.0.3\" }}]\n"
            )
            .unwrap();
        }
        text
    };
    let ports = |config: Config| {
        let services = config.services.iter();
        services.map(|it| it.listen.ports.count()).sum::<usize>()
    };
    assert_eq!(ports(good(&text(17, 16))), 1 << 20);
    let errors = parse("lb.toml", &text(17, 17)).unwrap_err();
    assert_eq!(
        lines(&errors),
        "lb.toml:69:10: up to here services listen on 1048577 ports\n"
    );
    // It is said once, however many there are.
    let errors = parse("lb.toml", &text(255, 65_535)).unwrap_err();
    assert_eq!(
        lines(&errors),
        "lb.toml:69:10: up to here services listen on 1114095 ports\n"
    );
}

#[test]
fn every_example_parses() {
    let mut seen = 0;
    for entry in std::fs::read_dir(root("configs")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("# "),
            "{} does not say what it is for",
            path.display()
        );
        let config = parse(&path.to_string_lossy(), &text);
        assert!(
            config.is_ok_and(|config| !config.services.is_empty()),
            "{}",
            path.display()
        );
        seen += 1;
    }
    assert!(seen >= 9, "{seen} examples");
}

/// Every key and section of the schema, by its full name.
fn keys() -> BTreeMap<String, Value> {
    fn walk(prefix: &str, schema: &Value, out: &mut BTreeMap<String, Value>) {
        let object = if schema["items"].is_object() {
            &schema["items"]
        } else {
            schema
        };
        if let Value::Object(properties) = &object["properties"] {
            for (name, property) in properties {
                let name = format!("{prefix}{name}");
                walk(&format!("{name}."), property, out);
                out.insert(name, property.clone());
            }
        }
    }
    let mut out = BTreeMap::new();
    walk("", &schema(), &mut out);
    out
}

/// Every section and key of the documentation, with the cells of its row.
fn documented() -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(root("docs/configuration.md")).unwrap();
    let mut out = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines() {
        if let Some(header) = line.strip_prefix("## `") {
            header
                .trim_matches(['[', ']', '`'])
                .clone_into(&mut section);
            out.insert(section.clone(), vec![]);
        } else if let Some(row) = line.strip_prefix("| `") {
            let cells: Vec<_> = row.split('|').map(|cell| cell.trim().to_owned()).collect();
            let before = out.insert(format!("{section}.{}", cells[0].trim_matches('`')), cells);
            assert_eq!(before, None, "two rows: {line}");
        }
    }
    out
}

#[test]
fn schema_and_documentation_have_the_same_keys() {
    let (keys, documented) = (keys(), documented());
    assert!(keys.len() > 80, "{}", keys.len());
    assert_eq!(
        keys.keys().collect::<Vec<_>>(),
        documented.keys().collect::<Vec<_>>()
    );
    for (key, schema) in &keys {
        assert!(
            schema["description"]
                .as_str()
                .is_some_and(|text| text.len() > 5),
            "{key} has no description"
        );
        let cells = &documented[key];
        if cells.is_empty() {
            continue;
        }
        let parent = key.rsplit_once('.').unwrap().0;
        let required = |object: &Value| {
            object["required"].as_array().is_some_and(|r| {
                r.iter()
                    .any(|name| key.ends_with(&format!(".{}", name.as_str().unwrap())))
            })
        };
        let parent = if keys[parent]["items"].is_object() {
            &keys[parent]["items"]
        } else {
            &keys[parent]
        };
        let default = match &schema["default"] {
            Value::Null if required(parent) => "required".to_owned(),
            Value::Null => "none".to_owned(),
            value => format!("`{value}`"),
        };
        assert_eq!(cells[2], default, "the default of {key}");
        let later = schema["x-not-supported-yet"] == true;
        assert_eq!(cells[3].ends_with("*Not supported yet.*"), later, "{key}");
        let restart = schema["x-restart"] == true && !later;
        assert_eq!(cells[3].ends_with("*Restart.*"), restart, "{key}");
    }
}

#[test]
fn defaults_of_the_schema_are_those_of_the_parser() {
    // Each default, written out, must leave the configuration as it was.
    let bare = "name = \"web\"\nlisten = \"192.0.2.10:443\"\n";
    let mut sections: BTreeMap<&str, String> = BTreeMap::new();
    let keys = keys();
    for (key, schema) in &keys {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        if schema["x-not-supported-yet"] != true && !schema["default"].is_null() {
            writeln!(
                sections.entry(section).or_default(),
                "{name} = {}",
                schema["default"]
            )
            .unwrap();
        }
    }
    assert_eq!(
        sections.keys().copied().collect::<Vec<_>>(),
        [
            "daemon",
            "datapath",
            "service",
            "service.backend",
            "timeouts"
        ]
    );
    let file = |of: &dyn Fn(&str) -> String| {
        format!(
            "[daemon]\n{}[timeouts]\n{}[datapath]\ninterfaces = [\"eth0\"]\n{}[[service]]\n{bare}{}[[service.backend]]\naddress = \"10.0.0.3\"\n{}",
            of("daemon"),
            of("timeouts"),
            of("datapath"),
            of("service"),
            of("service.backend"),
        )
    };
    assert_eq!(
        good(&file(&|section| sections[section].clone())),
        good(&file(&|_| String::new()))
    );
}

/// Parses, and draws the report of whatever is wrong.
fn survive(text: &str) -> Result<(), TestCaseError> {
    if let Err(errors) = parse("lb.toml", text) {
        prop_assert!(errors.len() > 0);
        let positions: Vec<_> = errors.iter().map(ConfigError::position).collect();
        prop_assert!(positions.is_sorted());
        for rendering in [Rendering::Plain, Rendering::Colour] {
            let report = errors.render(rendering);
            prop_assert!(!report.contains("Failed to read contents"), "{}", report);
        }
        let report = errors.render(Rendering::Plain);
        prop_assert!(
            !report.contains(|c: char| c.is_control() && c != '\n'),
            "{:?}",
            report
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn no_mutated_configuration_makes_it_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..4_usize, "[\\PC\n\r\t\"\\[\\]=#,.*:0-9\\\\\u{1b}]{0,4}"), 1..8),
    ) {
        let mut chars: Vec<char> = REFERENCE.chars().collect();
        for (at, removed, inserted) in edits {
            let at = at.index(chars.len() + 1);
            let end = (at + removed).min(chars.len());
            chars.splice(at..end, inserted.chars());
        }
        survive(&chars.into_iter().collect::<String>())?;
    }

    #[test]
    fn no_value_makes_it_panic(key in prop::sample::select(vec!["listen", "address", "source_nat", "udp", "source_ports", "weight", "probability", "interfaces"]), value in "\\PC{0,24}", quoted: bool) {
        let value = if quoted { format!("{value:?}") } else { value };
        let mut text = String::new();
        for line in REFERENCE.lines() {
            let name = line.split('=').next().unwrap_or_default().trim();
            if name == key { writeln!(text, "{key} = {value}").unwrap() } else { writeln!(text, "{line}").unwrap() }
        }
        survive(&text)?;
    }

    #[test]
    fn no_text_makes_it_panic(text in "(\\PC|\n){0,200}") {
        survive(&text)?;
    }
}
