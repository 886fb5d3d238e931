//! A node of a cluster: clients subscribe to topics and publish, whichever node they are on.
//!
//! ```text
//! node --listen 127.0.0.1:9001 --nats nats://127.0.0.1:4222 --node one
//! ```
//!
//! It obeys `sub TOPIC`, `like PATTERN`, `unsub TOPIC`, `unlike PATTERN`, each of which is answered with `ok`, and
//! `pub TOPIC TEXT`. Errors are answered with their text. Without `--nats` it is a server by itself.
//!
//! Topics `kept.…` have a history: `from TOPIC`, or `from TOPIC EPOCH OFFSET` after that was heard, is answered with
//! `EPOCH OFFSET whole`, or `gone`, and what was missed. Their messages are `EPOCH OFFSET PREVIOUS TEXT`. With
//! `--history memory` or `file` a stream of JetStream numbers them for all nodes.

use std::process::ExitCode;

use ringwire::cluster::Bus;
use ringwire::program::{OwnSetting, Program};
use ringwire::settings::{Settings, SettingsError};
use ringwire::topics::{HistoryConfig, Position, TopicConfig};
use ringwire::{Answer, Config, Ctx, Handler, Message, Request, Router};
use ringwire_nats::async_nats::jetstream::stream::StorageType;
use ringwire_nats::{NatsBus, NatsHistory};

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
            "from" => return follow(ctx, rest),
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

/// Subscribes to a topic from where it was heard to.
fn follow(ctx: &mut Ctx<'_, ()>, command: &str) {
    let mut words = command.split(' ');
    let topic = words.next().unwrap_or_default();
    let mut number = || words.next()?.parse().ok();
    let since = number().zip(number()).map(|(epoch, offset)| Position { epoch, offset });
    let outcome = ctx.recover(topic, since, |ctx, recovery| {
        let recovery = match recovery {
            Ok(recovery) => recovery,
            Err(error) => {
                let _ = ctx.send(error.to_string().as_str());
                return;
            }
        };
        let Position { epoch, offset } = recovery.position;
        let word = if recovery.missed.is_some() { "whole" } else { "gone" };
        let _ = ctx.send(format!("{epoch} {offset} {word}").as_str());
        for recorded in recovery.missed.unwrap_or_default() {
            let _ = ctx.send(recorded.message());
        }
    });
    if let Err(error) = outcome {
        let _ = ctx.send(error.to_string().as_str());
    }
}

fn stamp(message: Message<'_>, position: Position, previous: Option<u64>) -> Vec<u8> {
    let Position { epoch, offset } = position;
    let previous = previous.map_or_else(|| "?".to_owned(), |previous| previous.to_string());
    let mut stamped = format!("{epoch} {offset} {previous} ").into_bytes();
    stamped.extend_from_slice(message.as_bytes());
    stamped
}

/// How many messages a topic keeps.
const KEPT: usize = 30;

fn history(settings: &Settings) -> Result<Option<NatsHistory>, SettingsError> {
    let storage = match settings.own("history") {
        None => return Ok(None),
        Some("memory") => StorageType::Memory,
        Some("file") => StorageType::File,
        Some(_) => return Err(settings.wrong("history", "it is memory or file")),
    };
    let mut history = NatsHistory::default().with_storage(storage).with_max_count(KEPT);
    if let Some(count) = settings.own("history_replicas") {
        let count = count.parse().map_err(|_| settings.wrong("history_replicas", "no number"))?;
        history = history.with_replicas(count);
    }
    if let Some(patience) = settings.own_duration("history_patience")? {
        history = history.with_patience(patience);
    }
    Ok(Some(history))
}

fn main() -> ExitCode {
    let kept = HistoryConfig::default().with_max_count(KEPT).with_max_age(None).with_stamp(stamp);
    let topics = TopicConfig::default().with_history("kept.>", kept);
    Program::new("node")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_about("A WebSocket server on which clients of all nodes hear each other.")
        .with_defaults(Config::default().with_topics(topics))
        .with_own_setting(
            OwnSetting::new("nats").with_about("NATS: addresses with commas between them"),
        )
        .with_own_setting(OwnSetting::new("node").with_about("What NATS calls this node"))
        .with_own_setting(
            OwnSetting::new("nats_ping").with_about("How often NATS is asked whether it is there"),
        )
        .with_own_setting(
            OwnSetting::new("history").with_about("Where JetStream keeps histories: memory, file"),
        )
        .with_own_setting(
            OwnSetting::new("history_replicas").with_about("On how many servers of NATS"),
        )
        .with_own_setting(
            OwnSetting::new("history_patience").with_about("How long JetStream is waited for"),
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
            if let Some(history) = history(settings)? {
                bus = bus.with_history(history);
            }
            Ok(Some(Box::new(bus) as Box<dyn Bus>))
        })
        .run(|worker| Router::new().monitoring(worker.handle()).websocket("/", Talk))
}
