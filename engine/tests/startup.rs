//! What a server can be started with, and what it says where it can't.

#![expect(clippy::disallowed_types, reason = "tests own sockets")]

#[expect(dead_code, reason = "the other programs use the rest")]
mod support;

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use ringwire::{
    Backpressure, CloseCode, Config, DriverKind, Error, Running, Sizing,
    tuning::{Assignment, Pinning},
};
use ringwire_peers::{Client, Got, stays_so_for};
use support::{Server, config, ms, wait_until};

fn start(config: Config, address: &str) -> Result<Running, Error> {
    ringwire::Server::new(config).listen(address).start(|_| ringwire::on_message(|_, _| {}))
}

/// Why a server with these settings does not start.
fn refusal(config: Config, address: &str) -> Error {
    match start(config, address) {
        Err(error) => error,
        Ok(running) => {
            running.handle().shutdown(Duration::ZERO);
            panic!("it listens on {:?}", running.local_addrs())
        }
    }
}

// Addresses

#[test]
fn several_addresses() {
    let server = Server::start_at(
        config().with_io_workers(2),
        &["127.0.0.1:0", "127.0.0.2:0", "[::1]:0"],
        |app| app,
    );
    let addrs = server.addrs().to_vec();
    assert_eq!(addrs.len(), 3);
    assert_eq!(addrs[1].ip(), IpAddr::from([127, 0, 0, 2]));
    assert_eq!(addrs[2].ip(), IpAddr::from(Ipv6Addr::LOCALHOST));
    for addr in addrs {
        for _ in 0..4 {
            let mut client = Client::connect(addr);
            client.send("hello");
            assert_eq!(client.text(), "hello", "{addr}");
            client.leave();
        }
    }
    assert_eq!(server.stats().accepts, 12);
}

#[test]
fn what_is_no_address_and_port_is_told_so() {
    for address in [
        ":9001",
        "9001",
        "localhost",
        "ws://127.0.0.1:9001",
        "127.0.0.1:",
        "127.0.0.1:99999",
        "[::1]",
        "",
    ] {
        let text = refusal(config(), address).to_string();
        assert!(text.contains("ADDRESS:PORT, such as 127.0.0.1:9001"), "{address}: {text}");
    }
}

#[test]
fn a_name_is_resolved() {
    let server = Server::start_at(config(), &["localhost:0"], |app| app);
    assert!(server.addrs().iter().all(|addr| addr.ip().is_loopback() && addr.port() != 0));
    server.client().leave();
}

#[test]
fn ipv6_peers_are_named() {
    let server = Server::start_at(config(), &["[::1]:0"], |app| {
        app.on_open(|ctx| {
            let _ = ctx.send(ctx.peer_addr().to_string().as_str());
        })
    });
    let mut client = server.client();
    let own = client.stream.local_addr().unwrap();
    assert!(own.is_ipv6());
    assert_eq!(client.text(), own.to_string());
}

#[test]
fn an_unspecified_ipv6_address_takes_ipv4_too() {
    let server = Server::start_at(config(), &["[::]:0"], |app| {
        app.on_open(|ctx| {
            let _ = ctx.send(ctx.peer_addr().to_string().as_str());
        })
    });
    let addr = SocketAddr::from(([127, 0, 0, 1], server.addr().port()));
    let mut client = Client::connect(addr);
    let own = client.stream.local_addr().unwrap();
    assert_eq!(client.next(), Got::Text(own.to_string()), "as an IPv4 address");
}

#[test]
fn an_address_that_cannot_be_had() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = refusal(config().with_listen_timeout(Duration::ZERO), &address);
    assert!(matches!(&error, Error::Listen { address: named, .. } if *named == address));
    let text = error.to_string();
    assert!(text.contains(&address), "{text}");
    assert!(text.contains("another process uses that port"), "{text}");
    assert_eq!(format!("{error:?}"), text, "a main that returns it prints this");
    let text = refusal(config().with_exclusive(false), &address).to_string();
    assert!(text.contains("without SO_REUSEPORT or as another user"), "{text}");

    let text = refusal(config(), "192.0.2.1:0").to_string();
    assert!(text.contains("no interface of this machine"), "{text}");
    for address in ["nowhere", "127.0.0.1", "127.0.0.1:65536", "name.invalid:80"] {
        let error = refusal(config(), address);
        assert!(matches!(&error, Error::Listen { .. }), "{address}: {error:?}");
        assert!(error.to_string().contains(address), "{error}");
    }
}

#[test]
fn a_failed_start_leaves_no_listener_behind() {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = first.local_addr().unwrap().to_string();
    drop(first);
    let error = ringwire::Server::new(config())
        .listen(&address)
        .listen("192.0.2.1:0")
        .start(|_| ringwire::on_message(|_, _| {}))
        .unwrap_err();
    assert!(matches!(error, Error::Listen { .. }));
    TcpListener::bind(address).expect("the port is free again");
}

// Settings

