//! Topics: who gets what is published, over several workers.

mod slow;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ringwire::tls::pki_types::UnixTime;
use ringwire::tls::{CertificateSource, ClientSettings, Roots, ServerSettings};
use ringwire::{
    Config, Ctx, Message,
    compression::CompressionConfig,
    topics::{
        PublishError, PublishOptions, SubscribeOptions, Subscription, TopicConfig, TopicError,
    },
    transport::Dial,
};
use ringwire_codec::deflate::Offer;
use ringwire_peers::Client;

use crate::support::app::{App, Seen};
use crate::support::{PATIENCE, Server, config, wait_until};

/// Obeys commands: `sub T`, `like P`, `each P`, `unsub T`, `unlike P`, `has T`, `pub T TEXT`, `others T TEXT`, `list`,
/// `name N`, `strangers T N TEXT`,
/// `key T K TEXT`, `many T COUNT`. All but the publishing ones are answered.
fn obey(ctx: &mut Ctx<'_, u32>, command: &str) {
    let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
    let (topic, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let answer = match verb {
        "sub" => said(ctx.subscribe(topic)),
        "each" => {
            let options = SubscribeOptions::default().with_duplicates();
            said(ctx.subscribe_pattern_with(topic, options))
        }
        "like" => said(ctx.subscribe_pattern(topic)),
        "unsub" => ctx.unsubscribe(topic).to_string(),
        "unlike" => ctx.unsubscribe_pattern(topic).to_string(),
        "has" => ctx.is_subscribed(topic).to_string(),
        "list" => {
            let mut all: Vec<_> = ctx
                .subscriptions()
                .map(|own| match own {
                    Subscription::Pattern(pattern) => format!("({pattern})"),
                    topic => topic.to_string(),
                })
                .collect();
            all.sort();
            all.join(" ")
        }
        "pub" => return refused(ctx.publish(topic, text)),
        "others" => {
            let options = PublishOptions::default().with_except(ctx.id());
            return refused(ctx.publish_with(topic, text, options));
        }
        "name" => ctx.register(topic).expect("a good name").to_string(),
        "strangers" => {
            let (name, text) = text.split_once(' ').expect("a name and a text");
            let options = PublishOptions::default().with_except_name(name);
            return refused(ctx.publish_with(topic, text, options));
        }
        "key" => {
            let (key, text) = text.split_once(' ').expect("a key and a text");
            let key = key.parse().expect("a number");
            let options = PublishOptions::default().with_key(key);
            return refused(ctx.publish_with(topic, text, options));
        }
        "many" => {
            let count = text.parse::<u32>().expect("a number");
            return (0..count)
                .for_each(|index| refused(ctx.publish(topic, index.to_string().as_str())));
        }
        other => panic!("no command: {other}"),
    };
    let _ = ctx.send(answer.as_str());
}

fn said(outcome: Result<bool, TopicError>) -> String {
    outcome.map_or_else(|error| error.to_string(), |is_new| is_new.to_string())
}

fn refused(outcome: Result<(), PublishError>) {
    outcome.expect("the topic is one, and nobody is behind");
}

pub(crate) fn app(app: App) -> App {
    app.on_message(|ctx, message| match message {
        Message::Text(text) => obey(ctx, text),
        Message::Binary(_) => panic!("commands are texts"),
    })
}

pub(crate) fn quiet() -> Config {
    config().with_idle_timeout(None).with_write_stall_timeout(None)
}

fn server(workers: usize) -> Server {
    Server::start(quiet().with_io_workers(workers), app)
}

fn subscriber(addr: SocketAddr, topics: &[&str]) -> Client {
    let mut client = Client::connect(addr);
    for topic in topics {
        let verb = if topic.contains(['*', '>']) { "like" } else { "sub" };
        ask(&mut client, &format!("{verb} {topic}"), "true");
    }
    client
}

pub(crate) fn ask(client: &mut Client, command: &str, answer: &str) {
    client.send(Message::Text(command));
    assert_eq!(client.text(), answer, "{command}");
}

#[test]
fn connections_of_a_name_are_left_out() {
    let server = server(2);
    let mut clients: Vec<_> = (0..12).map(|_| Client::connect(server.addr())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        ask(client, &format!("name {}", ["ann", "ben", "cem"][number % 3]), "true");
        ask(client, "sub news", "true");
    }
    // In one turn, so that they could be joined to one piece of output.
    for command in ["strangers news ann 1", "strangers news ben 2", "pub news 3"] {
        clients[2].send(Message::Text(command));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let expected = [&["2", "3"][..], &["1", "3"], &["1", "2", "3"]][number % 3];
        let got: Vec<_> = expected.iter().map(|_| client.text()).collect();
        assert_eq!(got, expected, "client {number}");
    }
}

#[test]
fn a_publication_reaches_all_workers() {
    let server = server(3);
    let mut clients: Vec<_> = (0..24).map(|_| subscriber(server.addr(), &["news"])).collect();
    let mut stranger = subscriber(server.addr(), &["olds"]);
    clients[0].send(Message::Text("pub news first"));
    clients[7].send(Message::Text("others news second"));
    for (number, client) in clients.iter_mut().enumerate() {
        let mut got = vec![client.text()];
        if number != 7 {
            got.push(client.text());
        }
        got.sort();
        assert_eq!(got, ["first", "second"][..got.len()]);
        assert_eq!(got.len(), 2 - usize::from(number == 7));
    }
    server.handle().publish("news", "third").expect("there is such a topic");
    for client in &mut clients {
        assert_eq!(client.text(), "third");
    }
    ask(&mut stranger, "list", "olds");
    let stats = server.stats();
    assert_eq!((stats.subscriptions, stats.publications), (25, 2));
    assert_eq!(stats.deliveries, 24 + 23 + 24);
}

#[test]
fn wildcards_take_in_what_they_say_and_nobody_gets_a_message_twice() {
    let server = server(2);
    let mut all = subscriber(server.addr(), &[">", "a.*.c", "a.b.c"]);
    let mut some = subscriber(server.addr(), &["a.*.c"]);
    let mut rest = subscriber(server.addr(), &["a.>"]);
    let mut each = Client::connect(server.addr());
    ask(&mut each, "sub a.b.c", "true");
    ask(&mut each, "each a.*.c", "true");
    ask(&mut each, "each a.>", "true");
    let handle = server.handle();
    assert_eq!(handle.subscriber_count("a.b.c").wait(PATIENCE), Ok(4));
    for topic in ["a.b.c", "a", "a.x.c", "a.b"] {
        handle.publish(topic, topic).expect("a topic");
    }
    handle.publish("a.last", "end").expect("a topic");
    let until_end = |client: &mut Client| {
        let texts = std::iter::repeat_with(|| client.text());
        texts.take_while(|text| text != "end").collect::<Vec<_>>().join(" ")
    };
    assert_eq!(until_end(&mut all), "a.b.c a a.x.c a.b");
    assert_eq!(until_end(&mut rest), "a.b.c a.x.c a.b");
    assert_eq!(until_end(&mut each), "a.b.c a.b.c a.b.c a.x.c a.x.c a.b");
    assert_eq!((some.text().as_str(), some.text().as_str()), ("a.b.c", "a.x.c"));
}

#[test]
fn bad_topics_and_too_many_subscriptions_are_errors() {
    let topics = TopicConfig::default().with_max_subscriptions(2);
    let server = Server::start(quiet().with_topics(topics), app);
    let mut client = Client::connect(server.addr());
    for verb in ["sub", "like"] {
        for (topic, error) in [
            ("a..b", "a topic has an empty token"),
            ("", "a topic has an empty token"),
            (&"x".repeat(256), "a topic is longer than 255 bytes"),
        ] {
            ask(&mut client, &format!("{verb} {topic}"), error);
        }
    }
    ask(&mut client, "like a*", "`*` has to be a whole token, and `>` the last one");
    ask(&mut client, "sub one", "true");
    ask(&mut client, "sub one", "false");
    ask(&mut client, "sub two", "true");
    // What is there already takes no other place.
    ask(&mut client, "sub two", "false");
    ask(
        &mut client,
        "sub three",
        "the connection has too many subscriptions (setting: topics.max_subscriptions)",
    );
    ask(&mut client, "unsub one", "true");
    ask(&mut client, "unsub one", "false");
    ask(&mut client, "sub three", "true");
    ask(&mut client, "list", "three two");
    let wrong = server.handle().publish("a.*", "x");
    assert_eq!(wrong, Err(PublishError::Topic(TopicError::Wildcard)));
}

/// The name of a room that a peer has chosen is no pattern, and ends none.
#[test]
fn only_a_pattern_hears_more_than_one_topic() {
    let server = server(2);
    let mut client = Client::connect(server.addr());
    let wild =
        "a topic has `*` or `>` in it, which are for the patterns of `subscribe_pattern` only";
    for topic in [">", "*", "room.>", "room.*", "a*", "a.>.b"] {
        ask(&mut client, &format!("sub {topic}"), wild);
        let published = server.handle().publish(topic, "to all rooms");
        assert_eq!(published, Err(PublishError::Topic(TopicError::Wildcard)));
    }
    ask(&mut client, "list", "");
    ask(&mut client, "like room.*", "true");
    ask(&mut client, "like room.*", "false");
    ask(&mut client, "has room.1", "false");
    ask(&mut client, "has room.*", "false");
    ask(&mut client, "sub room.1", "true");
    ask(&mut client, "has room.1", "true");
    ask(&mut client, "list", "(room.*) room.1");
    ask(&mut client, "unsub room.*", "false");
    ask(&mut client, "unsub room.2", "false");
    ask(&mut client, "unlike room.*", "true");
    ask(&mut client, "unlike room.*", "false");
    // Without a wildcard it is the topic.
    ask(&mut client, "like room.1", "false");
    ask(&mut client, "unlike room.1", "true");
    ask(&mut client, "has room.1", "false");
    ask(&mut client, "list", "");
}

/// Whatever ended the connection.
#[test]
fn a_membership_ends_with_its_connection() {
    let server = server(2);
    let handle = server.handle();
    let mut closing = subscriber(server.addr(), &["t", "t.>"]);
    let resetting = subscriber(server.addr(), &["t"]);
    let leaving = subscriber(server.addr(), &["t", ">"]);
    let kicked = subscriber(server.addr(), &["t"]);
    assert_eq!(handle.subscriber_count("t").wait(PATIENCE), Ok(4));
    let listed = handle.topics().wait(PATIENCE).expect("the workers answer");
    let expected = [("t", 4), ("t.>", 1), (">", 1)].map(|(topic, count)| (topic.to_owned(), count));
    assert_eq!(listed, BTreeMap::from(expected));
    closing.close(1000, "");
    resetting.reset();
    leaving.leave();
    drop(kicked);
    wait_until("all are gone", || server.stats().open_connections == 0);
    assert_eq!(handle.topics().wait(PATIENCE), Ok(BTreeMap::new()));
    assert_eq!(server.stats().subscriptions, 0);
    handle.publish("t", "to nobody").expect("a topic");
}

/// One copy as it is, one for each window, TLS, and the frames of a client, which are masked.
#[test]
fn each_kind_of_connection_gets_its_own_form() {
    let compression = CompressionConfig::dedicated().with_threshold(100);
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it is a name");
    let (cert, key_pem) = (key.cert.pem(), key.signing_key.serialize_pem());
    let source = CertificateSource::pem(cert.clone(), key_pem);
    let tls = ServerSettings::new(source).build(UnixTime::now()).expect("a good certificate");
    let trusting =
        ClientSettings::new(Roots::pem(cert)).build(UnixTime::now()).expect("a good root");
    let server = Server::secure(quiet().with_io_workers(2).with_compression(compression), tls, app);
    let [plain, secure] = server.addrs() else { panic!("two addresses") };
    let mut clients = vec![subscriber(*plain, &["t"])];
    for bits in [9, 12, 15, 15] {
        let window = ringwire::compression::WindowBits::new(bits).expect("8 to 15");
        let offer = Offer::default().with_server_max_window_bits(window);
        let mut client = Client::offering(*plain, offer);
        assert!(client.is_compressed());
        ask(&mut client, "sub t", "true");
        clients.push(client);
    }
    let builder = ringwire::client::Client::builder().with_tls(trusting).without_proxy();
    let url = format!("wss://localhost:{}", secure.port());
    let mut over_tls = builder.connect(&url).expect("it connects");
    over_tls.send_text("sub t").expect("it sends");
    let mut hear = || over_tls.receive_timeout(PATIENCE).expect("it is open").expect("in time");
    assert_eq!(hear().as_text(), Some("true"));
    let long = "the same again and ".repeat(50);
    for text in ["short", &long, &long, "last"] {
        server.handle().publish("t", text).expect("a topic");
        for client in &mut clients {
            assert_eq!(client.text(), text);
        }
        assert_eq!(hear().as_text(), Some(text));
    }
    // What else is sent in between refers to what the client has.
    for client in &mut clients {
        ask(client, "list", "t");
    }
}

/// A connection that this side opened is the client: what it gets is masked.
#[test]
fn a_server_that_was_dialled_may_subscribe() {
    let far = Server::echo(quiet());
    let near = Server::start(quiet(), |app: App| {
        app.on_open(|ctx| assert_eq!(ctx.subscribe("t"), Ok(true))).on_message(|_, _| {})
    });
    let dial = Dial::new(far.addr(), "far", "/").expect("a good request");
    near.handle().connect(&dial, 7_u32).expect("it dials");
    wait_until("it subscribes", || near.stats().subscriptions == 1);
    near.handle().publish("t", "hello").expect("a topic");
    far.find("the message", |_, seen| (seen == Seen::Text("hello".into())).then_some(()));
}
