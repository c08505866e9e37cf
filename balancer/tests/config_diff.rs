//! What a reload changes: pairs of files and the difference between them.

use balancer::config::{Config, diff, parse, schema};
use serde_json::Value;

const OLD: &str = r#"
[datapath]
interfaces = ["eth0", "eth1"]

[[service]]
name = "web"
listen = "192.0.2.10:443"
backend = [
  { address = "10.0.0.3", weight = 2 },
  { address = "10.0.0.4" },
]

[[service]]
name = "dns"
protocol = "udp"
listen = "192.0.2.10:53"
scheduler = "random"
backend = [
  { address = "10.0.0.5", probability = 0.5 },
  { address = "10.0.0.6", probability = 0.5 },
]
"#;

fn config(text: &str) -> Config {
    parse("lb.toml", text)
        .unwrap_or_else(|errors| panic!("{:?}\n{text}", errors.iter().collect::<Vec<_>>()))
}

/// The difference that replacing each first string by the second one makes.
fn after(replacements: &[(&str, &str)]) -> String {
    let mut text = OLD.to_owned();
    for (from, to) in replacements {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let (old, new) = (config(OLD), config(&text));
    let difference = diff(&old, &new);
    assert_eq!(difference.is_empty(), difference.to_string().is_empty());
    difference.to_string()
}

/// The name of a change, what is replaced in the file, and the lines that show it.
type Case = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

const CASES: &[Case] = &[
    ("nothing", &[], ""),
    (
        "a comment",
        &[("[datapath]", "# a comment\n[datapath]")],
        "",
    ),
    (
        "a default written out",
        &[("name = \"web\"", "name = \"web\"\nscheduler = \"nth\"")],
        "",
    ),
    (
        "a port written out",
        &[("10.0.0.3\"", "10.0.0.3:443\"")],
        "",
    ),
    (
        "interfaces in another order",
        &[("\"eth0\", \"eth1\"", "\"eth1\", \"eth0\"")],
        "",
    ),
    (
        "a backend is added",
        &[(
            "  { address = \"10.0.0.4\" },
",
            "  { address = \"10.0.0.4\" },\n  { address = \"10.0.0.9:80\" },\n",
        )],
        "~ service web: + backend 10.0.0.9:80 weight 1\n",
    ),
    (
        "a backend is removed",
        &[(
            "  { address = \"10.0.0.4\" },
",
            "",
        )],
        "~ service web: - backend 10.0.0.4:443\n",
    ),
    (
        "a weight",
        &[("weight = 2", "weight = 0")],
        "~ service web: ~ backend 10.0.0.3:443 weight 2 -> weight 0\n",
    ),
    (
        "probabilities",
        &[
            ("5\", probability = 0.5", "5\", probability = 0.25"),
            ("6\", probability = 0.5", "6\", probability = 0.75"),
        ],
        "~ service dns: ~ backend 10.0.0.5:53 probability 0.5 -> probability 0.25\n\
             ~ service dns: ~ backend 10.0.0.6:53 probability 0.5 -> probability 0.75\n",
    ),
    (
        "a backend's port",
        &[("10.0.0.4", "10.0.0.4:80")],
        "~ service web: - backend 10.0.0.4:443\n~ service web: + backend 10.0.0.4:80 weight 1\n",
    ),
    (
        "backends in another order",
        &[
            ("10.0.0.5", "x"),
            ("10.0.0.6", "10.0.0.5"),
            ("\"x\"", "\"10.0.0.6\""),
        ],
        "~ service dns: backends in another order\n",
    ),
    (
        "a service gets another name",
        &[("\"dns\"", "\"names\"")],
        "- service dns\n+ service names\n",
    ),
    (
        "keys of a service",
        &[
            (
                "name = \"web\"",
                "name = \"web\"\ninterface = \"eth0\"\nscheduler = \"random\"\nsource_nat = \"none\"",
            ),
            ("protocol = \"udp\"", ""),
        ],
        "~ service web: interface not set -> eth0\n\
             ~ service web: scheduler nth -> random\n\
             ~ service web: source_nat masquerade -> none\n\
             ~ service dns: protocol udp -> tcp\n",
    ),
    (
        "an address and with it the default port",
        &[("192.0.2.10:443", "*:8443")],
        "~ service web: listen 192.0.2.10:443 -> *:8443\n\
             ~ service web: - backend 10.0.0.3:443\n\
             ~ service web: - backend 10.0.0.4:443\n\
             ~ service web: + backend 10.0.0.3:8443 weight 2\n\
             ~ service web: + backend 10.0.0.4:8443 weight 1\n",
    ),
    (
        "timeouts and ports",
        &[(
            "[datapath]",
            "[timeouts]\nudp = \"1m\"\ntcp_established = \"1d\"\n[datapath]\nsource_ports = \"2000-3000\"",
        )],
        "~ timeouts.tcp_established: 2h4m -> 1d\n~ timeouts.udp: 30s -> 1m\n~ datapath.source_ports: 1024-32767 -> 2000-3000\n",
    ),
];

#[test]
fn each_change_has_its_line() {
    for (name, replacements, lines) in CASES {
        assert_eq!(after(replacements), *lines, "{name}");
    }
}

#[test]
fn keys_that_need_a_restart_are_those_of_the_schema() {
    let text = OLD.replace(
        "[datapath]\ninterfaces = [\"eth0\", \"eth1\"]",
        "[daemon]\ncontrol_socket = \"/a\"\npin_path = \"/b\"\non_exit = \"keep\"\n[datapath]\ninterfaces = [\"eth0\"]\nxdp_mode = \"native\"\nmax_connections = 10\nmax_half_open = 5\nflow_lookup = \"hash\"\nengine = \"userspace\"\nworker_cpus = [1]\nbusy_poll = true\non_daemon_loss = \"drop\"\n",
    );
    let mut found = diff(&config(OLD), &config(&text)).restart_only;
    found.sort_unstable();
    let mut wanted = Vec::new();
    for section in ["daemon", "datapath", "timeouts"] {
        let Value::Object(keys) = &schema()["properties"][section]["properties"] else {
            panic!("{section}")
        };
        let restart = keys
            .iter()
            .filter(|(_, key)| key["x-restart"] == true && key["x-not-supported-yet"] != true);
        wanted.extend(restart.map(|(name, _)| format!("{section}.{name}")));
    }
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    let shown = diff(&config(OLD), &config(&text)).to_string();
    assert!(
        shown.contains("! datapath.interfaces: needs a restart\n"),
        "{shown}"
    );
}
