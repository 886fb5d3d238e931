//! Ringwire's HTTP with hyper as the client. `RINGWIRE_DRIVER` says on which kernel back end; without it, epoll.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use ringwire::{Config, DriverKind, Router, Running, Server, stats::WorkerStats, tuning::Pinning};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long anything that must happen may take, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);
const MAX_BODY_LEN: usize = 100_000;

type Body =
    StreamBody<Pin<Box<dyn stream::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;

/// A body that comes in pieces, of a length that nobody knows before.
fn pieces(pieces: impl stream::Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(Box::pin(pieces.map(|piece| Ok(Frame::data(piece)))))
}

fn empty() -> Body {
    pieces(stream::empty())
}

/// A server that says how it was asked, and with what.
fn start() -> Running {
    let driver = match std::env::var("RINGWIRE_DRIVER").as_deref() {
        Ok("uring") => DriverKind::Uring,
        _ => DriverKind::Epoll,
    };
    let config = Config::default()
        .with_driver(driver)
        .with_io_workers(1)
        .with_pinning(Pinning::Off)
        .with_max_body_len(MAX_BODY_LEN);
    let router = |_: &_| {
        Router::new().get("/", |_| ringwire::Response::text("hello\n")).post("/echo", |request| {
            let body = request.body().to_vec();
            ringwire::Response::new(StatusCode::OK)
                .with_body(HeaderValue::from_static("application/octet-stream"), body)
        })
    };
    Server::new(config).listen("127.0.0.1:0").start(router).expect("it starts")
}

/// Connects a client to a new server, and gives what the server has counted once the client is done.
fn with_client<F: Future<Output = ()>>(test: impl FnOnce(SendRequest<Body>) -> F) -> WorkerStats {
    let server = start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let stream = TcpStream::connect(server.local_addrs()[0]).await.expect("it listens");
        let (client, connection) = handshake(TokioIo::new(stream)).await.expect("it begins");
        tokio::spawn(connection);
        timeout(PATIENCE, test(client)).await.expect("in time");
    });
    let handle = server.handle();
    handle.shutdown(Duration::ZERO);
    server.join().expect("it ends well");
    handle.stats().total()
}

async fn send(client: &mut SendRequest<Body>, request: Request<Body>) -> Response<Incoming> {
    client.ready().await.expect("the connection stays");
    client.send_request(request).await.expect("an answer")
}

async fn body(response: Response<Incoming>) -> Bytes {
    response.into_body().collect().await.expect("the body comes").to_bytes()
}

fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    builder.body(body).expect("it is one")
}

#[test]
fn a_hundred_requests_on_a_connection() {
    let stats = with_client(async |mut client| {
        for _ in 0..100 {
            let response = send(&mut client, request(Method::GET, "/", empty())).await;
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(body(response).await, "hello\n");
        }
    });
    assert_eq!((stats.accepts, stats.http_requests), (1, 100));
}

#[test]
fn a_chunked_body() {
    with_client(async |mut client| {
        for count in [0_usize, 1, 50] {
            let chunks = (0..count).map(|at| Bytes::from(vec![b'a'; 1 + at * 31]));
            let expected = chunks.clone().flatten().collect::<Bytes>();
            let chunks = request(Method::POST, "/echo", pieces(stream::iter(chunks)));
            let response = send(&mut client, chunks).await;
            assert_eq!(response.status(), StatusCode::OK);
            assert!(body(response).await == expected);
        }
    });
}

#[test]
fn head_has_a_length_and_no_body() {
    with_client(async |mut client| {
        let response = send(&mut client, request(Method::HEAD, "/", empty())).await;
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "6");
        assert_eq!(body(response).await, "");
        let response = send(&mut client, request(Method::GET, "/", empty())).await;
        assert_eq!(body(response).await, "hello\n");
    });
}

/// The client sends its body once it is told to go on, and not before.
#[test]
fn continue_comes_first() {
    with_client(async |mut client| {
        let (went_on, mut go_on) = mpsc::unbounded_channel();
        let late = stream::once(async move {
            go_on.recv().await.expect("the server says 100");
            Bytes::from_static(b"late")
        });
        let mut request = request(Method::POST, "/echo", pieces(late));
        let expect = HeaderValue::from_static("100-continue");
        request.headers_mut().insert(header::EXPECT, expect);
        hyper::ext::on_informational(&mut request, move |response| {
            assert_eq!(response.status(), StatusCode::CONTINUE);
            went_on.send(()).expect("the body waits");
        });
        let response = send(&mut client, request).await;
        assert_eq!(body(response).await, "late");
    });
}

/// Who announces too much is told so before any of it has come, and that the connection ends.
#[test]
fn too_long_a_body_is_refused_at_once() {
    with_client(async |mut client| {
        let mut request = request(Method::POST, "/echo", pieces(stream::pending()));
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(MAX_BODY_LEN + 1));
        let response = send(&mut client, request).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(response.headers()[header::CONNECTION], "close");
    });
}

/// In chunks the length shows only as they come.
#[test]
fn too_many_chunks_are_refused() {
    with_client(async |mut client| {
        let endless = stream::repeat(Bytes::from_static(&[b'x'; 1000])).take(MAX_BODY_LEN);
        let response = send(&mut client, request(Method::POST, "/echo", pieces(endless))).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    });
}
