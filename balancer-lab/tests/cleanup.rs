//! Nothing of a lab is left: not after its drop, not after a panic, not after its process was killed.

#![allow(clippy::unwrap_used, reason = "a test that unwraps in vain has failed")]

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::process::CommandExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use balancer_lab::{Error, HttpServer, Lab, Nginx, Signal, WebConfig, eventually, killed_by};

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(10);
/// Tells this program's copy which lab to leave behind.
const ABANDON: &str = "BALANCER_LAB_ABANDON";

fn names_in(directory: &Path, prefix: &str) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return BTreeSet::new();
    };
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// What there is of a lab: its namespaces and its directory.
fn remains(prefix: &str) -> BTreeSet<String> {
    let mut remains = names_in(Path::new("/run/netns"), prefix);
    remains.extend(names_in(&env::temp_dir(), prefix));
    remains
}

/// Whether a process runs. One that has ended and waits to be reaped by a parent that is not ours does not.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// A lab with a host, a process that ends when asked, one that does not, and one that has left its group.
fn populate(lab: &Lab) -> (Vec<balancer_lab::Process>, Vec<u32>) {
    let host = lab.host("host").unwrap();
    let obedient = host.spawn("sleep", ["1000"]).unwrap();
    let script =
        "trap '' TERM; sleep 1000 & setsid -f sleep 1000; echo ready; while :; do wait; done";
    let stubborn = host.spawn("sh", ["-c", script]).unwrap();
    stubborn.wait_for_line("ready", LONG).unwrap();
    let mut pids = Vec::new();
    eventually("all processes to be there", SECOND, || {
        let shown = host
            .run("ip", ["netns", "pids", host.namespace()])
            .unwrap()
            .stdout;
        pids = shown
            .lines()
            .map(|line| line.trim().parse().unwrap())
            .filter(|pid| is_sleep_or_shell(*pid))
            .collect();
        pids.len() == 4
    })
    .unwrap();
    assert!(pids.contains(&obedient.pid()) && pids.contains(&stubborn.pid()));
    (vec![obedient, stubborn], pids)
}

fn is_sleep_or_shell(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    ["sleep\n", "sh\n"].contains(&name.as_str())
}

#[test]
fn nothing_is_left_after_a_drop() {
    let Some(lab) = Lab::for_test("drop") else {
        return;
    };
    let prefix = lab.prefix().to_owned();
    let (processes, pids) = populate(&lab);
    assert_eq!(remains(&prefix).len(), 2);
    // The lab goes first, on purpose: it ends processes that are still held.
    drop(lab);
    assert_eq!(remains(&prefix), BTreeSet::new());
    for pid in pids {
        assert!(!is_alive(pid), "process {pid}");
    }
    assert!(killed_by(processes[0].stop().unwrap(), Signal::SIGTERM));
    assert!(killed_by(processes[1].stop().unwrap(), Signal::SIGKILL));
}

#[test]
fn nothing_is_left_after_a_panic() {
    if Lab::for_test("panic").is_none() {
        return;
    }
    let (tell, told) = mpsc::channel();
    let test = thread::spawn(move || {
        let lab = Lab::new("panic").unwrap();
        let (_processes, pids) = populate(&lab);
        tell.send((lab.prefix().to_owned(), pids)).unwrap();
        panic!("on purpose");
    });
    let (prefix, pids) = told.recv().unwrap();
    test.join().unwrap_err();
    assert_eq!(remains(&prefix), BTreeSet::new());
    for pid in pids {
        assert!(!is_alive(pid), "process {pid}");
    }
}

#[test]
fn a_host_of_a_gone_lab_is_an_error() {
    let Some(lab) = Lab::for_test("gone") else {
        return;
    };
    let host = lab.host("host").unwrap();
    drop(lab);
    host.enter(|| ()).unwrap_err();
    host.command("true").unwrap_err();
}

