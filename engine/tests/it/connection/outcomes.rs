//! What those who send are told, and how the state is at hand meanwhile.

use std::sync::mpsc;

use ringwire::{Answer, CloseCode, Ctx, Handler, Message, Request, SendError, Sent, on_message};
use ringwire_peers::{Client, Got, client_request, connect};

use crate::support::{PATIENCE, Server, config};

/// A server with this handler.
fn server<H: Handler>(make: impl Fn() -> H + Send + Sync + 'static) -> Server {
    Server::with_handler(config(), &["127.0.0.1:0"], move |_, _| make())
}

#[test]
fn a_closure_gives_back_what_came_of_sending_or_nothing() {
    let echo = server(|| on_message(|ctx, message| ctx.send(message)));
    let silent = server(|| {
        on_message(|ctx, message| {
            assert_eq!(ctx.send(message), Ok(Sent::OnItsWay));
        })
    });
    let ping = server(|| on_message(|ctx, message| ctx.ping(message.as_bytes())));
    let close = server(|| {
        on_message(|ctx, message| ctx.close(CloseCode::NORMAL, message.as_text().unwrap()))
    });
    let publish = server(|| {
        on_message(|ctx, message| {
            ctx.subscribe("all").expect("there is room");
            ctx.publish("all", message)
        })
    });
    for server in [&echo, &silent, &publish] {
        let mut client = server.client();
        client.send("hello");
        assert_eq!(client.text(), "hello");
    }
    let mut client = ping.client();
    client.send("hello");
    assert_eq!(client.next(), Got::Ping(b"hello".to_vec()));
    let mut client = close.client();
    client.send("bye");
    assert_eq!(client.close_frame(), (1000, "bye".to_owned()));
}

#[test]
fn an_error_says_what_was_wrong() {
    let (tell, told) = mpsc::channel();
    let server = Server::start(config(), move |app| {
        let tell = tell.clone();
        app.on_message(move |ctx, _| {
            let long = "x".repeat(126);
            tell.send((
                ctx.ping(long.as_bytes()),
                ctx.close(CloseCode::NORMAL, &long),
                ctx.close(CloseCode::new(1006), ""),
                ctx.close(CloseCode::NORMAL, ""),
                [
                    ctx.send("late").err(),
                    ctx.ping(b"").err(),
                    ctx.close(CloseCode::NORMAL, "").err(),
                ],
            ))
            .expect("the test waits for it");
        })
    });
    let mut client = server.client();
    client.send("go");
    let (long_ping, long_reason, bad_code, closed, late) = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(long_ping, Err(SendError::ControlTooLong));
    assert_eq!(long_reason, Err(SendError::ReasonTooLong));
    assert_eq!(bad_code, Err(SendError::BadCloseCode));
    assert_eq!(closed, Ok(()));
    assert_eq!(late, [Some(SendError::Closing); 3]);
}

/// Answers with its state, from the message itself and from a job.
struct Named;

impl Handler for Named {
    type State = String;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<String> {
        Answer::accept(request.path().to_owned())
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, String>, message: Message<'_>) {
        let (state, mut out) = ctx.split();
        state.push('!');
        out.send(&*state).expect("nothing waits");
        let text = message.as_text().unwrap_or_default().to_owned();
        let then = |out: &mut ringwire::Out<'_>, text: Result<String, _>| {
            out.send(&text.expect("it does not panic")).expect("nothing waits");
        };
        out.offload(move || text.to_uppercase(), then).expect("there is a worker");
    }
}

#[test]
fn state_and_output_are_there_at_once() {
    let config = config().with_compute_workers(1);
    let server = Server::with_handler(config, &["127.0.0.1:0"], |_, _| Named);
    let mut client = Client::upgrade(connect(server.addr()), &client_request("/anna"));
    for _ in 0..2 {
        client.send("hello");
        assert!(client.text().starts_with("/anna!"));
        assert_eq!(client.text(), "HELLO");
    }
}
