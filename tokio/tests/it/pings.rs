//! Pings and pongs.

use std::time::Duration;

use ringwire_tokio::codec::{self, Limit};
use ringwire_tokio::{Config, Error, KeepAliveConfig, Timeout};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep};

use crate::{pair, run_paused, text};

fn config() -> Config {
    Config::default().with_keep_alive(
        KeepAliveConfig::default()
            .with_interval(Duration::from_secs(20))
            .with_pong_timeout(Duration::from_secs(5)),
    )
}

#[test]
fn pings_are_answered_while_receiving() {
    run_paused(async {
        let (mut client, mut server) = pair(&Config::default(), 1000);
        client.ping(b"hello").await.unwrap();
        client.send("text").await.unwrap();
        assert_eq!(server.receive().await.unwrap(), text("text"));
        // The pong is nothing that a client is told of, and no end.
        server.send("reply").await.unwrap();
        assert_eq!(client.receive().await.unwrap(), text("reply"));
    });
}

/// Also those in one read, and before what the application says to what comes behind them.
#[test]
fn each_ping_has_its_pong() {
    run_paused(async {
        let (mut peer, far) = tokio::io::duplex(1000);
        let (_, mut server) = pair(&Config::default(), 1);
        *server.transport_mut() = far;
        let pings = (0..10).map(|number| [0x89, 0x81, 0, 0, 0, 0, number]);
        let all: Vec<u8> = pings.flatten().chain([0x81, 0x80, 0, 0, 0, 0]).collect();
        peer.write_all(&all).await.unwrap();
        let message = server.receive().await.unwrap().unwrap();
        server.send(message).await.unwrap();
        drop(server);
        let mut all = Vec::new();
        peer.read_to_end(&mut all).await.unwrap();
        let pongs = (0..10).flat_map(|number| [0x8a, 1, number]);
        assert_eq!(all, pongs.chain([0x81, 0]).collect::<Vec<_>>());
    });
}

#[test]
fn a_silent_peer_is_found() {
    run_paused(async {
        let (mut peer, far) = tokio::io::duplex(1000);
        let (_, mut server) = pair(&config(), 1);
        *server.transport_mut() = far;
        let began = Instant::now();
        let error = server.receive().await.unwrap_err();
        assert!(matches!(error, Error::Timeout(Timeout::Pong)), "{error}");
        assert_eq!(began.elapsed().as_secs(), 25);
        drop(server);
        let mut all = Vec::new();
        peer.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [0x89, 0], "one ping");
    });
}

#[test]
fn whoever_answers_stays() {
    run_paused(async {
        let (mut client, mut server) = pair(&config(), 1000);
        let answering = tokio::spawn(async move { client.receive().await });
        let waited = tokio::time::timeout(Duration::from_secs(3600), server.receive()).await;
        assert!(waited.is_err(), "{waited:?}");
        drop(server);
        assert!(matches!(answering.await.unwrap(), Err(Error::Ended(_))));
    });
}

#[test]
fn traffic_is_a_sign_of_life() {
    run_paused(async {
        let (mut peer, far) = tokio::io::duplex(1000);
        let (_, mut server) = pair(&config(), 1);
        *server.transport_mut() = far;
        let serving = tokio::spawn(async move {
            for _ in 0..10 {
                assert_eq!(server.receive().await.unwrap(), text(""));
            }
        });
        for _ in 0..10 {
            sleep(Duration::from_secs(15)).await;
            peer.write_all(&[0x81, 0x80, 0, 0, 0, 0]).await.unwrap();
        }
        serving.await.unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [], "no ping was needed");
    });
}

