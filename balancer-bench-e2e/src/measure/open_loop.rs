//! Open loop, one way: more is sent from one CPU than can be taken, and what arrives is counted.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use balancer_lab::{Host, Process};
use serde::Deserialize;

use super::{Bench, Case, Value, figure};
use crate::contender::{Contender, Service, Setup, Task};
use crate::interrupt;
use crate::plan;
use crate::results::{Better, Figure};
use crate::site::Site;

const BACKENDS: u32 = 3;
const FLOWS: u32 = 1024;
/// How long the receiver is there before and after all others.
const SLACK: Duration = Duration::from_millis(500);
/// How long any of them may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn figures() -> Vec<Figure> {
    vec![figure(
        "open-loop",
        "Packets one way through the box, sent by one CPU as fast as it can, free to be forwarded by the other",
        "Mpps",
        Better::More,
        Some("flows"),
    )]
}

pub fn cases() -> Vec<Case> {
    Contender::ALL.map(|contender| (contender, 0)).to_vec()
}

/// What the receiver tells.
#[derive(Deserialize)]
struct Report {
    pps: f64,
}

/// Starts `balancer-flood` on a CPU.
fn flood(bench: &Bench, host: &Host, cpu: usize, arguments: &[&str]) -> anyhow::Result<Process> {
    let mut command = host.command("taskset")?;
    command
        .arg("-c")
        .arg(cpu.to_string())
        .arg(bench.binaries.directory.join("balancer-flood"))
        .args(["--interface", "eth0", "--json"])
        .args(arguments);
    Ok(host.spawn_command(command)?)
}

pub fn sample(bench: &Bench, contender: Contender) -> anyhow::Result<Vec<Value>> {
    let site = Site::build()?;
    let task = Task {
        backends: BACKENDS,
        service: Service::Datagrams,
    };
    let _setup = Setup::begin(contender, &site, &bench.binaries, task)?;
    let time = Duration::from_secs(if bench.quick { 3 } else { 6 });
    let text = format!(
        "name = \"flood\"\nfamily = 4\nprotocol = \"udp\"\nmode = \"established\"\n\
         destination_mac = \"{}\"\nsource = \"{}\"\ndestination = \"{}\"\nsource_ports = \"1024-65535\"\n\
         destination_port = {}\nframe_size = 60\nflows = {FLOWS}\nrate = 0\nduration = \"{}s\"\n",
        site.balancer.mac("eth0")?,
        plan::CLIENT,
        contender.destination(),
        plan::PORT,
        time.as_secs(),
    );
    let path = site.lab.directory().join("flood.toml");
    fs::write(&path, text)?;
    bench.cpus.settle()?;
    let whole = format!("{}ms", (time + 2 * SLACK).as_millis());
    let port = plan::PORT.to_string();
    let receive = ["--receive", "--port", &port, "--for", &whole];
    let receiver = flood(bench, &site.server, bench.cpus.watch, &receive)?;
    interrupt::sleep(SLACK)?;
    let path = path.to_string_lossy();
    let sender = flood(bench, &site.client, bench.cpus.packets, &[&path])?;
    for process in [&sender, &receiver] {
        process.wait(PATIENCE)?;
    }
    let output = receiver.stdout();
    let report: Report = serde_json::from_str(&output)
        .with_context(|| format!("balancer-flood wrote\n{output}{}", receiver.stderr()))?;
    Ok(vec![(0, FLOWS, report.pps / 1e6)])
}
