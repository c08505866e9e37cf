//! Processes in a lab: each with a process group of its own, its output in files, and an end that is certain.

use std::{
    fmt, fs,
    fs::File,
    io::{Read, Seek, SeekFrom},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use nix::{
    sys::{
        signal::{Signal, kill, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};

use crate::{Error, Result, error::Context, eventually_some, lab::Shared};

/// How long a process may take to end after SIGTERM, before SIGKILL.
const GRACE: Duration = Duration::from_secs(3);
const AFTER_KILL: Duration = Duration::from_secs(5);
/// How much of a process's output an error shows.
const SHOWN_LINES: usize = 40;

/// What a checked command wrote.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// A process in a host's namespace. Dropped, it is ended (SIGTERM, then SIGKILL, to its whole group) and reaped.
///
/// When a test panics, the drop prints the end of the process's output.
pub struct Process {
    running: Arc<Running>,
}

/// The part of a process that the lab holds too, to end it when the lab is dropped first.
pub(crate) struct Running {
    what: String,
    pid: Pid,
    reaper: Mutex<Reaper>,
    stdout: PathBuf,
    stderr: PathBuf,
    /// Where `wait_for_line` begins in each of the two files.
    mark: Mutex<[u64; 2]>,
}

/// While `status` is empty the process is not reaped, and its number names it and its group alone.
struct Reaper {
    child: Child,
    status: Option<ExitStatus>,
}

impl Process {
    pub(crate) fn spawn(shared: &Shared, host: &str, mut command: Command) -> Result<Self> {
        let program = Path::new(command.get_program());
        let program = program.file_name().unwrap_or(program.as_os_str());
        let stem = format!("{host}-{}-{}", program.to_string_lossy(), shared.number());
        let stdout = shared.directory().join(format!("{stem}.out"));
        let stderr = shared.directory().join(format!("{stem}.err"));
        let arguments: Vec<_> = command
            .get_args()
            .map(|arg| arg.to_string_lossy())
            .collect();
        let what = format!(
            "{host}: {} {}",
            command.get_program().to_string_lossy(),
            arguments.join(" ")
        );
        let create = |path: &Path| File::create(path).context(|| path.display().to_string());
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(create(&stdout)?)
            .stderr(create(&stderr)?)
            .spawn()
            .context(|| what.clone())?;
        let running = Arc::new(Running {
            what,
            pid: Pid::from_raw(child.id().cast_signed()),
            reaper: Mutex::new(Reaper {
                child,
                status: None,
            }),
            stdout,
            stderr,
            mark: Mutex::default(),
        });
        shared.remember(&running);
        Ok(Self { running })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid.as_raw().cast_unsigned()
    }

    /// Sends a signal to the process itself, not to its group.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        let mut reaper = lock(&self.running.reaper);
        if self.running.exited(&mut reaper)?.is_some() {
            return Err(Error::Invalid(format!(
                "{}: ended already",
                self.running.what
            )));
        }
        kill(self.running.pid, signal).context(|| format!("{signal} to {}", self.running.what))
    }

    /// How it ended, or nothing while it runs.
    pub fn status(&self) -> Result<Option<ExitStatus>> {
        self.running.exited(&mut lock(&self.running.reaper))
    }

    /// Waits for it to end by itself.
    pub fn wait(&self, timeout: Duration) -> Result<ExitStatus> {
        eventually_some("", timeout, || self.status().transpose())
            .map_err(|_| self.timed_out("to end", timeout))?
    }

    /// Ends it as the drop does, and tells how it ended.
    pub fn stop(&self) -> Result<ExitStatus> {
        self.running.stop()
    }

    /// What it has written to its standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        read_from(&self.running.stdout, 0)
    }

    /// What it has written to its standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        read_from(&self.running.stderr, 0)
    }

    /// Lets the next `wait_for_line` see only what is written from now on.
    pub fn mark(&self) {
        let length = |path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        *lock(&self.running.mark) = [length(&self.running.stdout), length(&self.running.stderr)];
    }

    /// Waits for a whole line with `pattern` in it, on either stream, written since the last `mark` (or the start), and returns it.
    ///
    /// Fails at once when the process ends without such a line.
    pub fn wait_for_line(&self, pattern: &str, timeout: Duration) -> Result<String> {
        let [stdout, stderr] = *lock(&self.running.mark);
        eventually_some("", timeout, || {
            // Asked before the files are read: what an ended process wrote is all there.
            let ended = self.status();
            let line = find_line(&self.running.stdout, stdout, pattern)
                .or_else(|| find_line(&self.running.stderr, stderr, pattern));
            match (line, ended) {
                (Some(line), _) => Some(Ok(line)),
                (None, Ok(None)) => None,
                (None, Ok(Some(status))) => Some(Err(Error::Command {
                    command: format!("{}: ended without a line {pattern:?}", self.running.what),
                    status,
                    output: self.running.end_of_output(),
                })),
                (None, Err(error)) => Some(Err(error)),
            }
        })
        .map_err(|_| self.timed_out(&format!("a line {pattern:?}"), timeout))?
    }

    /// Waits for the end and checks the status.
    pub(crate) fn finish(&self, timeout: Duration) -> Result<Output> {
        let status = self.wait(timeout)?;
        let output = Output {
            stdout: self.stdout(),
            stderr: self.stderr(),
        };
        if status.success() {
            return Ok(output);
        }
        Err(Error::Command {
            command: self.running.what.clone(),
            status,
            output: format!("{}{}", output.stderr, output.stdout),
        })
    }

    fn timed_out(&self, what: &str, within: Duration) -> Error {
        Error::TimedOut {
            what: format!("{}: {what}", self.running.what),
            within,
            output: self.running.end_of_output(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let stopped = self.running.stop();
        if thread::panicking() {
            eprintln!("{}\n{}", self.running.what, self.running.end_of_output());
        }
        if let Err(error) = stopped {
            eprintln!("{error}");
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} (pid {})",
            self.running.what, self.running.pid
        )
    }
}

impl Running {
    /// How it ended; reaps it when it has, and ends what is left of its group.
    fn exited(&self, reaper: &mut Reaper) -> Result<Option<ExitStatus>> {
        if reaper.status.is_none() && !self.is_running()? {
            let _ = killpg(self.pid, Signal::SIGKILL);
            reaper.status = Some(reaper.child.wait().context(|| self.what.clone())?);
        }
        Ok(reaper.status)
    }

    /// Whether it has not ended yet. It is not reaped here, so that its group can still be named.
    fn is_running(&self) -> Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let status = waitid(Id::Pid(self.pid), flags).context(|| self.what.clone())?;
        Ok(status == WaitStatus::StillAlive)
    }

    pub(crate) fn stop(&self) -> Result<ExitStatus> {
        for (signal, patience) in [(Signal::SIGTERM, GRACE), (Signal::SIGKILL, AFTER_KILL)] {
            {
                let mut reaper = lock(&self.reaper);
                if let Some(status) = self.exited(&mut reaper)? {
                    return Ok(status);
                }
                killpg(self.pid, signal).context(|| format!("{signal} to {}", self.what))?;
            }
            let ended = eventually_some("", patience, || {
                self.exited(&mut lock(&self.reaper)).transpose()
            });
            if let Ok(status) = ended {
                return status;
            }
        }
        Err(Error::Invalid(format!("{}: outlives SIGKILL", self.what)))
    }

    fn end_of_output(&self) -> String {
        let mut shown = String::new();
        for (name, path) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let text = read_from(path, 0);
            let lines: Vec<_> = text.lines().collect();
            let skipped = lines.len().saturating_sub(SHOWN_LINES);
            for line in &lines[skipped..] {
                shown.extend([
                    "  ", name, ": ", line, "
",
                ]);
            }
        }
        shown
    }
}

/// A poisoned lock is no reason to leave processes behind.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_from(path: &Path, start: u64) -> String {
    let mut bytes = Vec::new();
    // A file that is gone with its lab is an empty one.
    if let Ok(mut file) = File::open(path)
        && file.seek(SeekFrom::Start(start)).is_ok()
    {
        let _ = file.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn find_line(path: &Path, start: u64, pattern: &str) -> Option<String> {
    let text = read_from(path, start);
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .find(|line| line.contains(pattern))
        .map(|line| line.trim_end().to_owned())
}

/// Whether a process was ended by `signal`.
#[must_use]
pub fn killed_by(status: ExitStatus, signal: Signal) -> bool {
    status.signal() == Some(signal as i32)
}
