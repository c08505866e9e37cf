//! Running other programs.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Read},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Instant,
};

use anyhow::{Context as _, bail};

use crate::progress::Step;

/// How much of a failed program's output is repeated.
const LINES_KEPT: usize = 40;

/// Runs `command` with its output shown in `step`; when it fails, the error has the last lines of it.
pub fn in_step(step: &mut Step, command: &mut Command) -> anyhow::Result<()> {
    let name = name(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{name} cannot be run"))?;
    let (sender, lines) = mpsc::channel();
    let readers = [
        child
            .stdout
            .take()
            .map(|out| read_lines(out, sender.clone())),
        child
            .stderr
            .take()
            .map(|err| read_lines(err, sender.clone())),
    ];
    drop(sender);
    let mut last = VecDeque::new();
    for line in lines {
        step.show(&line);
        if last.len() == LINES_KEPT {
            last.pop_front();
        }
        last.push_back(line);
    }
    for reader in readers.into_iter().flatten() {
        // It has ended: it sent its last line.
        let _ = reader.join();
    }
    let status = child.wait().with_context(|| format!("{name} was lost"))?;
    if !status.success() {
        let output = Vec::from(last).join("\n");
        bail!("{name}: {status}\n{output}");
    }
    Ok(())
}

fn read_lines(
    output: impl Read + Send + 'static,
    lines: mpsc::Sender<String>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    })
}

/// Runs `command` with the user's terminal, and tells how long it took.
pub fn timed(what: &str, command: &mut Command) -> anyhow::Result<()> {
    eprintln!("== {what}");
    let started = Instant::now();
    let name = name(command);
    let status = command
        .status()
        .with_context(|| format!("{name} cannot be run"))?;
    if !status.success() {
        bail!("{what} failed ({name}: {status})");
    }
    eprintln!("== {what}: {:.1} s", started.elapsed().as_secs_f32());
    Ok(())
}

/// The program and its first argument, for messages.
fn name(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let mut name = program.to_string_lossy().into_owned();
    if let Some(argument) = command.get_args().next() {
        name.push(' ');
        name.push_str(&argument.to_string_lossy());
    }
    name
}
