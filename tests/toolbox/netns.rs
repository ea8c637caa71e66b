//! Connections inside the network namespace of a container, as the daemon opens them.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Calls a function on a separate thread in the network namespace of a process. Sockets that it creates stay in this
/// namespace.
pub fn in_network_of<T: Send>(pid: i64, function: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("the process runs");
    let work = move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter");
        function()
    };
    std::thread::scope(|scope| scope.spawn(work).join()).expect("the function does not panic")
}
