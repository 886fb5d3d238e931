//! Listening on Unix sockets, and on sockets that somebody else made.

#![expect(clippy::disallowed_types, reason = "tests own sockets")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ringwire::client::{self, OwnedMessage};
use ringwire::{
    CloseCode, Config, Error, Handle, Running, on_message, transport::Listener, tuning::Assignment,
};
use ringwire_peers::{free_addr, stays_so_for};
use socket2::SockRef;

use crate::support::{PATIENCE, config, in_time, join_in_time, ms, wait_until};

/// A server that answers with the peer's address and the message.
pub(super) struct Guard(pub(super) Option<Running>, pub(super) Handle);

impl Guard {
    fn start(server: ringwire::Server) -> Self {
        let running = start(server).expect("it starts");
        let handle = running.handle();
        Self(Some(running), handle)
    }

    fn url(&self) -> String {
        self.0.as_ref().and_then(|running| running.urls().next()).expect("it listens")
    }

    fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(running) = self.0.take() {
            self.1.shutdown(Duration::ZERO);
            join_in_time(running).expect("every worker ends well");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end();
    }
}

fn start(server: ringwire::Server) -> Result<Running, Error> {
    server.start(|_| {
        on_message(|ctx, message| {
            let text =
                format!("{} {}", ctx.peer_addr(), String::from_utf8_lossy(message.as_bytes()));
            let _ = ctx.send(text.as_str());
        })
    })
}

pub(super) fn open(url: &str) -> client::Client {
    let url = url.to_owned();
    in_time("a client connects", move || client::connect(&url).expect("it connects"))
}

/// What comes back.
fn echo(client: &mut client::Client, text: &str) -> String {
    client.send_text(text).expect("it is connected");
    match client.receive().expect("it answers") {
        Some(OwnedMessage::Text(text)) => text,
        other => panic!("it sends {other:?}"),
    }
}

fn path(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("server.sock")
}

fn refusal(path: &Path) -> String {
    start(ringwire::Server::new(impatient()).listen_unix(path))
        .expect_err("it is refused")
        .to_string()
}

// Unix sockets

#[test]
fn a_unix_socket_is_served_by_all_workers() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(&dir);
    let server = ringwire::Server::new(config().with_io_workers(3))
        .listen_with(Listener::unix(&path).with_mode(0o622))
        .listen("127.0.0.1:0");
    let server = Guard::start(server);
    assert_eq!(server.url(), format!("ws+unix:{}", path.display()));
    let file = fs::metadata(&path).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o622);
    let mut clients: Vec<_> = (0..12).map(|_| open(&server.url())).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        let text = format!("hello {index}");
        assert_eq!(echo(client, &text), format!("[::]:0 {text}"), "its peer has no address");
    }
    assert_eq!(server.1.stats().total().accepts, 12);
    let running = server.0.as_ref().expect("it runs");
    assert_eq!(running.local_addrs().len(), 1, "that of TCP");
    server.stop();
    assert!(!path.exists(), "it is removed at the end");
}

#[test]
fn the_least_loaded_worker_has_the_next_connection_of_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let settings = config().with_io_workers(2).with_assignment(Assignment::LeastLoaded);
    let server = Guard::start(ringwire::Server::new(settings).listen_unix(path(&dir)));
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = open(&server.url());
        echo(&mut client, "hello");
        clients.push(client);
    }
    let counts: Vec<_> = server.1.stats().workers.iter().map(|worker| worker.connections).collect();
    assert_eq!(counts, [4, 4]);
}

#[test]
fn a_socket_that_nobody_listens_on_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(&dir);
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "it is left behind");
    let server = Guard::start(ringwire::Server::new(config()).listen_unix(&path));
    assert_eq!(echo(&mut open(&server.url()), "hi"), "[::]:0 hi");
}

