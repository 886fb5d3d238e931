//! Connections for the worker on the CPU that received them: over loopback, that of whoever connects.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use core_affinity::CoreId;
use ringwire::{
    Config, Running, on_message,
    tuning::{Assignment, Pinning},
};
use ringwire_peers::Client;

use crate::support::{config, join_in_time};

/// Connections from one CPU.
const COUNT: usize = 20;

/// With a worker on each of these cores.
fn pinned(cores: &[CoreId]) -> Config {
    config()
        .with_io_workers(cores.len())
        .with_pinning(Pinning::Cores(cores.iter().map(|core| core.id).collect()))
}

fn start(
    config: Config,
    address: impl std::fmt::Display,
    sockets: impl IntoIterator<Item = OwnedFd>,
) -> Running {
    let server = ringwire::Server::new(config).listen(address).inherit(sockets);
    server.start(|_| on_message(|ctx, message| ctx.send(message))).expect("it starts")
}

fn counts(server: &Running) -> Vec<u64> {
    server.handle().stats().workers.iter().map(|worker| worker.connections).collect()
}

/// Clients that connect on this core.
fn clients(address: SocketAddr, core: CoreId, count: usize) -> Vec<Client> {
    let connect = move || {
        assert!(core_affinity::set_for_current(core), "{core:?} is one of this process");
        (0..count).map(|_| Client::connect(address)).collect()
    };
    thread::spawn(connect).join().expect("they connect")
}

fn stop(server: Running) {
    server.handle().shutdown(Duration::ZERO);
    join_in_time(server).expect("every worker ends well");
}

#[test]
fn the_worker_on_the_cpu_that_received_a_connection_gets_it() {
    let mut cores = core_affinity::get_core_ids().expect("the cores of this process");
    cores.reverse();
    let server = start(pinned(&cores).with_assignment(Assignment::Cpu), "127.0.0.1:0", []);
    let mut all = Vec::new();
    for (worker, core) in cores.iter().enumerate() {
        all.extend(clients(server.local_addrs()[0], *core, COUNT));
        let expected = (0..cores.len()).map(|at| if at <= worker { COUNT as u64 } else { 0 });
        assert_eq!(counts(&server), expected.collect::<Vec<_>>());
    }
    for client in &mut all {
        client.send("hello");
        assert_eq!(client.text(), "hello");
    }
    assert_eq!(server.handle().stats().total().handed_over, 0, "the kernel has chosen");
    stop(server);
}

/// What a predecessor has told the kernel of its sockets is not in force for one that wants it otherwise.
#[test]
fn inherited_sockets_are_assigned_as_the_successor_says() {
    let mut cores = core_affinity::get_core_ids().expect("the cores of this process");
    let here = cores[0];
    let first = start(pinned(&cores).with_assignment(Assignment::Cpu), "127.0.0.1:0", []);
    let address = first.local_addrs()[0];
    let sockets = first.handle().listeners().expect("they are duplicated");
    stop(first);
    cores.reverse();
    let second = start(pinned(&cores).with_assignment(Assignment::Cpu), address, sockets);
    let some = clients(address, here, COUNT);
    let mut expected = vec![0; cores.len()];
    expected[cores.len() - 1] = COUNT as u64;
    assert_eq!(counts(&second), expected);
    drop(some);
    let sockets = second.handle().listeners().expect("they are duplicated");
    stop(second);
    let third = start(pinned(&cores), address, sockets);
    let _all = clients(address, here, 100);
    assert!(counts(&third).iter().all(|count| *count > 0), "by hash: {:?}", counts(&third));
    stop(third);
}
