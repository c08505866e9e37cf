//! What an operator reads when a configuration is wrong: every case with its full report, as a snapshot.
//!
//! The cases stand in `config_errors/`. A case begins with `### NAME`; what stands before the first one is the
//! beginning of every case of that file.

use std::fmt::Write as _;

use balancer::config::{ConfigError, Rendering, parse};

/// The report of each case, below its name.
fn reports(file: &str) -> String {
    let (beginning, cases) = file.split_at(file.find("### ").expect("a case"));
    let mut out = String::new();
    for case in cases.split("### ").filter(|case| !case.is_empty()) {
        let (name, lines) = case.split_once('\n').expect("a name");
        let errors = parse("lb.toml", &format!("{beginning}{lines}")).expect_err(name);
        writeln!(out, "### {name}\n").expect("a string");
        for error in &errors {
            writeln!(out, "{}", error.one_line()).expect("a string");
        }
        writeln!(out, "\n{}", errors.render(Rendering::Plain)).expect("a string");
    }
    out
}

macro_rules! snapshots {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                insta::assert_snapshot!(reports(include_str!(concat!("config_errors/", stringify!($name), ".toml"))));
            }
        )*
    };
}

snapshots!(syntax keys daemon interfaces datapath timeouts services listen backends probabilities);

#[test]
fn all_errors_are_reported_in_one_run() {
    let text = r#"[daemon]
pin_path = "bpf"
[datapath]
interfaces = ["eth0"]
max_conections = 5
[timeouts]
udp = 30
[[service]]
name = "web"
listen = "192.0.2.10:0"
scheduler = "maglev"
[[service.backend]]
address = "10.0.0.3"
"#;
    let errors = parse("lb.toml", text).expect_err("five errors");
    let lines: Vec<_> = errors.iter().map(ConfigError::one_line).collect();
    assert_eq!(
        lines,
        [
            "lb.toml:2:12: `bpf` is not an absolute path",
            "lb.toml:5:1: unknown key `max_conections` in [datapath]",
            "lb.toml:7:7: `udp` must be a duration in quotes, not an integer",
            "lb.toml:10:22: port 0 cannot be used",
            "lb.toml:11:13: scheduler `maglev` is not supported yet",
        ]
    );
    assert_eq!(errors.to_string(), "lb.toml: 5 errors");
}