#[test]
fn a_path_that_is_taken_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(&dir);
    let taken = UnixListener::bind(&path).unwrap();
    let text = refusal(&path);
    assert!(text.contains("another process listens there"), "{text}");
    assert!(text.contains(&path.display().to_string()), "{text}");
    drop(taken);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "letters").unwrap();
    assert!(refusal(&path).contains("there is another file"));
    assert_eq!(fs::read(&path).unwrap(), b"letters");
    assert!(refusal(&dir.path().join("a".repeat(200))).contains("cannot listen"));
    assert!(refusal(Path::new("/nonexistent/server.sock")).contains("No such file"));
}

#[test]
fn what_has_taken_its_place_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(&dir);
    let first = Guard::start(ringwire::Server::new(config()).listen_unix(&path));
    fs::remove_file(&path).unwrap();
    let second = Guard::start(ringwire::Server::new(config()).listen_unix(&path));
    first.stop();
    assert_eq!(echo(&mut open(&second.url()), "hi"), "[::]:0 hi");
    second.stop();
    assert!(!path.exists());
}

#[test]
fn a_server_that_does_not_start_leaves_no_file_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(&dir);
    let server = ringwire::Server::new(config()).listen_unix(&path).listen("192.0.2.1:0");
    start(server).expect_err("no interface has that address");
    assert!(!path.exists());
}

/// Of servers that find the same file that nobody listens on any more.
#[test]
fn one_of_the_servers_that_start_at_once_has_the_path() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let path = dir.path().join(format!("{round}.sock"));
        drop(UnixListener::bind(&path).unwrap());
        let url = format!("ws+unix:{}", path.display());
        the_only_one(&url, || {
            ringwire::Server::new(config().with_listen_timeout(ms(50))).listen_unix(&path)
        });
    }
}

/// As when it was killed, and the kernel takes a moment to close its sockets.
#[test]
fn a_server_waits_for_another_to_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(&dir);
    let (unix, tcp) =
        (UnixListener::bind(&path).unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = tcp.local_addr().unwrap();
    let start = || {
        let patient = config().with_listen_timeout(PATIENCE);
        ringwire::Server::new(patient).listen_unix(&path).listen(address)
    };
    let server = thread::scope(|scope| {
        let server = scope.spawn(|| Guard::start(start()));
        stays_so_for(ms(100), "it neither fails nor starts", || !server.is_finished());
        drop(unix);
        stays_so_for(ms(100), "the port has to be free too", || !server.is_finished());
        drop(tcp);
        server.join().expect("it starts")
    });
    assert_eq!(echo(&mut open(&server.url()), "hi"), "[::]:0 hi");
}

// Ports

/// A server at this address, with these settings.
fn at(address: impl std::fmt::Display, settings: Config) -> ringwire::Server {
    ringwire::Server::new(settings).listen(address)
}

/// Settings of a server that does not wait for others to go.
fn impatient() -> Config {
    config().with_listen_timeout(Duration::ZERO)
}

/// Starts eight servers at once, of which one has `url`.
fn the_only_one(url: &str, server: impl Fn() -> ringwire::Server + Sync) {
    let outcomes: Vec<_> = thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| start(server()))).collect();
        starts.into_iter().map(|start| start.join().expect("it does not panic")).collect()
    });
    let mut running = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(one) => {
                let handle = one.handle();
                running.push(Guard(Some(one), handle));
            }
            Err(error) => assert!(error.to_string().contains("another process"), "{error}"),
        }
    }
    assert_eq!(running.len(), 1, "{url}");
    assert!(echo(&mut open(url), "hi").ends_with(" hi"), "{url}");
}

/// bind(2) and listen(2) say EADDRINUSE, also where one address has the other in it (ip(7), INADDR_ANY; ipv6(7)).
#[test]
fn a_port_that_another_server_has_is_refused() {
    let places = ["127.0.0.1", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]"];
    for taken in places {
        let server = Guard::start(at(format!("{taken}:0"), config()));
        let port = server.0.as_ref().expect("it runs").local_addrs()[0].port();
        for wanted in places {
            let address = format!("{wanted}:{port}");
            for settings in [impatient(), impatient().with_io_workers(2)] {
                let error = start(at(&address, settings)).expect_err("it is refused").to_string();
                assert!(error.contains("another process uses that port"), "{taken} {error}");
                assert!(error.contains("exclusive = false"), "{error}");
            }
        }
        // An address that does not overlap is free.
        if !["0.0.0.0", "[::]"].contains(&taken) {
            Guard::start(at(format!("127.0.0.2:{port}"), impatient())).stop();
        }
    }
}

