//! The router: which route has a request, what is answered where there is none, and WebSockets on several paths.

use std::any::Any;
use std::borrow::Cow;
use std::io::Write as _;
use std::sync::mpsc;

use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use ringwire::{
    Accept, Answer, CloseCode, ConnId, Ctx, Event, Handler, Message, Request, Response, Router,
    on_message,
    router::{Asset, SocketOptions, States},
};
use ringwire_peers::{Client, Got, Http, client_request, connect, read_answer};

use crate::support::{PATIENCE, Server, config, wait_until};

const PAGE: &str = "<!doctype html><p>Hello";
const POLICY: HeaderValue = HeaderValue::from_static("no-referrer");

/// Says who has the connection, and what parameter its path had.
struct Room {
    greeting: &'static str,
    messages: usize,
}

impl Handler for Room {
    type State = String;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<String> {
        match request.param("room").as_deref() {
            Some("closed") => Response::new(StatusCode::FORBIDDEN).into(),
            Some(room) => Answer::accept(room.to_owned()),
            None => Accept::new(String::new()).with_subprotocol("none").into(),
        }
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, String>) {
        let text = format!("{} {}", self.greeting, ctx.state());
        let _ = ctx.send(text.as_str());
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, String>, message: Message<'_>) {
        self.messages += 1;
        let text = format!("{} has {}", ctx.state(), self.messages);
        let _ = ctx.send(text.as_str());
        if message == Message::Text("leave") {
            ctx.close(CloseCode::NORMAL, "as you wish").expect("no close has begun");
        }
    }
}

fn site() -> impl Handler {
    let options =
        SocketOptions::default().with_subprotocols(["v2.chat", "v1.chat"]).with_max_message_len(10);
    Router::new()
        .asset("/", Asset::html(PAGE).with_header(header::REFERRER_POLICY, POLICY))
        .get("/rooms/{room}", |request| {
            let (room, query) = (request.param("room"), request.query());
            let room = room.as_deref().unwrap_or("none");
            Response::text(format!("{room} {}", query.unwrap_or("none")))
        })
        .put("/rooms/{room}", |request| {
            let body = String::from_utf8_lossy(request.body());
            Response::json(format!("{:?}", body.to_uppercase())).with_status(StatusCode::CREATED)
        })
        .delete("/rooms/{room}", |_| StatusCode::NO_CONTENT)
        .get("/files/{*path}", |request| {
            Response::text(request.param("path").map_or_else(|| "none".to_owned(), Cow::into_owned))
        })
        .route(Method::PATCH, "/patch", |_| Response::text("patched"))
        .websocket("/", on_message(|ctx, message| ctx.send(message)))
        .websocket_with("/chat/{room}", Room { greeting: "chat", messages: 0 }, options)
        .websocket("/other/{room}", Room { greeting: "other", messages: 10 })
        .fallback(|request| {
            Response::text(format!("no {}", request.path())).with_status(StatusCode::NOT_FOUND)
        })
}

fn server() -> Server {
    Server::with_handler(config(), &["127.0.0.1:0"], |_, _| site())
}

fn with_method(http: &mut Http, method: &str, path: &str, lines: &str) {
    http.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
}

#[test]
fn methods_and_parameters() {
    let server = server();
    let mut http = Http::connect(server.addr());
    // RFC 3986 §2.1; a `%2F` is no separator of segments (§2.2), and a `+` is a space in queries only.
    assert_eq!(http.get("/rooms/a%20b?x=y").text(), "a b x=y");
    assert_eq!(http.get("/rooms/a%2fb+c%C3%A9?x").text(), "a/b+cé x");
    assert_eq!(http.get("/rooms/%ff?x").text(), "\u{fffd} x");
    assert_eq!(http.get("/files/a/b/c").text(), "a/b/c");
    with_method(&mut http, "PUT", "/rooms/a", "Content-Length: 5\r\n");
    http.send("hello");
    let created = http.answer();
    assert_eq!((created.status(), created.text()), (201, "\"HELLO\""));
    assert_eq!(created.header("content-type"), Some("application/json"));
    with_method(&mut http, "DELETE", "/rooms/a", "");
    assert_eq!(http.answer().status(), 204);
    with_method(&mut http, "PATCH", "/patch", "");
    assert_eq!(http.answer().text(), "patched");
    with_method(&mut http, "HEAD", "/rooms/abc", "");
    let head = http.head();
    assert_eq!((head.status(), head.header("content-length")), (200, Some("8")));
}

