//! Completions and the manual page, made from the command line's own definition.

use std::io::{self, Write as _};

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::{Cli, EXIT_STATUS};

/// The completions for a shell.
#[must_use]
pub fn completions(shell: Shell) -> String {
    // Into memory: writing to a closed pipe panics in there.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "balancerctl", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The manual page in roff, with a section for each command.
///
/// # Errors
/// None are known: it is written to memory.
pub fn manual() -> io::Result<String> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    let man = Man::new(command.clone());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    writeln!(page, ".SH COMMANDS")?;
    for subcommand in command.get_subcommands() {
        describe(&mut page, "balancerctl", subcommand)?;
    }
    writeln!(page, ".SH EXIT STATUS\n{}", escape(EXIT_STATUS))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn describe(page: &mut Vec<u8>, parent: &str, command: &Command) -> io::Result<()> {
    let name = format!("{parent} {}", command.get_name());
    if command.get_name() == "help" {
        return Ok(());
    }
    if command.has_subcommands() {
        for subcommand in command.get_subcommands() {
            describe(page, &name, subcommand)?;
        }
        return Ok(());
    }
    // The usage line has the options and arguments in their order; `build` has put the global ones in as well.
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    writeln!(page, ".SS \"{}\"", escape(usage))?;
    if let Some(about) = command.get_about() {
        writeln!(page, "{}.", escape(&about.to_string()))?;
    }
    for argument in command.get_arguments() {
        if argument.is_global_set() || matches!(argument.get_id().as_str(), "help" | "version") {
            continue;
        }
        let value = argument.get_value_names().unwrap_or_default().join(" ");
        let name = match argument.get_long() {
            Some(long) if argument.get_action().takes_values() => format!("--{long} <{value}>"),
            Some(long) => format!("--{long}"),
            None => format!("<{value}>"),
        };
        let help = argument
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        write!(page, ".TP\n\\fB{}\\fR\n{}", escape(&name), escape(&help))?;
        match argument.get_default_values().first() {
            Some(default) if argument.get_action().takes_values() => {
                writeln!(page, " [default: {}]", escape(&default.to_string_lossy()))?;
            }
            _ => writeln!(page)?,
        }
    }
    Ok(())
}

/// Hyphens that are to be copied, backslashes, and no control line by chance.
fn escape(text: &str) -> String {
    text.replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('"', "\\(dq")
        .replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_has_completions_for_every_command() {
        for &shell in Shell::value_variants() {
            let script = completions(shell);
            for command in ["undrain", "connections", "pin-path"] {
                assert!(script.contains(command), "{shell}: {command}");
            }
        }
    }

    #[test]
    fn the_manual_page_has_every_command_and_option() {
        // The version is the one line that may change.
        insta::assert_snapshot!(
            manual()
                .unwrap()
                .replace(env!("CARGO_PKG_VERSION"), "VERSION")
        );
    }
}
