//! The operator's side: blocking, one request at a time.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use nix::unistd::Gid;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::peer::GroupName;
use super::protocol::Request;

/// How long the client waits for the daemon to take a connection or a request, and for each piece of an answer.
pub const TIMEOUT: Duration = Duration::from_mins(1);

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    timeout: Duration,
}

/// Why there is no answer, or which.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "balancerd is not running (no one answers on {0}): start it with `balancerd --config FILE`"
    )]
    NotRunning(PathBuf),
    /// The file's mode, or that of a directory above it, forbids it.
    #[error("permission denied on {path}: run as root{}", member(*group))]
    PermissionDenied {
        /// The socket.
        path: PathBuf,
        /// The group that may, where it can be seen.
        group: Option<GroupName>,
    },
    /// The daemon is there and does not answer.
    #[error("balancerd did not answer on {path} within {} seconds", waited.as_secs())]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// How long.
        waited: Duration,
    },
    /// The daemon ended, or closed the connection, before the end of its answer.
    #[error("balancerd closed the connection on {0} without an answer")]
    Closed(PathBuf),
    /// The daemon answered an error.
    #[error("{0}")]
    Daemon(String),
    /// What answered does not speak this protocol, or a version of it that is not known here.
    #[error("the answer on {path} cannot be read: {source}")]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Any other failure.
    #[error("cannot talk to balancerd on {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

fn member(group: Option<GroupName>) -> String {
    group.map_or_else(String::new, |group| {
        format!(" or as a member of group {group}")
    })
}

/// An answer that is not an error: as the daemon wrote it, and to be read as a document.
#[derive(Debug)]
pub struct Reply {
    text: String,
    path: PathBuf,
}

impl Reply {
    /// The document as the daemon wrote it, on one line, without a newline. It may have fields this program does not know.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Reads the document.
    ///
    /// # Errors
    /// [`ClientError::Answer`] when it is another one, or of another version.
    pub fn document<D: DeserializeOwned>(&self) -> Result<D, ClientError> {
        serde_json::from_str(&self.text).map_err(|source| ClientError::Answer {
            path: self.path.clone(),
            source,
        })
    }
}

impl Client {
    /// Connects to the daemon that listens on `path`.
    ///
    /// # Errors
    /// [`ClientError`]; it says what to do.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        Self::connect_within(path, TIMEOUT)
    }

    /// As [`connect`](Self::connect), with another time-out than [`TIMEOUT`].
    ///
    /// # Errors
    /// [`ClientError`]; it says what to do.
    pub fn connect_within(path: &Path, timeout: Duration) -> Result<Self, ClientError> {
        let failed = |errno: Errno| connect_error(path, timeout, errno);
        let address = UnixAddr::new(path).map_err(failed)?;
        let socket = socket::socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .map_err(failed)?;
        // The send time-out also bounds `connect`, which waits while the daemon's backlog is full.
        let time = TimeVal::new(
            timeout.as_secs().try_into().unwrap_or(i64::MAX),
            timeout.subsec_micros().into(),
        );
        setsockopt(&socket, sockopt::SendTimeout, &time).map_err(failed)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &time).map_err(failed)?;
        socket::connect(socket.as_raw_fd(), &address).map_err(failed)?;
        Ok(Self {
            stream: BufReader::new(UnixStream::from(socket)),
            path: path.to_owned(),
            timeout,
        })
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// [`ClientError::Daemon`] when the daemon answers an error, else what went wrong on the way.
    pub fn call(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let mut line = serde_json::to_vec(request).map_err(|error| self.error(error.into()))?;
        line.push(b'\n');
        let sent = self.stream.get_mut().write_all(&line);
        let mut answer = Vec::new();
        let received = self.stream.read_until(b'\n', &mut answer);
        // A daemon that turned the client away has closed the connection, so that sending fails, but has told why: its
        // line is worth more than what the kernel says.
        if answer.pop() != Some(b'\n') {
            sent.and(received).map_err(|error| self.error(error))?;
            return Err(ClientError::Closed(self.path.clone()));
        }
        let text =
            String::from_utf8(answer).map_err(|error| self.error(io::Error::other(error)))?;
        let error: MaybeError =
            serde_json::from_str(&text).map_err(|source| ClientError::Answer {
                path: self.path.clone(),
                source,
            })?;
        match error.error {
            Some(error) => Err(ClientError::Daemon(error)),
            None => Ok(Reply {
                text,
                path: self.path.clone(),
            }),
        }
    }

    fn error(&self, source: io::Error) -> ClientError {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, WouldBlock};
        let path = self.path.clone();
        match source.kind() {
            WouldBlock | TimedOut => ClientError::TimedOut {
                path,
                waited: self.timeout,
            },
            BrokenPipe | ConnectionReset => ClientError::Closed(path),
            _ => ClientError::Io { path, source },
        }
    }
}

