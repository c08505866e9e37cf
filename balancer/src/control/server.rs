//! The daemon's side: connections, one task each, and what each may ask.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::document::{Document, ErrorDocument, Version};
use super::error::ControlError;
use super::listener::ControlListener;
use super::peer::Peer;
use super::protocol::{MAX_REQUEST_BYTES, Request};

/// How long requests at work may take to end once the server is told to stop.
const GRACE: Duration = Duration::from_secs(5);

/// What fulfils requests.
pub trait Handler: Send + Sync + 'static {
    /// Fulfils one request. Requests of several connections come at the same time. One that was begun is not cancelled
    /// when its client goes away.
    fn handle(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Document, ControlError>> + Send;
}

/// What clients may take up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time; one more is told so and closed.
    pub connections: usize,
    /// How long a whole request may take to come, and an answer to be taken.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32,
            idle: Duration::from_mins(1),
        }
    }
}

/// Serves the control socket until `shutdown` is ready; then removes the file, lets requests at work end (five seconds
/// at most), and returns.
///
/// # Errors
/// When the socket cannot be handed to the runtime. What a client does is never an error.
pub async fn serve<H: Handler>(
    listener: ControlListener,
    handler: Arc<H>,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    serve_within(Limits::default(), listener, handler, shutdown).await
}

/// As [`serve`], with other limits than the default ones.
///
/// # Errors
/// As [`serve`].
pub async fn serve_within<H: Handler>(
    limits: Limits,
    listener: ControlListener,
    handler: Arc<H>,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    listener.socket.set_nonblocking(true)?;
    let socket = UnixListener::from_std(listener.socket.try_clone()?)?;
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => log_panic(ended),
            accepted = socket.accept() => match accepted {
                Ok((stream, _)) => match admit(&listener, limits, connections.len(), &stream) {
                    Ok(peer) => {
                        let connection = Connection {
                            stream,
                            peer,
                            handler: Arc::clone(&handler),
                            stopped: stopped.clone(),
                            idle: limits.idle,
                        };
                        connections.spawn(connection.run());
                    }
                    Err(reason) => turn_away(stream, reason),
                },
                Err(error) => {
                    // Out of file descriptors or memory: the connection waits in the backlog until there are some.
                    tracing::warn!(%error, "cannot accept a control connection");
                    sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    drop(socket);
    drop(stop);
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    };
    if timeout(GRACE, all_ended).await.is_err() {
        tracing::warn!("control requests at work were cut off");
    }
    Ok(())
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a control connection ended by a defect");
    }
}

fn admit(
    listener: &ControlListener,
    limits: Limits,
    open: usize,
    stream: &UnixStream,
) -> Result<Peer, String> {
    let peer = listener
        .access()
        .check(stream)
        .map_err(|refused| refused.to_string())?;
    if open >= limits.connections {
        return Err(format!(
            "{open} control connections are open, more are not served"
        ));
    }
    Ok(peer)
}

/// Tells why and closes. The line fits the send buffer of a new socket, so this does not wait.
fn turn_away(stream: UnixStream, reason: String) {
    tracing::warn!(reason, "control connection refused");
    if let Ok(mut stream) = stream.into_std() {
        let _ = send_blocking(&mut stream, reason);
    }
}

fn send_blocking(stream: &mut StdStream, error: String) -> io::Result<()> {
    let mut line = serde_json::to_vec(&ErrorDocument {
        version: Version,
        error,
    })?;
    line.push(b'\n');
    stream.write_all(&line)
}

struct Connection<H> {
    stream: UnixStream,
    peer: Peer,
    handler: Arc<H>,
    /// Closed when the server stops.
    stopped: watch::Receiver<()>,
    idle: Duration,
}

impl<H: Handler> Connection<H> {
    async fn run(mut self) {
        let mut lines = Lines::default();
        loop {
            let line = tokio::select! {
                biased;
                _ = self.stopped.changed() => return,
                line = timeout(self.idle, lines.next(&mut self.stream)) => match line {
                    Ok(Ok(Some(line))) => line,
                    // Idle for too long, gone in the middle of a line, or done: nobody waits for an answer.
                    Err(_) | Ok(Err(_) | Ok(None)) => return,
                },
            };
            let answer = self.answer(line).await;
            match timeout(self.idle, self.stream.write_all(&answer)).await {
                Ok(Ok(())) => {}
                Err(_) | Ok(Err(_)) => return,
            }
        }
    }