#[test]
fn wrong_settings_are_named() {
    let wrong = [
        ("receive_buffer_len", config().with_receive_buffer_len(0)),
        ("messages_per_turn", config().with_messages_per_turn(0)),
        ("mailbox_len", config().with_mailbox_len(0)),
        ("max_queued_len", config().with_high_water(1 << 20)),
        ("backpressure", config().with_backpressure(Backpressure::Close(CloseCode::NO_STATUS))),
        ("io_workers", config().with_io_workers(100_000)),
        ("pinning", config().with_pinning(Pinning::Cores(Vec::new()))),
        ("pinning", config().with_pinning(Pinning::Cores(vec![9999]))),
        ("busy_poll", config().with_busy_poll(Duration::ZERO)),
        ("napi_busy_poll", config().with_napi_busy_poll(Duration::ZERO)),
        ("napi_prefer_busy_poll", config().with_napi_prefer_busy_poll(true)),
        // It is not pinned.
        ("assignment", config().with_assignment(Assignment::Cpu)),
        ("assignment", config().with_assignment(Assignment::Cpu).with_exclusive(false)),
    ];
    for (name, config) in wrong {
        match refusal(config, "127.0.0.1:0") {
            Error::Setting { setting, problem } => {
                assert!(setting.starts_with(name), "{setting}");
                assert!(!problem.is_empty());
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn workers_where_they_are_wanted() {
    let one_core = core_of_this_process();
    for (pinning, workers) in [
        (Pinning::Cores(vec![one_core]), 1),
        // More workers than cores share them.
        (Pinning::Cores(vec![one_core]), 3),
        (Pinning::Auto, 1),
        (Pinning::Auto, 64),
        (Pinning::Off, 2),
    ] {
        let server = Server::echo(config().with_io_workers(workers).with_pinning(pinning));
        assert_eq!(server.handle().stats().workers.len(), workers);
        let mut client = server.client();
        client.send("hello");
        assert_eq!(client.text(), "hello");
    }
    let server = Server::echo(config().with_io_workers(Sizing::Auto));
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(server.handle().stats().workers.len(), cores, "one for each core");
}

/// The first core that this process may run on (proc(5), Cpus_allowed_list).
fn core_of_this_process() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs is there");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = list.and_then(|list| list.trim().split([',', '-']).next());
    first.and_then(|core| core.parse().ok()).expect("a list of cores")
}

// The limit of connections

#[test]
fn further_clients_wait_until_one_leaves() {
    let server = Server::echo(config().with_max_connections(2));
    let mut first = server.client();
    let second = server.client();
    let mut waiting = ringwire_peers::connect(server.addr());
    std::io::Write::write_all(&mut waiting, ringwire_peers::request().as_bytes()).unwrap();
    waiting.set_read_timeout(Some(ms(200))).unwrap();
    let error = std::io::Read::read(&mut waiting, &mut [0; 64]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "it waits");
    first.send("undisturbed");
    assert_eq!(first.text(), "undisturbed");
    assert_eq!(server.stats().connections, 2);
    second.leave();
    waiting.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut client = Client::await_upgrade(waiting, &ringwire_peers::plain_request());
    client.send("in at last");
    assert_eq!(client.text(), "in at last");
    assert_eq!(server.stats().connections, 2);
}

#[test]
fn a_burst_does_not_pass_the_limit() {
    let server = Server::echo(config().with_max_connections(5));
    // They come while the worker is busy with none of them.
    let streams: Vec<_> = (0..40).map(|_| ringwire_peers::connect(server.addr())).collect();
    wait_until("it is full", || server.stats().connections >= 5);
    stays_so_for(ms(50), "five are connected", || {
        let stats = server.stats();
        (stats.connections, stats.accepts) == (5, 5)
    });
    drop(streams);
    wait_until("all had their turn", || {
        let stats = server.stats();
        stats.accepts == 40 && stats.connections == 0
    });
}

// Drivers

/// Has the kernel refuse io_uring_setup(2) to this thread and those it starts, as sandboxes do (seccomp(2)).
#[expect(unsafe_code, reason = "a seccomp filter is installed by system calls")]
fn forbid_io_uring() {
    const SETUP: u32 = 425;
    let number_of_call = 0;
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let statement = |code: u32, k| instruction(u16::try_from(code).expect("an opcode"), 0, 0, k);
    let is_equal = u16::try_from(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K).expect("an opcode");
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, number_of_call),
        instruction(is_equal, 0, 1, SETUP),
        statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs(),
        ),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the filter outlives the call, which copies it; nothing else is passed by address.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let filter = &raw const program;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, filter), 0);
    }
}

#[test]
fn where_io_uring_is_forbidden() {
    let thread = std::thread::spawn(|| {
        forbid_io_uring();
        let forbidden = refusal(config().with_driver(DriverKind::Uring), "127.0.0.1:0").to_string();
        assert!(forbidden.contains("io_uring") && forbidden.contains("sandbox"), "{forbidden}");
        let running = start(config().with_driver(DriverKind::Auto), "127.0.0.1:0").unwrap();
        assert_eq!(running.driver(), DriverKind::Epoll);
        let client = Client::connect(running.local_addrs()[0]);
        client.leave();
        running.handle().shutdown(ms(1000));
        running.join().unwrap();
    });
    thread.join().unwrap();
}

#[test]
fn the_driver_that_was_asked_for() {
    for kind in [DriverKind::Epoll, DriverKind::Uring] {
        let running = start(config().with_driver(kind), "127.0.0.1:0").unwrap();
        assert_eq!(running.driver(), kind);
        running.handle().shutdown(Duration::ZERO);
        running.join().unwrap();
    }
}