#[test]
fn what_no_route_has() {
    let server = server();
    let mut http = Http::connect(server.addr());
    for path in ["/nowhere", "/rooms", "/rooms/a/b", "/rooms/", "//"] {
        let answer = http.get(path);
        assert_eq!((answer.status(), answer.text()), (404, &*format!("no {path}")));
    }
    let answer = http.post("/rooms/a", "");
    assert_eq!(answer.status(), 405);
    assert_eq!(answer.header("allow"), Some("GET, HEAD, PUT, DELETE, OPTIONS"));
    with_method(&mut http, "OPTIONS", "/rooms/a", "");
    let answer = http.answer();
    assert_eq!(answer.status(), 204);
    assert_eq!(answer.header("allow"), Some("GET, HEAD, PUT, DELETE, OPTIONS"));
    let answer = http.get("/chat/a");
    assert_eq!((answer.status(), answer.header("upgrade")), (426, Some("websocket")));
}

/// RFC 9110 §15.5.6: an answer with 405 says what is allowed.
#[test]
fn refusals_have_the_applications_form() {
    let server = Server::with_handler(config(), &["127.0.0.1:0"], |_, _| {
        Router::new().get("/a", |_| StatusCode::NO_CONTENT).errors(|request, status| {
            Response::text(format!("{} {status}", request.path())).with_status(status)
        })
    });
    let mut http = Http::connect(server.addr());
    let answer = http.get("/b");
    assert_eq!((answer.status(), answer.text()), (404, "/b 404 Not Found"));
    with_method(&mut http, "DELETE", "/a", "");
    let answer = http.answer();
    assert_eq!((answer.status(), answer.text()), (405, "/a 405 Method Not Allowed"));
    assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
    let mut upgrade = connect(server.addr());
    upgrade.write_all(ringwire_peers::request().as_bytes()).expect("it goes");
    assert!(read_answer(&mut upgrade).starts_with("HTTP/1.1 404 "));
}

