//! A node of a cluster: clients subscribe to topics and publish, whichever node they are on.
//!
//! ```text
//! node --listen 127.0.0.1:9001 --nats nats://127.0.0.1:4222 --node one
//! ```
//!
//! It obeys `sub TOPIC`, `like PATTERN`, `unsub TOPIC`, `unlike PATTERN`, each of which is answered with `ok`, and
//! `pub TOPIC TEXT`. Errors are answered with their text. Without `--nats` it is a server by itself.

use std::process::ExitCode;

use ringwire::cluster::Bus;
use ringwire::program::{OwnSetting, Program};
use ringwire::{Answer, Ctx, Handler, Message, Request, Router};
use ringwire_nats::NatsBus;

struct Talk;

impl Handler for Talk {
    type State = ();

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<()> {
        Answer::accept(())
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, ()>, message: Message<'_>) {
        let Some(command) = message.as_text() else { return };
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        let outcome = match verb {
            "sub" => ctx.subscribe(rest).map_err(|error| error.to_string()),
            "like" => ctx.subscribe_pattern(rest).map_err(|error| error.to_string()),
            "unsub" => Ok(ctx.unsubscribe(rest)),
            "unlike" => Ok(ctx.unsubscribe_pattern(rest)),
            "pub" => {
                let (topic, text) = rest.split_once(' ').unwrap_or((rest, ""));
                match ctx.publish(topic, text) {
                    Ok(()) => return,
                    Err(error) => Err(error.to_string()),
                }
            }
            _ => Err(format!("no command: {verb}")),
        };
        // One that is closing hears nothing more.
        let _ = match outcome {
            Ok(_) => ctx.send("ok"),
            Err(error) => ctx.send(error.as_str()),
        };
    }
}

fn main() -> ExitCode {
    Program::new("node")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_about("A WebSocket server on which clients of all nodes hear each other.")
        .with_own_setting(
            OwnSetting::new("nats").with_about("NATS: addresses with commas between them"),
        )
        .with_own_setting(OwnSetting::new("node").with_about("What NATS calls this node"))
        .with_own_setting(
            OwnSetting::new("nats_ping").with_about("How often NATS is asked whether it is there"),
        )
        .with_bus(|settings| {
            let Some(servers) = settings.own("nats") else { return Ok(None) };
            let mut bus = NatsBus::new(servers)?;
            if let Some(name) = settings.own("node") {
                bus = bus.with_name(name);
            }
            if let Some(interval) = settings.own_duration("nats_ping")? {
                bus = bus.with_ping_interval(interval);
            }
            Ok(Some(Box::new(bus) as Box<dyn Bus>))
        })
        .run(|worker| Router::new().monitoring(worker.handle()).websocket("/", Talk))
}
