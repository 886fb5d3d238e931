//! Which worker gets a connection, and how many each has.

use ringwire::tls::pki_types::UnixTime;
use ringwire::tls::{CertificateSource, ClientSettings, Roots, ServerSettings};
use ringwire::{Message, tuning::Assignment};
use ringwire_peers::Client;

use crate::support::{PATIENCE, Server, config, wait_until};

const COUNT: usize = 120;

fn start(workers: usize) -> Server {
    Server::echo(config().with_io_workers(workers).with_assignment(Assignment::LeastLoaded))
}

fn counts(server: &Server) -> Vec<u64> {
    server.handle().stats().workers.iter().map(|worker| worker.connections).collect()
}

#[test]
fn the_least_loaded_worker_gets_the_next_connection() {
    for workers in [1, 2, 4] {
        let server = start(workers);
        let mut clients = Vec::new();
        for count in 1..=COUNT {
            clients.push(server.client());
            let counts = counts(&server);
            let (most, least) = (counts.iter().max(), counts.iter().min());
            let spread = most.zip(least).map(|(most, least)| most - least);
            assert_eq!(spread, Some(u64::from(count % workers != 0 && workers > 1)), "{counts:?}");
        }
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(Message::Text(&number.to_string()));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.text(), number.to_string());
        }
        let stats = server.stats();
        assert_eq!(stats.accepts, COUNT as u64, "each is accepted once");
        assert_eq!(stats.handed_over > 0, workers > 1);
    }
}

/// Those that come while others leave even out what leaving made uneven.
#[test]
fn balance_comes_back() {
    let server = start(3);
    let mut clients: Vec<_> = (0..60).map(|_| server.client()).collect();
    let ids: Vec<_> = clients.iter().map(|_| server.opened()).collect();
    let mut left: Vec<(Client, _)> = clients.drain(..).zip(ids).collect();
    left.retain_mut(|(_, id)| id.worker() == 0);
    wait_until("two workers are empty", || server.stats().connections == left.len() as u64);
    let mut more: Vec<_> = (0..60).map(|_| server.client()).collect();
    assert!(server.handle().stats().imbalance() < 1.1, "{:?}", counts(&server));
    more[59].send(Message::Text("hello"));
    assert_eq!(more[59].text(), "hello");
}

#[test]
fn connections_over_tls_are_handed_over_as_well() {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it is a name");
    let (cert, key_pem) = (key.cert.pem(), key.signing_key.serialize_pem());
    let source = CertificateSource::pem(cert.clone(), key_pem);
    let tls = ServerSettings::new(source).build(UnixTime::now()).expect("a good certificate");
    let trusting = ClientSettings::new(Roots::pem(cert)).build(UnixTime::now());
    let config = config().with_io_workers(2).with_assignment(Assignment::LeastLoaded);
    let server = Server::secure(config, tls, |app| app);
    let builder = ringwire::client::Client::builder()
        .with_tls(trusting.expect("a good root"))
        .without_proxy();
    let url = format!("wss://localhost:{}", server.addrs()[1].port());
    let mut clients: Vec<_> =
        (0..10).map(|_| builder.connect(&url).expect("it connects")).collect();
    assert_eq!(counts(&server), [5, 5]);
    for client in &mut clients {
        client.send_text("hello").expect("it is open");
        let answer = client.receive_timeout(PATIENCE).expect("it is open");
        assert_eq!(answer.as_ref().and_then(|answer| answer.as_text()), Some("hello"));
    }
}

#[test]
fn the_kernel_assigns_otherwise() {
    let server = Server::echo(config().with_io_workers(2));
    let _clients: Vec<_> = (0..40).map(|_| server.client()).collect();
    let stats = server.handle().stats();
    assert_eq!((stats.total().connections, stats.total().handed_over), (40, 0));
    assert!(stats.workers.iter().all(|worker| worker.connections > 0), "{:?}", counts(&server));
}