#[test]
fn assets_are_sent_once() {
    let server = server();
    let mut http = Http::connect(server.addr());
    let page = http.get("/");
    assert_eq!((page.status(), page.text()), (200, PAGE));
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let tag = page.header("etag").expect("an asset has a tag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "it is a strong one: {tag}");
    for (lines, status) in [
        (format!("If-None-Match: {tag}\r\n"), 304),
        (format!("If-None-Match: \"x\", W/{tag}\r\n"), 304),
        (format!("If-None-Match: \"x\"\r\nIf-None-Match: {tag}\r\n"), 304),
        ("If-None-Match: *\r\n".to_owned(), 304),
        ("If-None-Match: \"x\"\r\n".to_owned(), 200),
    ] {
        with_method(&mut http, "GET", "/", &lines);
        let answer = http.answer();
        assert_eq!((answer.status(), answer.header("etag")), (status, Some(&*tag)), "{lines}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{lines}");
        assert_eq!(answer.text(), if status == 304 { "" } else { PAGE });
    }
}

fn socket(server: &Server, path: &str) -> Client {
    Client::upgrade(connect(server.addr()), &client_request(path))
}

#[test]
fn each_socket_has_its_handler() {
    let server = server();
    let mut echo = socket(&server, "/");
    let mut first = socket(&server, "/chat/one");
    let mut second = socket(&server, "/chat/two");
    let mut other = socket(&server, "/other/one");
    assert_eq!(first.text(), "chat one");
    assert_eq!(second.text(), "chat two");
    assert_eq!(other.text(), "other one");
    let says = |client: &mut Client, text: &str, answer: &str| {
        client.send(text);
        assert_eq!(client.text(), answer);
    };
    says(&mut echo, "hello", "hello");
    says(&mut first, "a", "one has 1");
    says(&mut second, "b", "two has 2");
    says(&mut other, "c", "one has 11");
    says(&mut first, "d", "one has 3");
    other.send("leave");
    assert_eq!(other.text(), "one has 12");
    assert_eq!(other.close_frame(), (1000, "as you wish".to_owned()));
    assert_eq!(other.end(), Got::Eof);
    echo.leave();
    drop((first, second));
    wait_until("all are gone", || server.stats().connections == 0);
}

#[test]
fn a_socket_has_its_settings() {
    let server = server();
    for (offered, chosen) in [
        (&["v1.chat", "v2.chat"][..], Some("v2.chat")),
        (&["v1.chat"], Some("v1.chat")),
        (&[], None),
    ] {
        let request = offered.iter().fold(client_request("/chat/a"), |request, name| {
            request.with_subprotocol(name).unwrap()
        });
        let mut client = Client::upgrade(connect(server.addr()), &request);
        let line = chosen.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
        assert_eq!(client.head.contains("Sec-WebSocket-Protocol"), line.is_some());
        assert!(line.is_none_or(|line| client.head.contains(&line)), "{}", client.head);
        assert_eq!(client.text(), "chat a");
        client.send("0123456789");
        assert!(client.text().starts_with("a has "));
        client.send("0123456789a");
        assert_eq!(client.close_frame().0, 1009);
    }
    // Those of one route are not those of another.
    let mut client = socket(&server, "/other/a");
    assert_eq!(client.text(), "other a");
    client.send("0123456789a");
    assert_eq!(client.text(), "a has 11");
}

#[test]
fn upgrades_that_no_socket_has() {
    let server = server();
    for (path, status) in [("/nowhere", 404), ("/rooms/a", 404), ("/chat/closed", 403)] {
        let mut http = Http::connect(server.addr());
        let mut wire = Vec::new();
        let name = HeaderName::from_static("x-test");
        let request = client_request(path).with_header(name, HeaderValue::from_static("y"));
        request.unwrap().encode(&mut wire);
        http.send(wire);
        let answer = http.answer();
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.header(header::CONNECTION.as_str()), Some("close"), "{path}");
        http.end();
    }
}

#[test]
fn a_job_comes_back_to_its_route() {
    let server =
        Server::with_handler(config().with_compute_workers(1), &["127.0.0.1:0"], |_, _| {
            let doubling = on_message(|ctx: &mut Ctx<'_, ()>, message: Message<'_>| {
                let len = message.len();
                let offloaded = ctx.offload(
                    move || len * 2,
                    |ctx, result| {
                        let text =
                            result.map_or_else(|error| error.to_string(), |len| len.to_string());
                        let _ = ctx.send(text.as_str());
                    },
                );
                assert!(offloaded.is_ok(), "there is a compute thread");
            });
            Router::new()
                .websocket("/first", on_message(|_, _| {}))
                .websocket("/double", doubling)
                .websocket("/other/{room}", Room { greeting: "other", messages: 0 })
        });
    let mut client = socket(&server, "/double");
    client.send("hello");
    assert_eq!(client.text(), "10");
    client.leave();
}

/// Defers each request, and tells its id.
struct Patient {
    room: Room,
    ids: mpsc::Sender<ConnId>,
}

impl Handler for Patient {
    type State = String;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<String> {
        self.ids.send(request.id()).expect("the test waits for it");
        Answer::Defer
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, String>) {
        self.room.on_open(ctx);
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, String>, message: Message<'_>) {
        self.room.on_message(ctx, message);
    }
}

