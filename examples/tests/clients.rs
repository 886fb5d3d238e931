//! The programs that are clients, against servers in the test.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use http::StatusCode;
use ringwire::{
    Accept, Answer, Config, Ctx, DriverKind, Handler, Message, Request, Response, Running, Server,
};
use serde_json::{Value, json};

const DRIVERS: [DriverKind; 2] = [DriverKind::Epoll, DriverKind::Uring];

/// How long anything that must happen may take, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program, and its lines of both outputs, of which each has an order of its own.
struct Program {
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<(usize, String)>,
    /// What came and was not looked for yet, on standard output and on standard error.
    unseen: [VecDeque<String>; 2],
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("it runs");
        let (sender, lines) = mpsc::channel();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let input = child.stdin.take();
        let read = |output, lines: Box<dyn std::io::BufRead + Send>| {
            let sender = sender.clone();
            thread::spawn(move || {
                lines.lines().map_while(Result::ok).try_for_each(|it| sender.send((output, it)))
            });
        };
        read(0, Box::new(BufReader::new(out.expect("it is piped"))));
        read(1, Box::new(BufReader::new(err.expect("it is piped"))));
        Self { child, input, lines, unseen: Default::default() }
    }

    /// Waits for a line that has this in it, and gives it. Lines before it on the same output are passed over.
    fn until(&mut self, part: &str) -> String {
        loop {
            for lines in &mut self.unseen {
                if let Some(place) = lines.iter().position(|line| line.contains(part)) {
                    return lines.drain(..=place).next_back().expect("it is there");
                }
            }
            let (output, line) =
                self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {part}"));
            self.unseen[output].push_back(line);
        }
    }

    fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("it is open");
        writeln!(input, "{line}").expect("it listens");
    }

    /// Ends its input, and waits for its own end.
    fn end(mut self) {
        drop(self.input.take());
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{:?}", self.lines.try_iter().collect::<Vec<_>>());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended already, or the test is over.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start<H: Handler>(
    driver: DriverKind,
    address: &str,
    handler: impl Fn() -> H + Send + Sync + Clone + 'static,
) -> (Running, String) {
    let config = Config::default().with_driver(driver).with_io_workers(1);
    let running = Server::new(config).listen(address).start(move |_| handler()).expect("it starts");
    let address = running.local_addrs()[0].to_string();
    (running, address)
}

/// Lets in who has the newest token, which it makes once the old one has been refused.
#[derive(Clone)]
struct Guard {
    file: std::path::PathBuf,
    parameter: Option<&'static str>,
}

impl Handler for Guard {
    type State = ();

    fn on_request(&mut self, request: &Request<'_>) -> Answer<()> {
        let is_name = |name: &str| name.eq_ignore_ascii_case("authorization");
        let headers = request.headers().filter(|(name, _)| is_name(name));
        let headers: Vec<_> = headers.map(|(_, value)| value.to_vec()).collect();
        let is_right = match self.parameter {
            None => headers == [b"Bearer n&w"],
            Some(_) => request.target() == "/chat?x=1&token=n%26w",
        };
        if is_right {
            return Answer::accept(());
        }
        fs::write(&self.file, "n&w\n").expect("there is room");
        Response::new(StatusCode::UNAUTHORIZED).into()
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, ()>, message: Message<'_>) {
        let _ = ctx.send(message);
    }
}

#[test]
fn reconnect_brings_the_token_that_is_in_the_file_then() {
    for driver in DRIVERS {
        for parameter in [None, Some("token")] {
            let dir = tempfile::tempdir().expect("there is room");
            let file = dir.path().join("token");
            fs::write(&file, "old\n").expect("there is room");
            let guard = Guard { file: file.clone(), parameter };
            let (_server, address) = start(driver, "127.0.0.1:0", move || guard.clone());
            let mut command = Command::new(env!("CARGO_BIN_EXE_reconnect"));
            command.arg(format!("ws://{address}/chat?token=none&x=1"));
            command.args(["--first-delay", "10ms", "--token-file"]).arg(&file);
            command.args(parameter.map(|name| format!("--token-parameter={name}")));
            let mut program = Program::start(&mut command);
            program.until("401");
            assert!(program.until("connected").contains("at attempt 2"));
            program.until("line 0");
        }
    }
}

/// Says what it was asked for.
#[derive(Clone)]
struct Mirror;

impl Handler for Mirror {
    type State = String;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<String> {
        let chosen = request.subprotocols().last().unwrap_or_default().to_owned();
        Accept::new(request.target().to_owned()).with_subprotocol(&chosen).into()
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, String>) {
        let target = ctx.state().clone();
        let _ = ctx.send(target.as_str());
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, String>, message: Message<'_>) {
        let _ = ctx.send(message);
    }
}

#[test]
fn client_takes_flags_and_variables() {
    for driver in DRIVERS {
        let (_server, address) = start(driver, "127.0.0.1:0", || Mirror);
        let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
        command.env("RINGWIRE_CLIENT_SUBPROTOCOLS", "chat.v2,chat");
        command.arg(format!("ws://{address}/room?name=x")).args(["--query", "name=a b&c"]);
        let mut program = Program::start(&mut command);
        program.until("subprotocol: chat");
        program.until("/room?name=a%20b%26c");
        program.say("hello");
        program.until("hello");
        program.end();
    }
}

/// The server of the protocol that `pubsub-client` speaks.
#[derive(Clone)]
struct Broker;

impl Handler for Broker {
    type State = ();

    fn on_request(&mut self, _: &Request<'_>) -> Answer<()> {
        Answer::accept(())
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, ()>, message: Message<'_>) {
        let request: Value = serde_json::from_slice(message.as_bytes()).expect("JSON");
        // What has none acknowledges a publication.
        let Some(topic) = request["topic"].as_str() else { return };
        if request["type"] == "subscribe" {
            ctx.subscribe(topic).expect("a topic");
        } else {
            let text = request.to_string();
            ctx.publish(topic, text.as_str()).expect("there is room");
        }
        if let Some(id) = request.get("id") {
            let _ = ctx.send(json!({ "ack": id }).to_string().as_str());
        }
    }
}

#[test]
fn pubsub_client_outlives_its_server() {
    for driver in DRIVERS {
        let own = format!("{}:0", ringwire_peers::own_loopback());
        let (server, address) = start(driver, &own, || Broker);
        let mut command = Command::new(env!("CARGO_BIN_EXE_pubsub-client"));
        command.args(["--reconnect", "--timeout", "20s", &format!("ws://{address}/"), "news"]);
        let mut program = Program::start(&mut command);
        program.say("news hello");
        program.until("news hello");
        server.handle().shutdown(Duration::ZERO);
        server.join().expect("it ends");
        let (_server, _) = start(driver, &address, || Broker);
        program.say("news again");
        program.until("news again");
        program.end();
    }
}
