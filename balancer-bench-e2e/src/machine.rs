//! What a run runs on, and of what.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::contender::Contender;
use crate::cpus::Cpus;
use crate::results::Machine;

/// Looks at this machine.
pub fn describe(cpus: Cpus) -> Machine {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (info, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let value = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let kilobytes = value(&memory, "MemTotal");
    let kilobytes = kilobytes.trim_end_matches(" kB").parse::<u64>();
    let contenders = Contender::ALL.into_iter().filter_map(Contender::tool);
    let tools = contenders.chain([("wrk", "-v"), ("nginx", "-v")]);
    Machine {
        processor: value(&info, "model name"),
        cpus: info
            .lines()
            .filter(|line| line.starts_with("processor"))
            .count(),
        used: [cpus.packets, cpus.watch],
        memory: kilobytes.unwrap_or(0) / 1024,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        tools: tools
            .filter_map(|(tool, argument)| version(tool, argument))
            .collect(),
    }
}

/// The first line in which a program names itself.
fn version(tool: &str, argument: &str) -> Option<String> {
    // wrk and nginx tell it on standard error, wrk with a status that says failure.
    let output = Command::new(tool).arg(argument).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    Some(text.lines().next()?.trim().to_owned())
}

/// Whether a program is there.
pub fn has(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(tool).is_file())
}

/// The commit of a checkout; `+` at its end: and changes that were not committed.
pub fn commit(root: &Path) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .current_dir(root)
            .args(arguments)
            .output()
            .ok()?;
        let text = output.status.success().then_some(output.stdout)?;
        Some(String::from_utf8_lossy(&text).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    // What this command itself writes changes nothing that is measured.
    let changes = git(&["status", "--porcelain", "--", ".", ":!docs"]).unwrap_or_default();
    if changes.is_empty() {
        commit
    } else {
        commit + "+"
    }
}
