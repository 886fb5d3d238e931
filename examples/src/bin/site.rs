//! A page, a JSON API and WebSockets on one port: notes by name, kept in memory.

use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use http::{HeaderValue, StatusCode, header};
use ringwire::{
    Config, Handle, Handler, Message, Response, Router, Server,
    admission::{Network, ProxyProtocol},
    on_message,
    router::{Asset, SocketOptions},
    transport::Listener,
};
use ringwire_examples::{Certificate, Cores, DriverFlag, announce, handle_signals, program};
use serde_json::{Map, Value, json};

/// How long connections may take to close on SIGTERM or SIGINT.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
/// The most notes that are kept.
const MAX_NOTE_COUNT: usize = 1000;

/// Shared by the routes; they all run on the worker's thread.
type Notes = Rc<RefCell<Map<String, Value>>>;

/// A page, a JSON API and WebSockets on one port.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// Where to listen; port 0 takes a free one. May be given several times.
    #[arg(long, default_value = "127.0.0.1:9002")]
    listen: Vec<String>,
    /// Where to listen for TLS as well. May be given several times.
    #[arg(long, requires = "cert")]
    tls_listen: Vec<String>,
    #[command(flatten)]
    certificate: Certificate,
    /// Proxies of this network, such as 10.0.0.0/8, begin each connection with a PROXY header, and nobody else
    /// connects. May be given several times.
    #[arg(long, value_name = "NETWORK")]
    proxy_protocol: Vec<Network>,
    /// How many trusted proxies have added an address to X-Forwarded-For.
    #[arg(long, default_value_t = 1)]
    forwarded_hops: usize,
    /// Threads beside the worker that take over the costly part of TLS handshakes.
    #[arg(long, default_value_t = 0)]
    compute_workers: usize,
    /// The kernel back end.
    #[arg(long, value_enum, default_value_t)]
    driver: DriverFlag,
    /// The core of the worker, `none`, or `auto`.
    #[arg(long, default_value = "auto")]
    pin: Cores,
}

fn main() -> ExitCode {
    program(run)
}

fn run() -> Result<()> {
    let flags = Flags::parse();
    // The notes are the worker's own, so there is one worker.
    let config = Config::default()
        .with_io_workers(1)
        .with_compute_workers(flags.compute_workers)
        .with_driver(flags.driver.into())
        .with_pinning(flags.pin.clone().into());
    let proxy = match flags.proxy_protocol.as_slice() {
        [] => ProxyProtocol::Off,
        trusted => ProxyProtocol::required(trusted.iter().copied()),
    };
    let listener = |address| Listener::address(address).with_proxy_protocol(proxy.clone());
    let mut server = Server::new(config);
    for address in &flags.listen {
        server = server.listen_with(listener(address));
    }
    if !flags.tls_listen.is_empty() {
        let tls = flags.certificate.server()?;
        for address in &flags.tls_listen {
            server = server.listen_with(listener(address).with_tls(tls.clone()));
        }
    }
    let server = server.start(move |worker| site(worker.handle(), flags.forwarded_hops))?;
    handle_signals(server.handle(), SHUTDOWN_LIMIT).context("cannot handle signals")?;
    announce(server.urls().map(|url| format!("listening on {url}")));
    server.join()?;
    Ok(())
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
            match one.borrow().get(name) {
                Some(note) => Response::json(note.to_string()),
                None => Response::new(StatusCode::NOT_FOUND),
            }
        })
        .put("/api/notes/{name}", move |request| {
            let name = request.param("name").unwrap_or_default();
            match serde_json::from_slice(request.body()) {
                Ok(note) => insert(&mut put.borrow_mut(), name, note),
                Err(error) => {
                    Response::text(format!("{error}\n")).with_status(StatusCode::BAD_REQUEST)
                }
            }
        })
        .delete("/api/notes/{name}", move |request| {
            let removed = delete.borrow_mut().remove(request.param("name").unwrap_or_default());
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