#[test]
fn one_of_the_servers_that_start_at_once_has_the_port() {
    for round in 0..10 {
        let address = format!("127.0.0.1:{}", free_addr().port());
        let workers = 1 + round % 3;
        the_only_one(&format!("ws://{address}"), || {
            at(&address, config().with_io_workers(workers).with_listen_timeout(ms(250)))
        });
    }
}

#[test]
fn servers_share_a_port_if_all_of_them_say_so() {
    let sharing = || impatient().with_exclusive(false);
    let first = Guard::start(at("127.0.0.1:0", sharing()));
    let address = first.url()[5..].to_owned();
    let second = Guard::start(at(&address, sharing()));
    start(at(&address, impatient())).expect_err("it would be alone");
    // The kernel chooses by a hash of the addresses.
    let both = || [&first, &second].iter().all(|server| server.1.stats().total().accepts > 0);
    for _ in 0..100 {
        echo(&mut open(&first.url()), "hi");
        if both() {
            return;
        }
    }
    panic!("one of them has all of 100 connections");
}

/// All but the first have SO_REUSEPORT from the beginning, the first from when it listens.
#[test]
fn the_workers_of_an_exclusive_server_share_its_port() {
    let server = Guard::start(at("127.0.0.1:0", config().with_io_workers(4)));
    for _ in 0..200 {
        echo(&mut open(&server.url()), "hi");
        if server.1.stats().workers.iter().all(|worker| worker.accepts > 0) {
            return;
        }
    }
    panic!("a worker has none of 200 connections");
}

/// In whatever order.
#[test]
fn a_server_listens_at_addresses_that_overlap() {
    let port = free_addr().port();
    let mut places = ["127.0.0.1", "0.0.0.0", "[::]", "[::1]"].map(|ip| format!("{ip}:{port}"));
    for _ in 0..places.len() {
        let server = places
            .iter()
            .fold(ringwire::Server::new(config()), |server, address| server.listen(address));
        let server = Guard::start(server);
        let urls: Vec<_> = server.0.as_ref().expect("it runs").urls().collect();
        assert_eq!(urls, places.each_ref().map(|place| format!("ws://{place}")), "as asked for");
        for place in ["127.0.0.1", "127.0.0.2", "[::1]"] {
            let url = format!("ws://{place}:{port}");
            assert!(echo(&mut open(&url), "hi").ends_with(" hi"), "{url}");
        }
        start(at(format!("127.0.0.3:{port}"), impatient())).expect_err("the server has it");
        server.stop();
        places.rotate_left(1);
    }
}

/// A server that goes on with the sockets of another may have more workers, and listen at an address that has theirs in
/// it.
#[test]
fn a_successor_shares_the_port_that_it_inherits() {
    let mut current = Guard::start(at("127.0.0.1:0", config()));
    let port = current.0.as_ref().expect("it runs").local_addrs()[0].port();
    for address in [format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}")] {
        let server = at(&address, impatient().with_io_workers(3));
        let next = Guard::start(server.inherit(current.1.listeners().unwrap()));
        current.stop();
        assert!(
            echo(&mut open(&next.url().replace("0.0.0.0", "127.0.0.1")), "hi").ends_with(" hi")
        );
        // Without the sockets it is another server as any.
        start(at(&address, impatient())).expect_err("the successor has it");
        current = next;
    }
}

// Sockets of others

#[test]
fn a_socket_that_listens_already_outlives_the_server() {
    let made = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = made.local_addr().unwrap();
    let server = ringwire::Server::new(config().with_io_workers(2));
    let server = Guard::start(server.listen_on(made.try_clone().unwrap()));
    assert_eq!(server.url(), format!("ws://{address}"));
    let mut clients: Vec<_> = (0..6).map(|_| open(&server.url())).collect();
    for client in &mut clients {
        assert!(echo(client, "hi").starts_with("127.0.0.1:"));
    }
    server.stop();
    made.set_nonblocking(false).unwrap();
    let client = TcpStream::connect(address).expect("it still listens");
    let accepted = in_time("it is accepted", move || made.accept().expect("it still listens"));
    assert_eq!(accepted.1, client.local_addr().unwrap());
}

