//! `cargo xtask model`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use crate::{run, workspace::Workspace};

/// The model's options.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// How often a thread is interrupted at most: 1 takes seconds, 2 minutes, 3 hours
    #[arg(long, default_value_t = 1)]
    preemptions: u8,
    /// Break the protocol in known ways, one after the other, and see to it that the model finds each
    #[arg(long)]
    mutants: bool,
}

impl Default for ModelArgs {
    fn default() -> Self {
        Self {
            preemptions: 1,
            mutants: false,
        }
    }
}

/// A way to break the protocol: what in a file of `balancer-common/src/table` becomes what.
struct Mutant {
    what: &'static str,
    file: &'static str,
    old: &'static str,
    new: &'static str,
}

const MUTANTS: [Mutant; 11] = [
    Mutant {
        what: "a reply takes a stranger for its original",
        file: "touch.rs",
        old: ".filter(|peer| peer.is_answered_by(flow));",
        new: ";",
    },
    Mutant {
        what: "a reply without its original is revived by the next daemon",
        file: "retire.rs",
        old: "        if orphaned(lines, line) {\n            kill(line);\n        } else {",
        new: "        {",
    },
    Mutant {
        what: "a packet of the reply does not revive the original",
        file: "touch.rs",
        old: "Some(peer) if reply && !revive(peer) => return Touched::Again,",
        new: "",
    },
    Mutant {
        what: "a packet takes a dead original for a live one",
        file: "touch.rs",
        old: "Some(peer) if reply && !revive(peer) => return Touched::Again,",
        new: "Some(peer) if reply && peer.meta().is(Stage::Dying) && !revive(peer) => return Touched::Again,",
    },
    Mutant {
        what: "a packet whose flow died while it looked for the other one goes on",
        file: "touch.rs",
        old: "flow.meta() == meta\n",
        new: "true\n",
    },
    Mutant {
        what: "the original becomes visible before its reply",
        file: "enter.rs",
        old: "    reply.set_meta(live.scaled(Scale::MOST));\n    original.set_meta(live.scaled(segment.scale()));\n",
        new: "    original.set_meta(live.scaled(segment.scale()));\n    reply.set_meta(live.scaled(Scale::MOST));\n",
    },
    Mutant {
        what: "nobody looks whether the connection is there already",
        file: "enter.rs",
        old: "    if let Some(old) = find(lines, &connection.tuple)\n        && !lines.give_way(old)\n    {\n        return Err(Refused::Exists);\n    }\n",
        new: "    if let Some(old) = find(lines, &connection.tuple) {\n        lines.give_way(old);\n    }\n",
    },
    Mutant {
        what: "the home of a reply is not locked",
        file: "enter.rs",
        old: "if !is_same && !table::lock(&reply_line.home, 1) {",
        new: "if !is_same && !table::lock(&crate::word::HalfWord::new(0), 1) {",
    },
    Mutant {
        what: "the daemon does not see that a packet came for the reply",
        file: "retire.rs",
        old: "        && !reply.replace_meta(reply_meta, reply_meta.at(Stage::Dying))\n    {",
        new: "        && !reply.replace_meta(reply.meta(), reply.meta().at(Stage::Dying))\n    {",
    },
    Mutant {
        what: "the original dies whatever has become of it",
        file: "retire.rs",
        old: "if !original.replace_meta(dying, dead) && !original.meta().is(Stage::Dead) {",
        new: "original.set_meta(dead);\n    if false {",
    },
    Mutant {
        what: "what a killed daemon had counted is added again",
        file: "retire.rs",
        old: "    totals.closed.set(closed.get());\n    totals.half_closed.set(half_closed.get());\n    // Freed",
        new: "    totals.closed.set(totals.closed.get() + 1);\n    totals.half_closed.set(half_closed.get());\n    // Freed",
    },
];

/// Runs the flow table's model; with `--mutants` also that of each mutant, which has to fail.
pub fn model(workspace: &Workspace, args: &ModelArgs) -> anyhow::Result<()> {
    run::timed("model of the flow table", &mut test(workspace, args))?;
    if args.mutants {
        let mut survivors = Vec::new();
        for mutant in &MUTANTS {
            let found = is_found(workspace, mutant, args)?;
            println!(
                "{} {}",
                if found { "found   " } else { "SURVIVED" },
                mutant.what
            );
            if !found {
                survivors.push(mutant.what);
            }
        }
        ensure!(
            survivors.is_empty(),
            "the model does not find: {}",
            survivors.join("; ")
        );
    }
    Ok(())
}

/// The model's own run.
pub fn test(workspace: &Workspace, args: &ModelArgs) -> Command {
    command(workspace, &workspace.root, "target/model", args)
}

/// The model's own build: all atomics are the model checker's.
fn command(workspace: &Workspace, root: &Path, target: &str, args: &ModelArgs) -> Command {
    let mut cargo = workspace.cargo(["test", "--release", "--package", "balancer-common"]);
    cargo
        .args(["--test", "table_model"])
        .current_dir(root)
        .env("RUSTFLAGS", "--cfg loom")
        .env("CARGO_TARGET_DIR", workspace.root.join(target))
        .env("BALANCER_PREEMPTIONS", args.preemptions.to_string());
    cargo
}

/// Whether the model fails for a mutant, made in a copy of the workspace.
fn is_found(workspace: &Workspace, mutant: &Mutant, args: &ModelArgs) -> anyhow::Result<bool> {
    let copy = workspace.root.join("target/mutant");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    copy_tree(&workspace.root, &copy)?;
    let path = copy.join("balancer-common/src/table").join(mutant.file);
    let source = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    if source.matches(mutant.old).count() != 1 {
        bail!(
            "{}: the place is not there, or not the only one",
            mutant.what
        );
    }
    fs::write(&path, source.replace(mutant.old, mutant.new))?;
    // In a folder of its own: cargo would take the one build for the other.
    let output = command(workspace, &copy, "target/mutants", args).output()?;
    fs::remove_dir_all(&copy)?;
    let text = String::from_utf8_lossy(&output.stdout);
    // One that does not compile proves nothing.
    ensure!(
        text.contains("running "),
        "{}: {}",
        mutant.what,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(!output.status.success())
}

/// Copies what the model's build needs.
fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == "target" || name == ".git" {
            continue;
        }
        let target = to.join(&name);
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