/// 256 pings a second are allowed (`max_control_count`), and for as long as they keep to that.
#[test]
fn a_flood_of_pings_is_a_violation_of_a_limit() {
    run_paused(async {
        let ping = [0x89, 0x80, 0, 0, 0, 0];
        let (mut peer, far) = tokio::io::duplex(1 << 16);
        let (_, mut server) = pair(&Config::default(), 1);
        *server.transport_mut() = far;
        let serving = tokio::spawn(async move { server.receive().await });
        for _ in 0..20 {
            peer.write_all(&ping.repeat(100)).await.unwrap();
            sleep(Duration::from_millis(600)).await;
        }
        assert!(!serving.is_finished());
        peer.write_all(&ping.repeat(600)).await.unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).await.unwrap();
        drop(peer);
        match serving.await.unwrap().unwrap_err() {
            Error::Protocol(error) => {
                assert_eq!(error, codec::Error::LimitExceeded(Limit::ControlCount));
            }
            error => panic!("{error}"),
        }
        assert_eq!(all[all.len() - 4..], [0x88, 2, 0x03, 0xf0]);
    });
}

/// Empty fragments count as control frames do, and in the same windows, also if one read brings their whole message.
#[test]
fn empty_fragments_that_come_slowly_are_no_flood() {
    run_paused(async {
        let limits = codec::Config::default().with_max_control_count(2);
        let (mut peer, far) = tokio::io::duplex(1000);
        let (_, mut server) = pair(&Config::default().with_limits(limits), 1);
        *server.transport_mut() = far;
        let fragmented = [1, 0x80, 0, 0, 0, 0, 0x80, 0x81, 0, 0, 0, 0, b'a'];
        for _ in 0..10 {
            peer.write_all(&fragmented).await.unwrap();
            assert_eq!(server.receive().await.unwrap(), text("a"));
            sleep(Duration::from_secs(1)).await;
        }
        peer.write_all(&fragmented.repeat(3)).await.unwrap();
        assert_eq!(server.receive().await.unwrap(), text("a"));
        assert_eq!(server.receive().await.unwrap(), text("a"));
        match server.receive().await.unwrap_err() {
            Error::Protocol(error) => {
                assert_eq!(error, codec::Error::LimitExceeded(Limit::ControlCount));
            }
            error => panic!("{error}"),
        }
    });
}

/// A pong that had no room at first goes out as soon as there is some, without a further word of the peer.
#[test]
fn a_ping_is_answered_once_there_is_room() {
    for (high_water, is_fed) in [(100, true), (0, false)] {
        run_paused(async {
            let (mut peer, far) = tokio::io::duplex(1 << 16);
            let (_, mut server) = pair(&Config::default().with_high_water(high_water), 1);
            *server.transport_mut() = far;
            peer.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.unwrap();
            let mut expected = vec![0x8a, 0];
            if is_fed {
                server.feed(vec![7; 300]).await.unwrap();
                expected = [&[0x82, 126, 1, 44][..], &[7; 300], &expected].concat();
            }
            let waited = tokio::time::timeout(Duration::from_secs(1), server.receive()).await;
            assert!(waited.is_err(), "{waited:?}");
            drop(server);
            let mut all = Vec::new();
            peer.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, expected, "with a mark of {high_water}");
        });
    }
}

/// A mark of 0 lets no message wait for another, and keep-alive pings go out all the same.
#[test]
fn a_silent_peer_is_asked_whatever_the_high_water_mark() {
    run_paused(async {
        let (mut peer, far) = tokio::io::duplex(1000);
        let (_, mut server) = pair(&config().with_high_water(0), 1);
        *server.transport_mut() = far;
        let error = server.receive().await.unwrap_err();
        assert!(matches!(error, Error::Timeout(Timeout::Pong)), "{error}");
        drop(server);
        let mut all = Vec::new();
        peer.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [0x89, 0]);
    });
}

/// A time that no clock reaches is as good as none.
#[test]
fn a_pong_timeout_without_end() {
    run_paused(async {
        let keep_alive = KeepAliveConfig::default()
            .with_interval(Duration::from_secs(20))
            .with_pong_timeout(Duration::MAX);
        let config = Config::default().with_keep_alive(keep_alive);
        let (mut peer, far) = tokio::io::duplex(1000);
        let (_, mut server) = pair(&config, 1);
        *server.transport_mut() = far;
        let waited = tokio::time::timeout(Duration::from_secs(3600), server.receive()).await;
        assert!(waited.is_err(), "{waited:?}");
        drop(server);
        let mut all = Vec::new();
        peer.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [0x89, 0], "one ping");
    });
}
