//! The two CPUs that races take.

use std::thread;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Does something on CPU 0 and on CPU 1, at the same time. Gives what came of it on each.
pub fn on_both<T: Send>(work: impl Fn(usize) -> T + Sync) -> [T; 2] {
    thread::scope(|scope| {
        let threads = [0, 1].map(|cpu| {
            let work = &work;
            scope.spawn(move || {
                let mut cpus = CpuSet::new();
                cpus.set(cpu).unwrap();
                sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
                work(cpu)
            })
        });
        threads.map(|thread| thread.join().unwrap())
    })
}
