//! What the daemon refuses, each with one clear line.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use balancer::config::FlowLookup;
use balancer::datapath::kernel::{Back, Kernel, Sizes, Work};

use crate::schedule::{backend, nth};
use crate::site::{Shape, Site};

fn service() -> String {
    nth("192.0.2.10:7", &[backend("10.0.1.3:7")])
}

/// The whole of what a command wrote, which must be one line; it must have failed with 1.
fn one_line(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn where_it_cannot_run() {
    let Some(mut site) = Site::new("refusals", Shape::Links, 1) else {
        return;
    };
    site.configure(&service());
    let config = site.directory().join("lb.toml");
    // A kernel that calls itself 2.6.
    let mut old = site.balancer.command("setarch").unwrap();
    old.arg("--uname-2.6")
        .arg(env!("CARGO_BIN_EXE_balancerd"))
        .arg("--config")
        .arg(&config);
    let text = one_line(&mut old);
    assert!(
        text.contains("is too old: balancerd needs 5.18 or newer"),
        "{text}"
    );

    // Nobody. The program and its file must be where nobody may read them.
    let folder = std::env::temp_dir().join(format!("{}-open", site.lab.prefix()));
    fs::create_dir(&folder).unwrap();
    let copy = folder.join("balancerd");
    // By another process: while this one has it open for writing, a fork of another test would hold it open, and busy.
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_balancerd"))
        .arg(&copy)
        .status();
    assert!(copied.unwrap().success());
    fs::copy(&config, folder.join("lb.toml")).unwrap();
    let mut nobody = Command::new(&copy);
    nobody
        .arg("--config")
        .arg(folder.join("lb.toml"))
        .uid(65_534)
        .gid(65_534);
    let text = one_line(&mut nobody);
    fs::remove_dir_all(&folder).unwrap();
    assert!(
        text.contains("must be started as root, or with the capabilities CAP_BPF"),
        "{text}"
    );

    // Root with one capability less.
    let mut less = site.balancer.command("setpriv").unwrap();
    less.args(["--inh-caps=-all", "--bounding-set=-bpf,-sys_admin", "--"])
        .arg(env!("CARGO_BIN_EXE_balancerd"))
        .arg("--config")
        .arg(&config);
    let text = one_line(&mut less);
    assert!(text.contains("(missing: CAP_BPF)"), "{text}");

    let mut missing = site
        .balancer
        .command(env!("CARGO_BIN_EXE_balancerd"))
        .unwrap();
    missing.args(["--config", "/nonexistent/lb.toml"]);
    assert!(one_line(&mut missing).contains("/nonexistent/lb.toml: No such file"));

    site.replace_head("\"eth1\"", "\"eth9\"");
    site.configure(&service());
    let error = site.start_refused();
    assert!(
        error.contains("there is no interface eth9 (there are: lo, eth0, eth1)"),
        "{error}"
    );
    site.replace_head("\"eth9\"", "\"eth1\"");

    let elsewhere = site.directory().join("pins").display().to_string();
    let pins = site.pins.display().to_string();
    site.replace_head(&pins, &elsewhere);
    site.configure(&service());
    let error = site.start_refused();
    assert!(
        error.contains("is not on a BPF file system: mount one with"),
        "{error}"
    );
    assert!(!fs::exists(&elsewhere).unwrap());
    site.replace_head(&elsewhere, &pins);

    // The same address twice.
    site.configure(&[service(), service().replace("web", "again")].concat());
    let mut command = site
        .balancer
        .command(env!("CARGO_BIN_EXE_balancerd"))
        .unwrap();
    let output = command
        .arg("--config")
        .arg(site.directory().join("lb.toml"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("192.0.2.10:7"), "{text}");
    assert!(text.trim_end().ends_with("lb.toml: 1 error"), "{text}");

    // A backend that is this box.
    site.configure(&nth("192.0.2.10:7", &[backend("10.0.1.1:7")]));
    let error = site.start_refused();
    assert!(
        error.contains("backend 10.0.1.1 is an address of this box"),
        "{error}"
    );
    assert!(
        !site.pins.exists(),
        "a start that failed leaves nothing behind"
    );

    // Ports that the box uses itself.
    site.datapath_key("source_ports = \"1024-40000\"");
    site.configure(&service());
    let error = site.start_refused();
    assert!(
        error.contains("overlaps the ports of the box's own connections"),
        "{error}"
    );
}

#[test]
fn workers_need_cpus_that_are_there() {
    let Some(mut site) = Site::new("cpus", Shape::Links, 1) else {
        return;
    };
    site.datapath_key("worker_cpus = [0, 1023]");
    site.configure(&service());
    let error = site.start_refused();
    assert!(error.contains("may not use CPU 1023"), "{error}");
    assert!(!site.pins.exists());
}

#[test]
fn two_daemons_do_not_share() {
    let Some(mut site) = Site::new("twice", Shape::Links, 1) else {
        return;
    };
    site.start(&service());
    let error = site.start_refused();
    assert!(error.contains("another balancerd answers on"), "{error}");
    let socket = site.directory().join("control.sock").display().to_string();
    site.replace_head(&socket, &format!("{socket}.2"));
    site.configure(&service());
    let error = site.start_refused();
    assert!(error.contains("another balancerd uses"), "{error}");
    assert_eq!(site.status().generation, 1);
}

#[test]
fn a_foreign_program_is_left_alone_and_named() {
    let Some(mut site) = Site::new("foreign", Shape::Links, 1) else {
        return;
    };
    // Another balancerd, with pins of its own, is foreign to this one.
    site.start(&service());
    let pins = site.pins.display().to_string();
    let socket = site.directory().join("control.sock").display().to_string();
    site.replace_head(&socket, &format!("{socket}.2"));
    site.replace_head(&pins, &format!("{pins}-2"));
    site.configure(&service());
    let error = site.start_refused();
    let links = site
        .balancer
        .run("ip", ["-details", "link", "show", "eth0"])
        .unwrap()
        .stdout;
    let id = links
        .split("prog/xdp id ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    let expected = format!("eth0 has an XDP program of someone else (id {id})");
    assert!(error.contains(&expected), "{error}: {expected}");
    assert!(!fs::exists(format!("{pins}-2")).unwrap());
}

#[test]
fn a_program_attached_by_hand_is_left_alone_too() {
    let Some(site) = Site::new("by-hand", Shape::Links, 1) else {
        return;
    };
    // Attached by no link of ours, as other programs are.
    fs::create_dir(&site.pins).unwrap();
    let pinned = site.pins.join("other");
    let sizes = Sizes {
        connections: 1,
        half_open: 1,
        lookup: FlowLookup::Table,
    };
    let mut other = Kernel::load(sizes, Work::Kernel(Back::Redirect), None).unwrap();
    other.program().unwrap().pin(&pinned).unwrap();
    let attached = site.balancer.ip(&format!(
        "link set dev eth1 xdp pinned {}",
        pinned.display()
    ));
    attached.unwrap();
    fs::remove_dir_all(&site.pins).unwrap();
    let id = other.program().unwrap().info().unwrap().id();
    site.configure(&service());
    let error = site.start_refused();
    let expected = format!("eth1 has an XDP program of someone else (id {id})");
    assert!(error.contains(&expected), "{error}: {expected}");
    let links = site
        .balancer
        .run("ip", ["-details", "link"])
        .unwrap()
        .stdout;
    assert_eq!(links.matches("prog/xdp").count(), 1, "{links}");
    assert!(links.contains(&format!("prog/xdp id {id} ")), "{links}");
    assert!(!site.pins.exists());
}