/// Not a test by itself: the sweep's test runs it in a process of its own, and kills that.
#[test]
fn abandon_a_lab() {
    if env::var_os(ABANDON).is_none() {
        return;
    }
    let lab = Lab::new("abandoned").unwrap();
    let (_processes, pids) = populate(&lab);
    println!("PREFIX {}", lab.prefix());
    println!("PIDS {pids:?}");
    println!("READY");
    // An end of a scoped thread may have left a wake-up behind.
    loop {
        thread::park();
    }
}

#[test]
fn what_a_killed_process_has_left_is_swept() {
    let Some(lab) = Lab::for_test("sweeper") else {
        return;
    };
    let host = lab.host("host").unwrap();
    let mut command = host.command(env::current_exe().unwrap()).unwrap();
    command
        .args(["--exact", "abandon_a_lab", "--nocapture"])
        .env(ABANDON, "1");
    let child = host.spawn_command(command).unwrap();
    child.wait_for_line("READY", LONG).unwrap();
    let value = |name: &str| {
        let line = child.wait_for_line(name, SECOND).unwrap();
        line.split_once(name).unwrap().1.trim().to_owned()
    };
    let prefix = value("PREFIX ");
    let pids: Vec<u32> = value("PIDS ")
        .trim_matches(['[', ']'])
        .split(", ")
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert_eq!(pids.len(), 4);
    let left = remains(&prefix);
    assert_eq!(left.len(), 2);

    // While its process lives nobody touches it.
    Lab::sweep_stale().unwrap();
    assert_eq!(remains(&prefix), left);
    for pid in &pids {
        assert!(is_alive(*pid), "process {pid}");
    }

    child.kill(Signal::SIGKILL).unwrap();
    assert!(killed_by(child.wait(LONG).unwrap(), Signal::SIGKILL));
    assert_eq!(remains(&prefix), left);
    // Another process that starts a lab at this moment may be quicker.
    let swept: BTreeSet<_> = Lab::sweep_stale().unwrap().into_iter().collect();
    assert_eq!(remains(&prefix), BTreeSet::new());
    assert!(
        swept.is_superset(&left) || swept.is_disjoint(&left),
        "{swept:?}"
    );
    eventually("the orphans to be gone", LONG, || {
        pids.iter().all(|pid| !is_alive(*pid))
    })
    .unwrap();
}

#[test]
fn a_directory_that_only_looks_like_a_lab_is_left_alone() {
    if Lab::for_test("lookalike").is_none() {
        return;
    }
    // The largest number that Linux gives to a process is 4194304.
    let file = env::temp_dir().join("bl-4194305-0-file");
    let link = env::temp_dir().join("bl-4194305-0-link");
    let target = tempfile::tempdir().unwrap();
    // Of a run that failed.
    let _ = (fs::remove_file(&file), fs::remove_file(&link));
    fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink(target.path(), &link).unwrap();
    Lab::sweep_stale().unwrap();
    let kept = file.exists() && link.is_symlink() && target.path().exists();
    fs::remove_file(file).unwrap();
    fs::remove_file(link).unwrap();
    assert!(kept);
}