#[test]
fn the_state_of_a_deferred_request_is_that_of_its_route() {
    let (ids, asked) = mpsc::channel();
    let server = Server::with_handler(config(), &["127.0.0.1:0"], move |_, _| {
        let patient = |greeting| Patient { room: Room { greeting, messages: 0 }, ids: ids.clone() };
        Router::new()
            .websocket("/", on_message(|ctx, message| ctx.send(message)))
            .websocket("/first", patient("first"))
            .websocket("/second", patient("second"))
    });
    let ask = |path: &str| {
        let request = client_request(path);
        let mut stream = connect(server.addr());
        let mut wire = Vec::new();
        request.encode(&mut wire);
        stream.write_all(&wire).unwrap();
        (stream, request, asked.recv_timeout(PATIENCE).expect("the handler is asked"))
    };
    for (path, greeting) in [("/second", "second anna"), ("/first", "first anna")] {
        let (stream, request, id) = ask(path);
        server.handle().accept(id, Accept::new("anna".to_owned())).unwrap();
        let mut client = Client::await_upgrade(stream, &request);
        assert_eq!(client.text(), greeting);
        client.leave();
    }
    // The state of another route, and of none.
    let (mut stream, _, id) = ask("/first");
    server.handle().accept(id, Accept::new(())).unwrap();
    let answer = read_answer(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
}

/// A handler around another, which passes on what there is to pass on of requests.
struct Around<H>(H);

impl<H: Handler> Handler for Around<H> {
    type State = H::State;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<H::State> {
        self.0.on_request(request)
    }

    fn state_from(
        &mut self,
        given: Box<dyn Any + Send>,
        request: &Request<'_>,
    ) -> Result<H::State, Box<dyn Any + Send>> {
        self.0.state_from(given, request)
    }

    fn states() -> States<H::State> {
        H::states()
    }

    fn handle(&mut self, ctx: &mut Ctx<'_, H::State>, event: Event<'_>) {
        self.0.handle(ctx, event);
    }
}

#[test]
fn a_deferred_request_is_agreed_a_subprotocol_of_its_route() {
    let (ids, asked) = mpsc::channel();
    let config = config().with_subprotocols(["server"]);
    let server = Server::with_handler(config, &["127.0.0.1:0"], move |_, _| {
        let patient = || Patient { room: Room { greeting: "", messages: 0 }, ids: ids.clone() };
        let options = |name| SocketOptions::default().with_subprotocols([name]);
        let nested = Router::new().websocket_with("/talk", patient(), options("nested"));
        Around(
            Router::new()
                .websocket_with("/route", patient(), options("route"))
                .websocket("/plain", patient())
                .nest("/nested", nested),
        )
    });
    for (path, offered, own, chosen) in [
        ("/route", &["server", "route"][..], None, Some("route")),
        ("/route", &["server"], None, Some("server")),
        ("/route", &["nested"], None, None),
        ("/route", &[], None, None),
        ("/route", &["route", "mine"], Some("mine"), Some("mine")),
        ("/plain", &["route", "server"], None, Some("server")),
        ("/nested/talk", &["server", "nested"], None, Some("nested")),
    ] {
        let request = offered
            .iter()
            .fold(client_request(path), |request, name| request.with_subprotocol(name).unwrap());
        let mut stream = connect(server.addr());
        let mut wire = Vec::new();
        request.encode(&mut wire);
        stream.write_all(&wire).unwrap();
        let id = asked.recv_timeout(PATIENCE).expect("the handler is asked");
        let mut accept = Accept::new("anna".to_owned());
        if let Some(own) = own {
            accept = accept.with_subprotocol(own);
        }
        server.handle().accept(id, accept).unwrap();
        let mut client = Client::await_upgrade(stream, &request);
        let mut lines = client.head.lines();
        let line = lines.find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: "));
        assert_eq!(line, chosen, "{path} {offered:?}");
        assert_eq!(client.text(), " anna");
        client.leave();
    }
}
