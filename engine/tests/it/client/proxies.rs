//! HTTP CONNECT and SOCKS5 through small proxies of the test's own.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;

use ringwire::client::{Builder, Error, ErrorKind, Proxy, ProxyProblem, SocksReply, Waiting};
use ringwire_peers::server::{drain, header, read_head, serve};
use ringwire_peers::unheard;

use super::peer::{builder, refusal_of};
use crate::support::{Server, config, ms};

/// Carries bytes both ways until one side ends.
fn relay(client: TcpStream, to: SocketAddr) {
    let server = TcpStream::connect(to).unwrap();
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        // However it ends, the other side is told.
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    let (client_too, server_too) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let back = thread::spawn(move || copy(server_too, client_too));
    copy(client, server);
    back.join().unwrap();
}

fn through(proxy: SocketAddr, scheme: &str) -> Builder {
    builder().with_proxy(format!("{scheme}://{proxy}").parse().unwrap())
}

fn echo_through(builder: &Builder, url: &str) {
    let mut client = builder.connect(url).unwrap();
    client.send("hello").unwrap();
    assert_eq!(client.receive().unwrap(), Some("hello".into()));
}

/// A proxy that asks for `u:p` and gives the requests it saw. Every name is the echo server to it.
fn connect_proxy(target: SocketAddr) -> (SocketAddr, mpsc::Receiver<String>) {
    let (sender, seen) = mpsc::channel();
    let address = serve(move |mut stream, _| {
        let head = read_head(&mut stream);
        sender.send(head.lines().next().unwrap_or_default().to_owned()).unwrap();
        if header(&head, "proxy-authorization").as_deref() != Some("Basic dTpw") {
            let _ = stream.write_all(b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n");
            return;
        }
        stream.write_all(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n").unwrap();
        relay(stream, target);
    });
    (address, seen)
}

#[test]
fn connect_with_credentials_and_without() {
    let server = Server::echo(config());
    let (proxy, seen) = connect_proxy(server.addr());
    let with_user = builder().with_proxy(format!("http://u:p@{proxy}").parse().unwrap());
    // The name is the proxy's to resolve: nobody else could.
    echo_through(&with_user, "ws://server.invalid/");
    assert_eq!(seen.recv().unwrap(), "CONNECT server.invalid:80 HTTP/1.1");
    echo_through(&with_user, "ws://[2001:db8::1]:9001/");
    assert_eq!(seen.recv().unwrap(), "CONNECT [2001:db8::1]:9001 HTTP/1.1");

    let error = refusal_of(&through(proxy, "http"), server.addr());
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert!(error.to_string().contains("407"), "{error}");
    let wrong = Proxy::with_credentials(format!("http://{proxy}").parse().unwrap(), "u", "wrong");
    let error = refusal_of(&builder().with_proxy(wrong), server.addr());
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert!(!format!("{error:?} {error}").contains("wrong"));
}

#[test]
fn a_proxy_that_a_function_chooses() {
    let server = Server::echo(config());
    let (proxy, seen) = connect_proxy(server.addr());
    let proxy: Proxy = format!("http://u:p@{proxy}").parse().unwrap();
    let chosen = builder().with_proxy_by(move |url| {
        (url.host() == Some("server.invalid") && url.port() == Some(80)).then(|| proxy.clone())
    });
    echo_through(&chosen, "ws://server.invalid/chat");
    assert_eq!(seen.recv().unwrap(), "CONNECT server.invalid:80 HTTP/1.1");
    echo_through(&chosen, &super::peer::url(server.addr()));
    assert!(seen.try_recv().is_err(), "directly");
}

#[test]
fn connect_proxies_that_fail() {
    let server = Server::echo(config());
    for (answer, expected) in [
        (&b"HTTP/1.1 502 Bad Gateway\r\n\r\n"[..], "502"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "101"),
        (b"HTTP/1.1 200 OK\r\n\r\n\x81\x00", "bytes behind the head"),
        (b"nonsense\r\n\r\n", "does not speak HTTP"),
        (b"\x05\xff", "does not speak HTTP"),
        (b"", "closed the connection before it answered"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "closed the connection before it answered"),
        (b"HTTP/1.1 200", "no HTTP response"),
    ] {
        let proxy = serve(move |mut stream, _| {
            read_head(&mut stream);
            stream.write_all(answer).unwrap();
        });
        let error = refusal_of(&through(proxy, "http"), server.addr());
        assert_eq!(error.kind(), ErrorKind::ConnectFailed, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// RFC 9110 §15.2: a client parses interim answers before the final one, whatever it asked for.
#[test]
fn interim_answers_of_a_proxy_are_passed_over() {
    let server = Server::echo(config());
    let target = server.addr();
    for interim in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 102 Processing\r\nX: y\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n",
    ] {
        let proxy = serve(move |mut stream, _| {
            read_head(&mut stream);
            let answer = format!("{interim}HTTP/1.1 200 OK\r\n\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
            relay(stream, target);
        });
        echo_through(&through(proxy, "http"), "ws://server.invalid/");
    }
    let endless = serve(|mut stream, _| {
        read_head(&mut stream);
        while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_ok() {}
    });
    let error = refusal_of(&through(endless, "http"), target);
    assert!(error.to_string().contains("no HTTP response"), "{error}");
}

/// A SOCKS5 proxy that wants this user, and gives the type and the address of each request.
fn socks_proxy(
    target: SocketAddr,
    user: Option<(&'static str, &'static str)>,
) -> (SocketAddr, mpsc::Receiver<(u8, Vec<u8>)>) {
    let (sender, seen) = mpsc::channel();
    let address = serve(move |mut stream, _| {
        let methods = read_short(&mut stream, 5);
        let wanted = if user.is_some() { 2 } else { 0 };
        if !methods.contains(&wanted) {
            let _ = stream.write_all(&[5, 0xff]);
            return;
        }
        stream.write_all(&[5, wanted]).unwrap();
        if let Some((name, password)) = user {
            let given = (read_short(&mut stream, 1), read_counted(&mut stream));
            let right = given == (name.as_bytes().to_vec(), password.as_bytes().to_vec());
            stream.write_all(&[1, u8::from(!right)]).unwrap();
            if !right {
                return;
            }
        }
        let [version, command, _, kind] = read_array(&mut stream);
        assert_eq!((version, command), (5, 1));
        let address = match kind {
            1 => read_array::<4>(&mut stream).to_vec(),
            4 => read_array::<16>(&mut stream).to_vec(),
            _ => read_counted(&mut stream),
        };
        let _port: [u8; 2] = read_array(&mut stream);
        sender.send((kind, address)).unwrap();
        // Its own address, in the form that is rare.
        stream.write_all(b"\x05\x00\x00\x03\x05proxy\x00\x50").unwrap();
        relay(stream, target);
    });
    (address, seen)
}

fn read_array<const LEN: usize>(stream: &mut TcpStream) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn read_counted(stream: &mut TcpStream) -> Vec<u8> {
    let [len] = read_array(stream);
    let mut bytes = vec![0; usize::from(len)];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn read_short(stream: &mut TcpStream, version: u8) -> Vec<u8> {
    assert_eq!(read_array(stream), [version]);
    read_counted(stream)
}

#[test]
fn socks_with_names_resolved_here_and_there() {
    let server = Server::echo(config());
    let (proxy, seen) = socks_proxy(server.addr(), None);
    echo_through(&through(proxy, "socks5h"), "ws://server.invalid/");
    assert_eq!(seen.recv().unwrap(), (3, b"server.invalid".to_vec()));
    echo_through(&through(proxy, "socks5h"), "ws://192.0.2.7:8080/");
    assert_eq!(seen.recv().unwrap(), (1, vec![192, 0, 2, 7]));
    echo_through(&through(proxy, "socks5"), "ws://[::ffff]/");
    assert_eq!(seen.recv().unwrap().0, 4);
    echo_through(&through(proxy, "socks5"), "ws://localhost/");
    assert_ne!(seen.recv().unwrap().0, 3, "the name does not leave");
    let error = through(proxy, "socks5").connect("ws://server.invalid/").unwrap_err();
    assert!(matches!(error, Error::Resolve { .. }), "{error}");
}

#[test]
fn socks_with_user_and_password() {
    let server = Server::echo(config());
    let (proxy, seen) = socks_proxy(server.addr(), Some(("me", "secret")));
    let right = format!("socks5h://me:secret@{proxy}").parse().unwrap();
    echo_through(&builder().with_proxy(right), "ws://server.invalid/");
    assert_eq!(seen.recv().unwrap().0, 3);

    let wrong = format!("socks5h://me:wrong@{proxy}").parse().unwrap();
    let error = refusal_of(&builder().with_proxy(wrong), server.addr());
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert!(matches!(&error, Error::Proxy { problem: ProxyProblem::Credentials, .. }));

    let error = refusal_of(&through(proxy, "socks5h"), server.addr());
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert!(matches!(&error, Error::Proxy { problem: ProxyProblem::NoMethod, .. }));
}

#[test]
fn socks_proxies_that_fail() {
    let server = Server::echo(config());
    let failing = |answer: &'static [u8]| {
        serve(move |mut stream, _| {
            read_short(&mut stream, 5);
            stream.write_all(answer).unwrap();
            drain(stream);
        })
    };
    let error = refusal_of(&through(failing(b"\x05\x00\x05\x05\x00\x01"), "socks5"), server.addr());
    assert!(matches!(&error, Error::Proxy { problem: ProxyProblem::Socks(SocksReply(5)), .. }));
    assert!(error.to_string().contains("connection refused"), "{error}");
    for answer in [&b"\x04\x00"[..], b"\x05\x00\x04\x00\x00\x01", b"\x05\x00\x05\x00\x00\x09"] {
        let error = refusal_of(&through(failing(answer), "socks5"), server.addr());
        assert!(matches!(&error, Error::Proxy { problem: ProxyProblem::BadAnswer(_), .. }));
    }
}

#[test]
fn proxies_that_say_nothing_or_are_not_there() {
    let server = Server::echo(config());
    let silent = serve(|stream, _| {
        drain(stream);
    });
    for scheme in ["http", "socks5"] {
        let error =
            refusal_of(&through(silent, scheme).with_connect_timeout(ms(1000)), server.addr());
        assert!(matches!(error, Error::Timeout(Waiting::Proxy)), "{error}");
    }
    let (_kept, gone) = unheard();
    let error = refusal_of(&through(gone, "http"), server.addr());
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
    assert!("https://proxy".parse::<Proxy>().is_err());
}