#[test]
fn a_failed_command_tells_what_it_wrote() {
    let Some(lab) = Lab::for_test("command") else {
        return;
    };
    let host = lab.host("host").unwrap();
    let error = host
        .run("sh", ["-c", "echo out; echo err >&2; exit 3"])
        .unwrap_err();
    assert!(matches!(error, Error::Command { .. }));
    let text = error.to_string();
    for part in ["host: sh -c", "exit status: 3", "out\n", "err\n"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let error = host.ip("link set dev eth7 up").unwrap_err().to_string();
    assert!(error.contains("eth7"), "{error}");
    host.run("no-such-program", [""; 0]).unwrap_err();
}

#[test]
fn lines_are_waited_for() {
    let Some(lab) = Lab::for_test("lines") else {
        return;
    };
    let host = lab.host("host").unwrap();
    let script = "trap 'echo again >&2' HUP; echo first; while :; do sleep 0.01; done";
    let process = host.spawn("sh", ["-c", script]).unwrap();
    assert_eq!(process.wait_for_line("irs", LONG).unwrap(), "first");
    process.kill(Signal::SIGHUP).unwrap();
    assert_eq!(process.wait_for_line("again", LONG).unwrap(), "again");
    process.mark();
    let error = process
        .wait_for_line("again", Duration::from_millis(50))
        .unwrap_err();
    assert!(error.to_string().contains("stdout: first"), "{error}");
    process.kill(Signal::SIGHUP).unwrap();
    process.wait_for_line("again", LONG).unwrap();
    assert!(killed_by(process.stop().unwrap(), Signal::SIGTERM));
    // A process that has ended is not waited for.
    let start = Instant::now();
    process.wait_for_line("never", LONG).unwrap_err();
    assert!(start.elapsed() < SECOND);
    process.kill(Signal::SIGHUP).unwrap_err();
}

#[test]
fn a_lab_is_made_quickly() {
    let Some(warm) = Lab::for_test("warm") else {
        return;
    };
    drop(warm);
    let start = Instant::now();
    let lab = Lab::new("quick").unwrap();
    let names = ["client", "lb", "b1", "b2", "b3"];
    let [client, balancer, backends @ ..] = names.map(|name| lab.host(name).unwrap());
    lab.link(&client, "eth0", &balancer, "eth0").unwrap();
    let ports = [&balancer, &backends[0], &backends[1], &backends[2]];
    lab.switch(
        "lan",
        &ports.map(|host| (host, if host.name() == "lb" { "eth1" } else { "eth0" })),
    )
    .unwrap();
    for (number, host) in backends.iter().enumerate() {
        host.address("eth0", &format!("10.0.0.{}/24", number + 1))
            .unwrap();
        host.default_route("10.0.0.254").unwrap();
    }
    let up = start.elapsed();
    let start = Instant::now();
    let embedded = HttpServer::start(&backends[0], WebConfig::default()).unwrap();
    let embedded_up = start.elapsed();
    drop(embedded);
    let start = Instant::now();
    let nginx =
        Nginx::installed().then(|| Nginx::start(&backends[0], &WebConfig::default()).unwrap());
    let nginx_up = start.elapsed();
    let start = Instant::now();
    drop((nginx, lab));
    println!(
        "lab {up:?}, embedded {embedded_up:?}, nginx {nginx_up:?}, drop {:?}",
        start.elapsed()
    );
    // Far above what it takes, for machines that do other things too.
    assert!(up < SECOND && nginx_up < SECOND, "{up:?}, {nginx_up:?}");
}

/// A user without rights gets a reason, and tests that pass.
#[test]
fn without_root_a_lab_says_why_not() {
    if Lab::for_test("root").is_none() {
        return;
    }
    // A copy that anyone may run; the target directory may be closed to others.
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("copy");
    fs::copy(env::current_exe().unwrap(), &copy).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(directory.path(), open).unwrap();
    let run = |required: &str| {
        Command::new(&copy)
            .args([
                "--exact",
                "a_failed_command_tells_what_it_wrote",
                "--nocapture",
            ])
            .env("BALANCER_LAB", required)
            .current_dir("/")
            .stdin(Stdio::null())
            .uid(65534)
            .gid(65534)
            .output()
            .unwrap()
    };
    let output = run("");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("command is left out: network namespaces need root"),
        "{said}"
    );
    assert!(!run("required").status.success());
}

#[test]
fn a_panicking_closure_does_not_harm_the_lab() {
    let Some(lab) = Lab::for_test("harm") else {
        return;
    };
    let prefix = lab.prefix().to_owned();
    let host = lab.host("host").unwrap();
    catch_unwind(AssertUnwindSafe(|| host.enter(|| panic!("on purpose")))).unwrap_err();
    host.run("true", [""; 0]).unwrap();
    drop(lab);
    assert_eq!(remains(&prefix), BTreeSet::new());
}