    async fn answer(&self, line: Line) -> Vec<u8> {
        let result = match line {
            Line::TooLong => Err(format!(
                "the request is longer than {MAX_REQUEST_BYTES} bytes"
            )),
            Line::Whole(line) => match serde_json::from_slice::<Request>(&line) {
                Err(error) => Err(format!("not a request: {error}")),
                Ok(request) => {
                    self.log(&request);
                    self.handler
                        .handle(request)
                        .await
                        .map_err(|error| error.to_string())
                }
            },
        };
        // A list of all connections is tens of megabytes: not on a thread that serves others.
        let encoded = spawn_blocking(move || match result {
            Ok(document) => serde_json::to_vec(&document),
            Err(error) => serde_json::to_vec(&ErrorDocument {
                version: Version,
                error,
            }),
        });
        let mut answer = match encoded.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => cannot_encode(&error),
            Err(error) => cannot_encode(&error),
        };
        answer.push(b'\n');
        answer
    }

    fn log(&self, request: &Request) {
        let Peer { pid, uid, .. } = self.peer;
        if request.changes_state() {
            tracing::info!(pid, %uid, ?request, "control request");
        } else {
            tracing::debug!(pid, %uid, ?request, "control request");
        }
    }
}

fn cannot_encode(error: &dyn std::error::Error) -> Vec<u8> {
    tracing::error!(%error, "cannot encode the answer to a control request");
    br#"{"version":1,"error":"the answer cannot be encoded; the daemon's log tells more"}"#.to_vec()
}

/// A request line without its newline.
enum Line {
    Whole(Vec<u8>),
    /// Over [`MAX_REQUEST_BYTES`]; read to its end and forgotten.
    TooLong,
}

/// Cuts what comes in into lines, with a bound on what it holds.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    /// Bytes of the buffer that have no newline.
    searched: usize,
    /// In the middle of a line that is too long.
    discarding: bool,
}

impl Lines {
    /// The next line; `None` at the end of the stream. What comes after the last newline is no line.
    async fn next(&mut self, stream: &mut UnixStream) -> io::Result<Option<Line>> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(Some(line));
            }
            // `read_buf` is cancel safe: what it read is in the buffer, or it read nothing.
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn take_line(&mut self) -> Option<Line> {
        let newline = self.buffer[self.searched..]
            .iter()
            .position(|&byte| byte == b'\n');
        let Some(end) = newline.map(|offset| self.searched + offset) else {
            if self.discarding || self.buffer.len() > MAX_REQUEST_BYTES {
                self.discarding = true;
                self.buffer.clear();
            }
            self.searched = self.buffer.len();
            return None;
        };
        let rest = self.buffer.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        line.truncate(end);
        self.searched = 0;
        if std::mem::take(&mut self.discarding) || line.len() > MAX_REQUEST_BYTES {
            return Some(Line::TooLong);
        }
        Some(Line::Whole(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `piece` bytes; a whole line comes as its length, one too long as `None`.
    fn cut(input: &[u8], piece: usize) -> Vec<Option<usize>> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in input.chunks(piece) {
            lines.buffer.extend_from_slice(piece);
            while let Some(line) = lines.take_line() {
                found.push(match line {
                    Line::Whole(line) => Some(line.len()),
                    Line::TooLong => None,
                });
            }
            assert!(
                lines.buffer.len() <= MAX_REQUEST_BYTES,
                "the buffer is bounded"
            );
        }
        found
    }

    #[test]
    fn lines_come_out_whole_however_they_come_in() {
        let longest = [vec![b'x'; MAX_REQUEST_BYTES], b"\n".to_vec()].concat();
        let too_long = [vec![b'x'; MAX_REQUEST_BYTES + 1], b"\n".to_vec()].concat();
        let huge = [vec![b'x'; 5 * MAX_REQUEST_BYTES], b"\nab\n".to_vec()].concat();
        let cases: [(_, &[u8], &[_]); 7] = [
            ("nothing", b"", &[]),
            ("no end", b"abc", &[]),
            ("empty lines", b"\n\n", &[Some(0), Some(0)]),
            ("two and a part", b"a\nbcd\nef", &[Some(1), Some(3)]),
            ("the longest", &longest, &[Some(MAX_REQUEST_BYTES)]),
            ("a byte more", &too_long, &[None]),
            ("one too long, then another", &huge, &[None, Some(2)]),
        ];
        for (what, input, expected) in cases {
            for piece in [1, 7, 8192, usize::MAX] {
                assert_eq!(cut(input, piece), expected, "{what}, in pieces of {piece}");
            }
        }
    }
}
