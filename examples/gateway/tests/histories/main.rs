//! Three gateways, each a process, and a NATS with JetStream: what tests/cluster/run runs. Members of rooms leave one
//! gateway and come back to another while others speak.

#[path = "../cluster/token.rs"]
mod token;

use std::env;
use std::net::SocketAddr;

use ringwire::client::Client;
use ringwire_peers::{Http, Process, free_addr, program_in, wait_until};
use serde_json::{Value, json};

use crate::token::{SECRET, token};

/// How many messages a room keeps.
const KEPT: usize = 20;

fn start(variable: &str, arguments: &[&str], addr: SocketAddr) -> Process {
    let mut program = program_in(variable, "tests/cluster/run");
    Process::start(program.args(arguments).env("JWT_SECRET", SECRET), addr)
}

fn nats(folder: &str) -> Process {
    let addr = free_addr();
    let port = addr.port().to_string();
    let log = ["-l", "/dev/null"];
    let arguments = [["-a", "127.0.0.1"], ["-p", &port], ["-sd", folder], log].concat();
    start("CLUSTER_NATS_SERVER", &[&arguments[..], &["-js"]].concat(), addr)
}

fn gateway(nats: &Process, name: &str) -> Process {
    let addr = free_addr();
    let driver = env::var("RINGWIRE_DRIVER").unwrap_or_else(|_| "epoll".to_owned());
    let (listen, kept) = (addr.to_string(), KEPT.to_string());
    let servers = format!("nats://{}", nats.addr());
    let arguments = [
        ["--listen", &listen],
        ["--nats", &servers],
        ["--node", name],
        ["--nats-history", "memory"],
        ["--nats-history-patience", "20s"],
        ["--rooms-history", &kept],
        ["--driver", &driver],
        ["--io-workers", "2"],
        ["--pin", "none"],
    ];
    let gateway = start("CLUSTER_GATEWAY", &arguments.concat(), addr);
    wait_until("it is ready", || Http::connect(addr).get("/readyz").status() == 200);
    gateway
}

type Position = (u64, u64);

fn position(message: &Value) -> Position {
    let number = |name: &str| message[name].as_u64().unwrap_or_else(|| panic!("{message}"));
    (number("epoch"), number("offset"))
}

struct Member {
    client: Client,
    /// Up to where the room was heard.
    at: Position,
    is_complete: bool,
}

impl Member {
    fn come(gateway: &Process, user: usize, since: Option<Position>) -> Self {
        let url = format!("ws://{}/ws?token={}", gateway.addr(), token(user));
        let builder = Client::builder().without_proxy().with_subprotocol("rooms.json");
        let mut client = builder.connect(&url).expect("it is let in");
        let recover = since.map_or_else(
            || json!({}),
            |(epoch, offset)| json!({ "epoch": epoch, "offset": offset }),
        );
        let subscribe =
            json!({ "type": "subscribe", "topic": "news", "recover": recover, "id": 7 });
        client.send_text(&subscribe.to_string()).expect("it is open");
        let answer = hear(&mut client);
        assert_eq!((&answer["type"], &answer["ack"]), (&json!("recovery"), &json!(7)), "{answer}");
        let is_complete = answer["complete"] == true;
        let at = since.filter(|_| is_complete).unwrap_or_else(|| position(&answer));
        Self { client, at, is_complete }
    }

    fn say(&mut self, number: usize) {
        let publish = json!({ "type": "publish", "topic": "news", "message": number });
        self.client.send_text(&publish.to_string()).expect("it is open");
    }

    /// The next is this one, and follows what was heard.
    fn expect(&mut self, number: usize) {
        let message = hear(&mut self.client);
        let (epoch, offset) = position(&message);
        let before = message.get("previous").map_or(Some(offset - 1), Value::as_u64);
        assert_eq!(
            (&message["message"], epoch, before),
            (&json!(number), self.at.0, Some(self.at.1))
        );
        self.at = (epoch, offset);
    }
}

fn hear(client: &mut Client) -> Value {
    let message = client.receive().expect("it is open").expect("it is not closed");
    serde_json::from_str(message.as_text().expect("a text")).expect("it is JSON")
}

#[test]
fn members_of_rooms_come_back_to_any_gateway() {
    let folder = tempfile::tempdir().expect("there is room");
    let nats = nats(folder.path().to_str().expect("it is text"));
    let gateways: Vec<_> = ["a", "b", "c"].iter().map(|name| gateway(&nats, name)).collect();
    let mut speakers: Vec<_> =
        (0..3).map(|user| Member::come(&gateways[user], user, None)).collect();
    let mut said = 0;
    // How many are missed each time; more than are kept at the end.
    for gap in (0..=KEPT).chain([3, KEPT, KEPT + 1, 3 * KEPT]) {
        let mut member = Member::come(&gateways[gap % 3], 10, None);
        speakers[gap % 3].say(said);
        [&mut member].into_iter().chain(&mut speakers).for_each(|it| it.expect(said));
        said += 1;
        let since = member.at;
        drop(member);
        for _ in 0..gap {
            speakers[said % 3].say(said);
            speakers.iter_mut().for_each(|speaker| speaker.expect(said));
            said += 1;
        }
        for gateway in &gateways {
            let mut member = Member::come(gateway, 10, Some(since));
            assert_eq!(member.is_complete, gap <= KEPT, "{gap} were missed");
            if member.is_complete {
                (said - gap..said).for_each(|number| member.expect(number));
            }
            assert_eq!(member.at, speakers[0].at);
        }
    }
}
