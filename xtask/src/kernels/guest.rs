//! A guest: what is in it, and its run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, ensure};

use super::{
    archive::Archive,
    modules,
    programs::{self, DAEMON, Program, TESTS, TOOL},
    release::Kernel,
    report::Report,
};
use crate::{progress::Step, run};

/// The program that runs a guest.
pub const QEMU: &str = "qemu-system-x86_64";

/// How long a guest may take, in seconds.
const LIMIT: &str = "400";

/// How often a boot is tried: without KVM a guest now and then stops before its first process.
const ATTEMPTS: u32 = 2;

/// The tools of this machine that a guest has.
const TOOLS: [&str; 4] = ["ip", "tc", "ethtool", "setpriv"];

/// The modules that the tests want.
const MODULES: [&str; 4] = ["veth", "bridge", "8021q", "sch_netem"];

/// Runs a command as root, but with the capabilities that the daemon says it needs, and no other.
const CONFINED: &str = "#!/bin/sh
exec /usr/sbin/setpriv --inh-caps=-all --bounding-set=-all,+bpf,+net_admin,+net_raw,+perfmon -- \"$@\"
";

/// Takes the daemon's place.
const DAEMON_CONFINED: &str = "#!/bin/sh
exec /usr/sbin/confined /tests/balancerd \"$@\"
";

/// A step of the plan.
pub struct Task {
    /// Its name.
    pub name: &'static str,
    /// How many tests pass in it, at least.
    pub tests: u32,
    /// What the guest's shell runs.
    pub command: String,
}

/// All that guests have in common.
pub struct Contents<'a> {
    /// The project's programs by name.
    pub programs: &'a BTreeMap<String, Program>,
    /// The shell.
    pub busybox: &'a Path,
    /// What to run.
    pub plan: &'a [Task],
}

/// Writes the initramfs for a kernel.
pub fn write(path: &Path, kernel: &Kernel, contents: &Contents<'_>) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    for folder in ["/proc", "/sys", "/dev", "/tmp", "/run"] {
        archive.folder(folder)?;
    }
    archive.add("/init", include_bytes!("init.sh"))?;
    archive.copy("/bin/busybox", contents.busybox)?;
    let mut plan = Vec::new();
    for task in contents.plan {
        writeln!(plan, "step '{}' {}", task.name, task.command)?;
    }
    archive.add("/plan", &plan)?;
    let mut order = String::new();
    for module in modules::closure(&kernel.modules, &MODULES)? {
        archive.add(&format!("/modules/{}.ko", module.name), &module.contents)?;
        order.push_str(&module.name);
        order.push('\n');
    }
    archive.add("/modules/order", order.as_bytes())?;

    let mut libraries = BTreeSet::new();
    for name in TOOLS {
        let path = programs::tool(name).with_context(|| format!("{name} is missing"))?;
        archive.copy(&format!("/usr/sbin/{name}"), &path)?;
        libraries.extend(programs::libraries(&path)?);
    }
    for name in TESTS.iter().chain(&[DAEMON, TOOL]) {
        let path = &contents.programs[*name].stripped;
        archive.copy(&format!("/tests/{name}"), path)?;
        libraries.extend(programs::libraries(path)?);
    }
    archive.add("/usr/sbin/confined", CONFINED.as_bytes())?;
    // Where the end-to-end tests expect them: their paths are compiled in.
    let place = |name: &str| contents.programs[name].path.to_string_lossy().into_owned();
    archive.add(&place(DAEMON), DAEMON_CONFINED.as_bytes())?;
    archive.add(&place(TOOL), b"#!/bin/sh\nexec /tests/balancerctl \"$@\"\n")?;
    for library in libraries {
        archive.copy(&library.to_string_lossy(), &library)?;
    }
    archive.finish()?;
    Ok(())
}

/// Boots a kernel with an initramfs, and reads what the plan told. The output stays in `dir`.
pub fn boot(
    step: &mut Step,
    kernel: &Kernel,
    initramfs: &Path,
    dir: &Path,
) -> anyhow::Result<Report> {
    let (console, output) = (dir.join("console"), dir.join("output"));
    let mut attempt = 1;
    loop {
        step.say(&format!("booting {}", kernel.release));
        for file in [&console, &output] {
            fs::write(file, "").with_context(|| format!("cannot write {}", file.display()))?;
        }
        let ended = run::in_step(step, &mut qemu(kernel, initramfs, &console, &output));
        let text = fs::read(&output)?;
        let report = Report::read(&String::from_utf8_lossy(&text));
        if report.release.is_some() || attempt == ATTEMPTS {
            if let Err(error) = ended {
                step.say(&format!("{error:#}"));
            }
            return Ok(report);
        }
        attempt += 1;
    }
}

/// A processor in software: no KVM is asked for. Without `-cx16` some versions of qemu crash some kernels.
fn qemu(kernel: &Kernel, initramfs: &Path, console: &Path, output: &Path) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["--foreground", "--kill-after=5", LIMIT, QEMU])
        .args(["-accel", "tcg", "-cpu", "max,-cx16"])
        .args(["-m", "2048", "-smp", "1"])
        .args(["-display", "none", "-monitor", "none", "-no-reboot"])
        .args(["-nic", "none"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        // A guest's clock stands still while its host does other things, which watchdogs take for a fault.
        .args([
            "-append",
            "console=ttyS0 quiet panic=-1 nowatchdog rcupdate.rcu_cpu_stall_suppress=1",
        ])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-serial")
        .arg(format!("file:{}", output.display()));
    command
}

/// Whether this machine has what a guest takes.
pub fn check_tools() -> anyhow::Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the guests are x86-64, this machine is not"
    );
    for name in TOOLS.iter().chain(&[QEMU, "timeout", "ldd", "strip", "xz"]) {
        ensure!(programs::tool(name).is_some(), "{name} is missing");
    }
    Ok(())
}