#[test]
fn a_server_goes_on_with_the_socket_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let unix = UnixListener::bind(path(&dir)).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = |workers| {
        let server = ringwire::Server::new(config().with_io_workers(workers));
        let server = server.listen_on(unix.try_clone().unwrap());
        Guard::start(server.listen_on(tcp.try_clone().unwrap()))
    };
    let (first, second) = (server(2), server(1));
    let urls = [second.url(), format!("ws://{}", tcp.local_addr().unwrap())];
    assert_eq!(first.url(), format!("ws+unix:{}", path(&dir).display()));
    first.stop();
    for url in &urls {
        for _ in 0..6 {
            assert!(echo(&mut open(url), "hi").ends_with(" hi"), "{url}");
        }
    }
    assert_eq!(second.1.stats().total().accepts, 12);
    second.stop();
    assert!(path(&dir).exists(), "the file is not the server's");
}

/// Whatever the number of workers: each socket of the predecessor is accepted from, and there are not more each time.
#[test]
fn a_server_inherits_all_sockets_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let server = |workers: usize, sockets: Vec<std::os::fd::OwnedFd>| {
        let server = ringwire::Server::new(config().with_io_workers(workers));
        let server = server.listen("127.0.0.1:0").listen_unix(path(&dir)).listen("127.0.0.1:0");
        Guard::start(server.inherit(sockets))
    };
    let mut current = server(4, Vec::new());
    let urls: Vec<_> = current.0.as_ref().map(|it| it.urls().collect()).expect("it runs");
    let mut most = 4;
    for workers in [1, 3, 6, 4, 5] {
        let sockets = current.1.listeners().unwrap();
        assert_eq!(sockets.len(), 2 * most + 1, "two addresses and a path");
        let next = server(workers, sockets);
        current.stop();
        assert!(path(&dir).exists(), "the file is the successor's");
        assert_eq!(Vec::from_iter(next.0.as_ref().expect("it runs").urls()), urls);
        // The kernel chooses among all sockets, so one that nobody accepts from would be found.
        for url in &urls {
            for _ in 0..20 {
                assert!(echo(&mut open(url), "hi").ends_with(" hi"), "{url}");
            }
        }
        most = most.max(workers);
        current = next;
    }
    current.stop();
    assert!(!path(&dir).exists(), "the last one removes it");
}

/// The port that was left open goes by the order of the addresses, whatever is between them.
#[test]
fn ports_that_were_left_open_keep_their_places_behind_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let server = |sockets: Vec<std::os::fd::OwnedFd>| {
        let server = ringwire::Server::new(config().with_io_workers(1)).listen_unix(path(&dir));
        Guard::start(server.listen("127.0.0.1:0").listen("127.0.0.1:0").inherit(sockets))
    };
    let first = server(Vec::new());
    let addrs = first.0.as_ref().expect("it runs").local_addrs().to_vec();
    let second = server(first.1.listeners().unwrap());
    assert_eq!(second.0.as_ref().expect("it runs").local_addrs(), addrs);
}

/// What a new process that fails has inherited is the old one's still.
#[test]
fn a_successor_that_comes_to_nothing_leaves_the_path() {
    let dir = tempfile::tempdir().unwrap();

    let here = || ringwire::Server::new(config().with_io_workers(2)).listen_unix(path(&dir));
    let mode = || fs::metadata(path(&dir)).unwrap().permissions().mode() & 0o777;
    let server = Guard::start(here());
    let (sockets, before) = (server.1.listeners().unwrap(), mode());
    let other = Listener::unix(path(&dir)).with_mode(0o600);
    let successor = ringwire::Server::new(config()).listen_with(other);
    let error = start(successor.listen_unix("/nowhere/at/all.sock").inherit(sockets));
    assert!(matches!(error, Err(Error::Listen { .. })), "{error:?}");
    assert_eq!(mode(), before);
    let url = server.0.as_ref().and_then(|it| it.urls().next()).expect("it listens");
    assert!(echo(&mut open(&url), "hi").ends_with(" hi"));
    // Nor one that has run for a while.
    Guard::start(here().inherit(server.1.listeners().unwrap())).stop();
    assert!(echo(&mut open(&url), "hi").ends_with(" hi"));
}

