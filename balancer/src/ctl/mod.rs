//! balancerctl: asks the daemon, shows what it answers.

pub mod args;
mod drain;
mod packaging;
pub mod render;
pub mod table;
pub mod units;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser as _;
use serde::Serialize;

use self::args::{BackendName, Cli, Command, Flush};
use self::table::Style;
use crate::control::client::{Client, ClientError, Reply};
use crate::control::document::{
    ChangeDocument, ConnectionsDocument, DropsDocument, FlushDocument, ReloadDocument,
    ServicesDocument, StatusDocument, Version,
};
use crate::control::protocol::Request;

/// Takes away what the daemon left under a pin path; returns what it took, a line each.
pub type Detach = fn(&Path) -> anyhow::Result<Vec<String>>;

/// `{"version":1,"detached":[…]}`: the one document that does not come from the daemon.
#[derive(Debug, Serialize)]
struct DetachDocument {
    version: Version,
    detached: Vec<String>,
}

/// What a command has to say.
#[derive(Debug, Default)]
pub struct Outcome {
    /// For standard output.
    pub output: String,
    /// For standard error; not an error.
    pub note: Option<String>,
    /// For standard error; makes the exit status 1.
    pub error: Option<String>,
}

/// The whole program: reads the command line, runs it, prints, returns the exit status.
#[must_use]
pub fn main(detach: Detach) -> ExitCode {
    let cli = Cli::parse();
    let style = if io::stdout().is_terminal() {
        Style::Terminal
    } else {
        Style::Plain
    };
    let outcome = run(&cli, style, detach).unwrap_or_else(|error| Outcome {
        error: Some(format!("{error:#}")),
        ..Outcome::default()
    });
    let written = print(&outcome.output);
    if let Some(note) = outcome.note {
        eprintln!("{note}");
    }
    let error = outcome
        .error
        .or_else(|| Some(format!("standard output: {}", written.err()?)));
    if let Some(error) = error {
        eprintln!("balancerctl: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Writes to standard output; that nobody reads it any more is not an error.
fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Runs a command.
///
/// # Errors
/// When it could not be done; the text is for the user.
pub fn run(cli: &Cli, style: Style, detach: Detach) -> anyhow::Result<Outcome> {
    let call = |request| Client::connect(&cli.socket)?.call(&request);
    match &cli.command {
        Command::Status => show(
            cli,
            &call(Request::Status {})?,
            |document: &StatusDocument| render::status(style, &document.status),
        ),
        Command::Services => show(
            cli,
            &call(Request::Services {})?,
            |document: &ServicesDocument| render::services(style, document),
        ),
        Command::Connections {
            service,
            backend,
            limit,
        } => {
            let (service, backend) = (service.clone(), backend.clone());
            let reply = call(Request::Connections {
                service,
                backend,
                limit: *limit,
            })?;
            connections(cli, style, &reply)
        }
        Command::Drops => show(
            cli,
            &call(Request::Drops {})?,
            |document: &DropsDocument| render::drops(style, document),
        ),
        Command::Reload { dry_run } => reload(cli, &call(Request::Reload { dry_run: *dry_run })?),
        Command::Drain {
            backend,
            wait,
            timeout,
        } => {
            let BackendName { service, backend } = backend;
            let mut client = Client::connect(&cli.socket)?;
            let request = Request::Drain {
                service: service.clone(),
                backend: backend.clone(),
            };
            let reply = client.call(&request)?;
            if !wait {
                return change(cli, &reply);
            }
            let changed = reply.document::<ChangeDocument>()?.changed;
            let changed = drain::wait(&mut client, changed, *timeout)?;
            let text = if cli.json {
                json(&ChangeDocument {
                    version: Version,
                    changed,
                })?
            } else {
                render::change(&changed)
            };
            Ok(Outcome {
                output: text,
                ..Outcome::default()
            })
        }
        Command::Undrain {
            backend: BackendName { service, backend },
        } => {
            let (service, backend) = (service.clone(), backend.clone());
            change(cli, &call(Request::Undrain { service, backend })?)
        }
        Command::Weight {
            backend: BackendName { service, backend },
            weight,
        } => {
            let (service, backend) = (service.clone(), backend.clone());
            change(
                cli,
                &call(Request::Weight {
                    service,
                    backend,
                    weight: *weight,
                })?,
            )
        }
        Command::Flush(Flush::Connections { service }) => {
            let reply = call(Request::FlushConnections {
                service: service.clone(),
            })?;
            show(cli, &reply, |document: &FlushDocument| {
                format!("{} connections forgotten\n", document.flushed)
            })
        }
        Command::Detach { pin_path } => run_detach(cli, pin_path, detach),
        Command::Completions { shell } => Ok(Outcome {
            output: packaging::completions(*shell),
            ..Outcome::default()
        }),
        Command::Man => Ok(Outcome {
            output: packaging::manual()?,
            ..Outcome::default()
        }),
    }
}

/// The answer as text; with `--json` as the daemon wrote it, so that nothing of a newer daemon's is lost.
fn show<D: serde::de::DeserializeOwned>(
    cli: &Cli,
    reply: &Reply,
    render: impl FnOnce(&D) -> String,
) -> anyhow::Result<Outcome> {
    let document = reply.document()?;
    let output = if cli.json {
        format!("{}\n", reply.text())
    } else {
        render(&document)
    };
    Ok(Outcome {
        output,
        ..Outcome::default()
    })
}

fn json(document: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string(document)? + "\n")
}

fn change(cli: &Cli, reply: &Reply) -> anyhow::Result<Outcome> {
    show(cli, reply, |document: &ChangeDocument| {
        render::change(&document.changed)
    })
}

fn connections(cli: &Cli, style: Style, reply: &Reply) -> anyhow::Result<Outcome> {
    let mut note = None;
    let outcome = show(cli, reply, |document: &ConnectionsDocument| {
        note = render::truncation(document);
        render::connections(style, document)
    })?;
    Ok(Outcome { note, ..outcome })
}

fn reload(cli: &Cli, reply: &Reply) -> anyhow::Result<Outcome> {
    let errors = reply.document::<ReloadDocument>()?.reload.errors;
    let outcome = show(cli, reply, |document: &ReloadDocument| {
        render::reload(&document.reload)
    })?;
    let error = (!errors.is_empty()).then(|| {
        let errors = errors.join("\n");
        format!("the configuration has errors, the old one is in effect:\n{errors}")
    });
    Ok(Outcome { error, ..outcome })
}

fn run_detach(cli: &Cli, pin_path: &Path, detach: Detach) -> anyhow::Result<Outcome> {
    match Client::connect(&cli.socket) {
        Err(ClientError::NotRunning(_)) => {}
        Err(error) => return Err(error).context("it cannot be told whether balancerd runs"),
        Ok(_) => bail!(
            "balancerd runs (it answers on {}): stop it first, or it loses its programs",
            cli.socket.display()
        ),
    }
    let detached = detach(pin_path)?;
    let output = if cli.json {
        json(&DetachDocument {
            version: Version,
            detached,
        })?
    } else if detached.is_empty() {
        format!("nothing to detach under {}\n", pin_path.display())
    } else {
        detached.join("\n") + "\n"
    };
    Ok(Outcome {
        output,
        ..Outcome::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a `detach` where no daemon is.
    fn detach(options: &[&str], detach: Detach) -> anyhow::Result<Outcome> {
        let dir = tempfile::tempdir().unwrap();
        let mut cli = Cli::parse_from([&["balancerctl", "detach"], options].concat());
        cli.socket = dir.path().join("control.sock");
        run(&cli, Style::Plain, detach)
    }

    #[test]
    fn detach_tells_what_it_took() {
        let taken: Detach = |path| {
            assert_eq!(path, Path::new("/pins"));
            Ok(vec!["eth0: program".into(), "pins".into()])
        };
        let text = detach(&["--pin-path", "/pins"], taken).unwrap();
        assert_eq!(text.output, "eth0: program\npins\n");
        let json = detach(&["--pin-path", "/pins", "--json"], taken).unwrap();
        assert_eq!(
            json.output,
            "{\"version\":1,\"detached\":[\"eth0: program\",\"pins\"]}\n"
        );
    }

    #[test]
    fn detach_with_nothing_to_take_says_so() {
        let outcome = detach(&[], |_| Ok(Vec::new())).unwrap();
        assert_eq!(
            outcome.output,
            "nothing to detach under /sys/fs/bpf/balancerd\n"
        );
    }

    #[test]
    fn detach_hands_an_error_on() {
        let error = detach(&[], |_| bail!("no permission")).unwrap_err();
        assert_eq!(error.to_string(), "no permission");
    }
}