/// Whatever the document, at its top there is `error` or not.
#[derive(Deserialize)]
struct MaybeError {
    error: Option<String>,
}

fn connect_error(path: &Path, timeout: Duration, errno: Errno) -> ClientError {
    let path = path.to_owned();
    match errno {
        Errno::ENOENT | Errno::ECONNREFUSED => ClientError::NotRunning(path),
        Errno::EACCES | Errno::EPERM => {
            let group = path
                .symlink_metadata()
                .ok()
                .map(|file| GroupName(Gid::from_raw(file.gid())));
            ClientError::PermissionDenied { path, group }
        }
        Errno::EAGAIN => ClientError::TimedOut {
            path,
            waited: timeout,
        },
        errno => ClientError::Io {
            path,
            source: errno.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::control::document::{DropsDocument, FlushDocument};

    const SHORT: Duration = Duration::from_millis(50);

    /// What a daemon that reads one line, writes `answer` and closes makes of a call.
    fn call(answer: &'static str) -> Result<Reply, ClientError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let (stream, _) = listener.accept().unwrap();
                let mut stream = BufReader::new(stream);
                stream.read_until(b'\n', &mut Vec::new()).unwrap();
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
            });
            Client::connect(&path).unwrap().call(&Request::Drops {})
        })
    }

    #[test]
    fn an_answer_keeps_what_this_program_does_not_know() {
        let text = r#"{"version":1,"drops":{"bad_checksum":3},"since":"boot"}"#;
        let reply =
            call("{\"version\":1,\"drops\":{\"bad_checksum\":3},\"since\":\"boot\"}\n").unwrap();
        assert_eq!(reply.text(), text);
        assert_eq!(
            reply.document::<DropsDocument>().unwrap().drops["bad_checksum"],
            3
        );
        assert!(reply.document::<FlushDocument>().is_err());
    }

    #[test]
    fn every_bad_answer_has_its_error() {
        let cases = [
            (
                "an error",
                "{\"version\":1,\"error\":\"no service\"}\n",
                "no service",
            ),
            ("nothing", "", "without an answer"),
            ("half an answer", "{\"version\":1", "without an answer"),
            ("not JSON", "220 smtp ready\n", "cannot be read"),
        ];
        for (what, answer, expected) in cases {
            let error = call(answer).unwrap_err().to_string();
            assert!(error.contains(expected), "{what}: {error}");
        }
    }

    #[test]
    fn another_version_is_named() {
        let reply = call("{\"version\":2,\"drops\":{}}\n").unwrap();
        let error = reply.document::<DropsDocument>().unwrap_err().to_string();
        assert!(
            error.contains("version 2, this program reads version 1"),
            "{error}"
        );
    }

    #[test]
    fn a_line_sent_before_closing_is_read_though_the_request_was_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mut client = Client::connect(&path).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .write_all(b"{\"version\":1,\"error\":\"go away\"}\n")
            .unwrap();
        drop(stream);
        let error = client.call(&Request::Status {}).unwrap_err();
        assert!(
            matches!(&error, ClientError::Daemon(text) if text == "go away"),
            "{error}"
        );
    }

    #[test]
    fn nobody_there_is_not_running() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let expected = format!(
            "balancerd is not running (no one answers on {}): start it with `balancerd --config FILE`",
            path.display()
        );
        assert_eq!(
            Client::connect(&path).unwrap_err().to_string(),
            expected,
            "no file"
        );
        drop(UnixListener::bind(&path).unwrap());
        assert_eq!(
            Client::connect(&path).unwrap_err().to_string(),
            expected,
            "a stale file"
        );
    }

    #[test]
    fn a_daemon_that_hangs_is_not_waited_for_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mut client = Client::connect_within(&path, SHORT).unwrap();
        let error = client.call(&Request::Status {}).unwrap_err();
        assert!(
            matches!(error, ClientError::TimedOut { .. }),
            "no answer: {error}"
        );

        socket::listen(&listener, socket::Backlog::new(0).unwrap()).unwrap();
        let error = Client::connect_within(&path, SHORT).unwrap_err();
        assert!(
            matches!(error, ClientError::TimedOut { .. }),
            "backlog full: {error}"
        );
    }
}
