//! Servers on a thread of their own, in a host's namespace.

use std::{future::Future, io, sync::mpsc, thread};

use tokio::{runtime::Builder, sync::oneshot};

use crate::{Host, Result, error::Context, process::lock};

/// A thread that serves until this is dropped; every socket it has is closed then.
#[derive(Debug)]
pub(crate) struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Runs `bind` in the namespace, inside a tokio runtime, and then the future that it returned.
    pub(crate) fn start<F, S>(host: &Host, what: &str, bind: F) -> Result<Self>
    where
        F: FnOnce() -> io::Result<S> + Send + 'static,
        S: Future<Output = ()> + 'static,
    {
        let entry = host.entry()?;
        let context = format!("{}: {what}", host.name());
        let (ready, bound) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let in_thread = context.clone();
        let thread = thread::Builder::new()
            .name(context.clone())
            .spawn(move || {
                let serve = || -> Result<()> {
                    entry()?;
                    let runtime = Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .context(|| in_thread.clone())?;
                    let serving = {
                        let _inside = runtime.enter();
                        bind().context(|| in_thread.clone())?
                    };
                    // The one who waits for this may have gone, and then stops us too.
                    let _ = ready.send(Ok(()));
                    runtime.block_on(async {
                        tokio::select! {
                            () = serving => {}
                            _ = stopped => {}
                        }
                    });
                    Ok(())
                };
                if let Err(error) = serve() {
                    let _ = ready.send(Err(error));
                }
            })
            .context(|| context.clone())?;
        let server = Self {
            stop: Some(stop),
            thread: Some(thread),
        };
        bound
            .recv()
            .map_err(|_| io::Error::other("the thread panicked"))
            .context(|| context)??;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // A server that has ended by itself hears nothing.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed where it happened.
            let _ = thread.join();
        }
    }
}

/// A number or table that a server's tasks write and a test reads.
pub(crate) type Tally<T> = std::sync::Arc<std::sync::Mutex<T>>;

/// A copy of a tally as it is now.
pub(crate) fn read<T: Clone>(tally: &Tally<T>) -> T {
    lock(tally).clone()
}

/// Listening sockets on every port, for both families.
pub(crate) fn listeners(ports: &[u16]) -> io::Result<Vec<tokio::net::TcpListener>> {
    use socket2::{Domain, Protocol, Type};

    each_family(ports, |domain, address| {
        let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        // A server that was stopped can be started again at once.
        socket.set_reuse_address(true)?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        tokio::net::TcpListener::from_std(socket.into())
    })
}

/// As long as the kernel allows; a burst of connections must not wait for this thread.
const BACKLOG: i32 = 65_535;

/// Calls `open` for both families' wildcard addresses of every port.
pub(crate) fn each_family<T>(
    ports: &[u16],
    mut open: impl FnMut(socket2::Domain, std::net::SocketAddr) -> io::Result<T>,
) -> io::Result<Vec<T>> {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use socket2::Domain;

    let mut sockets = Vec::new();
    for port in ports {
        sockets.push(open(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, *port).into())?);
        sockets.push(open(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, *port).into())?);
    }
    Ok(sockets)
}
