//! A page, a JSON API and WebSockets on one port: notes by name, kept in memory.

use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;

use http::{HeaderValue, StatusCode, header};
use ringwire::program::{OwnSetting, Program};
use ringwire::{
    Config, Handle, Handler, Message, Response, Router, Sizing, WorkerContext, on_message,
    router::{Asset, SocketOptions},
};
use serde_json::{Map, Value, json};

/// The most notes that are kept.
const MAX_NOTE_COUNT: usize = 1000;

/// Shared by the routes; they all run on the worker's thread.
type Notes = Rc<RefCell<Map<String, Value>>>;

fn main() -> ExitCode {
    let hops = OwnSetting::new("forwarded_hops").with_about(
        "How many trusted proxies have added an address to X-Forwarded-For [default: 1]",
    );
    Program::new("site")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_about("A page, a JSON API and WebSockets on one port.")
        .with_address("127.0.0.1:9002")
        .with_defaults(Config::default().with_io_workers(1))
        .with_own_setting(hops)
        .run_with(|settings| {
            if settings.config().io_workers != Sizing::Fixed(1) {
                return Err(
                    "the notes are the worker's own, so there has to be one: io_workers = 1".into(),
                );
            }
            let hops = settings.own_as("forwarded_hops")?.unwrap_or(1);
            Ok(move |worker: &WorkerContext| site(worker.handle(), hops))
        })
}

/// Metrics are among its routes, so a proxy in front of it should keep `/metrics` and `/stats` to itself.
fn site(handle: &Handle, forwarded_hops: usize) -> impl Handler + use<> {
    let notes = Notes::default();
    let [all, one, put, delete, count] = std::array::from_fn(|_| Rc::clone(&notes));
    Router::new()
        .asset("/", Asset::html(include_str!("../site.html")))
        .monitoring(handle)
        .get("/client", move |request| {
            let address = request.peer_addr().to_string();
            let forwarded_for = request.forwarded_for(forwarded_hops).map(|ip| ip.to_string());
            let client = json!({ "address": address, "forwarded_for": forwarded_for });
            Response::json(client.to_string())
        })
        .get("/api/notes", move |_| Response::json(Value::from(all.borrow().clone()).to_string()))
        .get("/api/notes/{name}", move |request| {
            let name = request.param("name").unwrap_or_default();
            match one.borrow().get(&*name) {
                Some(note) => Response::json(note.to_string()),
                None => Response::new(StatusCode::NOT_FOUND),
            }
        })
        .put("/api/notes/{name}", move |request| {
            let name = request.param("name").unwrap_or_default();
            match serde_json::from_slice(request.body()) {
                Ok(note) => insert(&mut put.borrow_mut(), &name, note),
                Err(error) => {
                    Response::text(format!("{error}\n")).with_status(StatusCode::BAD_REQUEST)
                }
            }
        })
        .delete("/api/notes/{name}", move |request| {
            let removed = delete.borrow_mut().remove(&*request.param("name").unwrap_or_default());
            Response::new(match removed {
                Some(_) => StatusCode::NO_CONTENT,
                None => StatusCode::NOT_FOUND,
            })
        })
        .get("/old", |_| {
            Response::new(StatusCode::FOUND)
                .with_header(header::LOCATION, HeaderValue::from_static("/"))
        })
        .websocket("/echo", on_message(|ctx, message| ctx.send(message)))
        .websocket_with(
            "/ask",
            on_message(move |ctx, message| {
                let text = match message {
                    Message::Text("count") => count.borrow().len().to_string(),
                    Message::Text("address") => ctx.peer_addr().to_string(),
                    _ => "I know a count and an address\n".to_owned(),
                };
                let _ = ctx.send(text.as_str());
            }),
            SocketOptions::default().with_subprotocols(["ask"]).with_max_message_len(100),
        )
}

fn insert(notes: &mut Map<String, Value>, name: &str, note: Value) -> Response {
    if notes.len() >= MAX_NOTE_COUNT && !notes.contains_key(name) {
        return Response::new(StatusCode::INSUFFICIENT_STORAGE);
    }
    Response::new(match notes.insert(name.to_owned(), note) {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::CREATED,
    })
}
