//! The router of messages by their type, with an application of its own.

use ringwire::json::{Dispatch, DispatchError};
use ringwire::testing::{Sim, Stage};
use ringwire::{Answer, Config, Ctx, Handler, Message, Request};
use serde::Deserialize;

#[derive(Deserialize)]
struct Add {
    by: u32,
}

#[derive(Deserialize)]
struct Reset {}

struct Sums(Dispatch<u32, u32>);

impl Sums {
    fn new() -> Self {
        Self(
            Dispatch::new()
                .on("add", |ctx, Add { by }| {
                    *ctx.state_mut() += by;
                    *ctx.state()
                })
                .on("reset", |ctx, Reset {}| std::mem::take(ctx.state_mut())),
        )
    }
}

impl Handler for Sums {
    type State = u32;

    fn on_request(&mut self, _: &Request<'_>) -> Answer<u32> {
        Answer::accept(0)
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, u32>, message: Message<'_>) {
        let answer = match self.0.run(ctx, message.as_text().unwrap_or_default()) {
            Ok(sum) => sum.to_string(),
            Err(DispatchError::NoType) => "no type".to_owned(),
            Err(DispatchError::Unknown) => "unknown".to_owned(),
            Err(error) => error.to_string(),
        };
        let _ = ctx.send(&answer);
    }
}

#[test]
fn messages_find_their_handlers() {
    let mut sim = Sim::new(Config::default(), |_worker| Sums::new());
    let mut peer = Stage::connect(&mut sim, "/").expect_open();
    let malformed = "the message lacks a member, or has one of a wrong type";
    for (message, answer) in [
        (r#"{"type":"add","by":2}"#, "2"),
        (r#"{"by":3,"type":"\u0061dd","more":[1]}"#, "5"),
        (r#"{"type":"add"}"#, malformed),
        (r#"{"type":"add","by":-1}"#, malformed),
        (r#"{"type":"subtract","by":1}"#, "unknown"),
        (r#"{"type":7}"#, "no type"),
        (r#"["add"]"#, "no type"),
        (r#"{"type":"add","by":2"#, "no type"),
        ("", "no type"),
        (r#"{"type":"reset"}"#, "5"),
        (r#"{"type":"add","by":1}"#, "1"),
    ] {
        peer.send(message);
        assert_eq!(peer.text(), answer, "{message}");
    }
}