#[test]
fn what_is_inherited_is_set_up_anew() {
    let dir = tempfile::tempdir().unwrap();
    let server = |config: Config, mode, sockets: Vec<std::os::fd::OwnedFd>| {
        let unix = Listener::unix(path(&dir)).with_mode(mode);
        Guard::start(
            ringwire::Server::new(config).listen("127.0.0.1:0").listen_with(unix).inherit(sockets),
        )
    };
    let kept = config().with_io_workers(1).with_tcp_keepalive_time(Duration::from_secs(77));
    let first = server(kept, 0o666, Vec::new());
    let second = config().with_io_workers(1).with_tcp_user_timeout(None);
    let second = server(second, 0o600, first.1.listeners().unwrap());
    let sockets = second.1.listeners().unwrap();
    let tcp = SockRef::from(&sockets[0]);
    assert_eq!((tcp.keepalive().unwrap(), tcp.tcp_user_timeout().unwrap()), (false, None));
    let mode = fs::metadata(path(&dir)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// All workers, those without connections too.
#[test]
fn a_server_whose_successor_came_to_nothing_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = ringwire::Server::new(config().with_io_workers(3)).listen("127.0.0.1:0");
    let server = Guard::start(server.listen_unix(path(&dir)));
    let urls: Vec<_> = server.0.as_ref().map(|it| it.urls().collect()).expect("it runs");
    for _ in 0..3 {
        let mut stays = open(&urls[0]);
        echo(&mut stays, "hi");
        let sockets = server.1.listeners().unwrap();
        // The last of many places in the order may be this client's, so the window is long.
        let draining = server.1.drain(Duration::from_secs(3600), CloseCode::new(1012));
        assert!(server.1.is_draining() && server.1.listeners().is_err());
        drop(sockets);
        assert!(server.1.undrain());
        assert!(!server.1.is_draining());
        draining.wait(PATIENCE).expect("the drain has ended");
        for url in &urls {
            for _ in 0..20 {
                assert!(echo(&mut open(url), "hi").ends_with(" hi"), "{url}");
            }
        }
        assert!(!server.1.undrain(), "there is no drain");
    }
    server.1.listeners().unwrap();
    let _stays = open(&urls[0]);
    server.1.shutdown(PATIENCE);
    assert!(!server.1.undrain(), "a shutdown is for good");
}

#[test]
fn sockets_that_are_taken_back_are_closed_as_ever() {
    let server = Guard::start(ringwire::Server::new(config()).listen("127.0.0.1:0"));
    let address: std::net::SocketAddr = server.url()[5..].parse().unwrap();
    let mut command = std::process::Command::new("false");
    command.stdin(std::process::Stdio::null());
    let error = server.1.spawn_successor(command, PATIENCE).unwrap_err();
    assert!(error.to_string().contains("ended before it was ready"), "{error}");
    let mut command = std::process::Command::new("sleep");
    command.arg("1000");
    let error = server.1.spawn_successor(command, ms(100)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert!(echo(&mut open(&server.url()), "still").ends_with("still"));
    server.stop();
    // Processes that other tests start hold a copy until they run their program.
    wait_until("nobody has the socket", || TcpStream::connect(address).is_err());
}

#[test]
fn a_socket_that_does_not_listen_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = |socket: std::os::fd::OwnedFd| ringwire::Server::new(config()).listen_on(socket);
    for socket in [stream.into(), datagrams.into(), fs::File::open("/dev/null").unwrap().into()] {
        let error = start(server(socket)).expect_err("it is refused");
        assert!(matches!(&error, Error::Listen { .. }), "{error}");
    }
}
