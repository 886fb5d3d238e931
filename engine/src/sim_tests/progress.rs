//! Peers that read slowly, and peers that read nothing, in virtual time: the first are alive, however much the kernel
//! holds for them.

use std::time::Duration;

use ringwire_codec::CloseCode;

use super::client::Stage;
use super::plan::{Ending, Entrance, Plan, Speech};
use super::play::Play;
use super::seeds;
use super::time::{plan, play, secs};
use crate::config::Config;
use crate::conn::cause::CloseReason;
use crate::conn::options::Backpressure;
use crate::driver::sim::Faults;
use crate::topic::TopicConfig;

/// What Linux gives a socket (tcp(7), tcp_wmem).
const SOCKET_LEN: usize = 4 << 20;
/// So much as to be never through.
const ENDLESS: &str = "!flood 480 65536";

fn config() -> Config {
    Config::default().with_max_queued_len(64 << 20)
}

/// A client that asks for a flood and reads so many bytes a second of it, over TCP or TLS.
fn reader(config: &Config, entrance: Entrance, flood: &str, rate: usize) -> Play {
    let plan = Plan { window: SOCKET_LEN, entrance, ..plan(Ending::Stay, &[flood]) };
    let mut play = play(config, [plan]);
    play.clients[0].reads = Some(rate / 10);
    play
}

fn entrances() -> [Entrance; 2] {
    [Entrance::Connect, Entrance::Secure]
}

#[test]
fn who_reads_steadily_stays_at_any_rate() {
    for entrance in entrances() {
        for rate in [1_000, 30_000, 60_000, 90_000] {
            let mut play = reader(&config(), entrance, ENDLESS, rate);
            play.run_until(secs(150));
            assert_eq!(play.clients[0].stage, Stage::Open, "{entrance:?}, {rate} bytes a second");
            let stats = play.scene.stats();
            assert!(stats.memory_kernel > 1 << 20, "{rate}: {stats:?}");
        }
    }
}

#[test]
fn a_pong_has_its_time_from_when_its_ping_is_there() {
    for entrance in entrances() {
        // All of it is in the kernel: 60 s, where pings go out after 30 s and have 10.
        let mut play = reader(&config(), entrance, "!flood 46 65536", 50_000);
        play.run_until(secs(200));
        assert_eq!(play.clients[0].stage, Stage::Open, "{entrance:?}");
        assert!(play.clients[0].heard >= 47);
        assert_eq!(play.scene.stats().memory_kernel, 0);
    }
}

/// RFC 6455 §5.5.2: a pong, though the topic never lets the queue run empty.
#[test]
fn who_reads_more_slowly_than_its_topic_gets_pongs() {
    let topics = TopicConfig::default().with_policy(">", Backpressure::DropOldest);
    let config = Config::default().with_topics(topics);
    for entrance in entrances() {
        let slow = Plan { entrance, lossy: true, ..plan(Ending::Stay, &["!hear"]) };
        let mut play = play(&config, [slow]);
        play.clients[0].reads = Some(3_000);
        let mut published = 0;
        // A hundred a second, of which it takes thirty.
        let mut publish_until = |play: &mut Play, end| {
            while play.clock() < end {
                let text = format!("push:{published}:{}", "p".repeat(1000));
                play.scene.handle.publish("hot", text.as_str()).expect("nobody is behind");
                published += 1;
                play.run_until(play.clock() + Duration::from_millis(10));
            }
        };
        publish_until(&mut play, secs(10));
        assert!(play.scene.stats().publications_dropped > 0);
        play.clients[0].plan.speeches.push_back(Speech::Ping);
        publish_until(&mut play, secs(25));
        assert_eq!((play.clients[0].pings, play.clients[0].ponged), (1, 1), "{entrance:?}");
        assert!(play.scene.stats().queued_bytes > 64 << 10, "it never runs empty");
    }
}

#[test]
fn who_stops_reading_is_ended_on_time() {
    for entrance in entrances() {
        let config = config().with_ping_interval(None);
        let mut play = reader(&config, entrance, ENDLESS, 60_000);
        play.run_until(secs(100));
        play.clients[0].reads = Some(0);
        let cause = play.run_to_the_end_of(0);
        assert_eq!(cause.reason, CloseReason::WriteStall);
        // A quarter of the limit may lie between its last byte and the look that finds it.
        assert!((secs(120)..secs(126)).contains(&play.clock()), "{:?}", play.clock());
    }
}

#[test]
fn who_reads_nothing_is_ended_at_the_limit() {
    for entrance in entrances() {
        let mut play = reader(&config(), entrance, ENDLESS, 0);
        assert_eq!(play.run_to_the_end_of(0).reason, CloseReason::WriteStall);
        assert!((secs(20)..secs(21)).contains(&play.clock()), "{:?}", play.clock());
    }
}

#[test]
fn a_ping_behind_output_that_nobody_reads_ends_it() {
    for entrance in entrances() {
        // The kernel has all of it, so nothing is stuck.
        let mut play = reader(&config(), entrance, "!flood 10 65536", 0);
        assert_eq!(play.run_to_the_end_of(0).reason, CloseReason::PongTimeout);
        assert!((secs(50)..secs(51)).contains(&play.clock()), "{:?}", play.clock());
    }
}

/// It reads all, and its pongs never come.
#[test]
fn who_reads_and_answers_no_ping_is_given_up() {
    let mute = Plan { window: SOCKET_LEN, ..plan(Ending::Mute, &["!flood 46 65536"]) };
    let mut play = play(&config(), [mute]);
    play.clients[0].reads = Some(5_000);
    let cause = play.run_to_the_end_of(0);
    assert_eq!(cause.reason, CloseReason::PongTimeout);
    assert!((secs(70)..secs(76)).contains(&play.clock()), "{:?}", play.clock());
}

/// It read a flood slowly and then nothing more, while its kernel goes on to acknowledge what is published to it.
#[test]
fn who_stops_reading_is_given_up_though_its_kernel_acknowledges() {
    for entrance in entrances() {
        let slow = plan(Ending::Stay, &["!flood 46 65536"]);
        let slow = Plan { window: SOCKET_LEN, receive_len: 1 << 20, entrance, ..slow };
        let mut play = play(&config(), [slow]);
        play.clients[0].reads = Some(5_000);
        play.run_until(secs(2));
        let id = play.scene.log.borrow().clients[0].id.expect("it is open");
        let stops = secs(45);
        for second in 3.. {
            play.run_until(secs(second));
            if play.scene.log.borrow().clients[0].closed.is_some() {
                break;
            }
            assert!(secs(second) < secs(200), "it is kept");
            if secs(second) >= stops {
                play.clients[0].reads = Some(0);
                play.scene.handle.send(id, &[0; 1000]).expect("the worker lives");
            }
        }
        let cause = play.run_to_the_end_of(0);
        assert_eq!(cause.reason, CloseReason::PongTimeout, "{entrance:?}");
        // A quarter of the limit may lie between the last that it read and the look that finds it.
        assert!((secs(55)..secs(59)).contains(&play.clock()), "{entrance:?}: {:?}", play.clock());
    }
}

/// Something is on its way when the ping goes out, and its kernel takes that, the ping and what comes after.
#[test]
fn who_never_reads_is_given_up_while_its_kernel_takes_what_comes() {
    let delayed = Faults { delay: 1.0, max_delay: Duration::from_millis(50), ..Faults::none() };
    for entrance in entrances() {
        let silent = Plan { receive_len: 64 << 10, entrance, ..plan(Ending::Stay, &[]) };
        let mut play = Play::new(seeds::of_scene(), &config(), delayed.clone(), vec![silent]);
        play.run_until(secs(1));
        play.clients[0].reads = Some(0);
        let id = play.scene.log.borrow().clients[0].id.expect("it is open");
        // Its buffer fills within six seconds.
        play.run_until(secs(29));
        while play.scene.log.borrow().clients[0].closed.is_none() {
            play.scene.handle.send(id, &[0; 100]).expect("the worker lives");
            play.run_until(play.clock() + Duration::from_millis(10));
            assert!(play.clock() < secs(60), "it is kept");
        }
        let cause = play.run_to_the_end_of(0);
        assert_eq!(cause.reason, CloseReason::PongTimeout, "{entrance:?}");
        assert!((secs(40)..secs(42)).contains(&play.clock()), "{entrance:?}: {:?}", play.clock());
    }
}

#[test]
fn a_close_frame_may_come_slowly() {
    for entrance in entrances() {
        let mut play = reader(&config(), entrance, "!flood 16 65536", 30_000);
        play.run_until(secs(2));
        let id = play.scene.log.borrow().clients[0].id.expect("it is open");
        play.scene.handle.close(id, CloseCode::new(4001), "go").expect("the worker lives");
        let cause = play.run_to_the_end_of(0);
        assert_eq!((cause.reason, cause.unsent_len), (CloseReason::Local, 0));
        assert!(play.clock() > secs(33), "{:?}", play.clock());
        assert_eq!(play.clients[0].heard, 18);
    }
}

/// A receiver tells of more room in large steps (RFC 9293 §3.8.6.2.2), further apart here than a close may take.
#[test]
fn a_close_waits_for_a_window_that_moves_in_large_steps() {
    let step = secs(8);
    for entrance in entrances() {
        // Some waits in the server, so that the peer is looked at.
        let plan = plan(Ending::Stay, &["!flood 16 65536"]);
        let plan = Plan { window: 300_000, entrance, ..plan };
        let mut play = play(&config(), [plan]);
        play.clients[0].reads = Some(0);
        play.run_until(secs(2));
        let id = play.scene.log.borrow().clients[0].id.expect("it is open");
        let mut at = play.clock();
        let mut is_told = false;
        while play.scene.log.borrow().clients[0].closed.is_none() {
            // What is read at 30 KB/s in that time, at once.
            play.clients[0].reads = Some(240_000);
            play.run_until(at + Duration::from_millis(150));
            play.clients[0].reads = Some(0);
            at += step;
            play.run_until(at);
            if !is_told && at > secs(17) {
                is_told = true;
                play.scene.handle.close(id, CloseCode::new(4001), "go").expect("the worker lives");
            }
            assert!(at < secs(200), "it does not end");
        }
        let cause = play.run_to_the_end_of(0);
        assert_eq!((cause.reason, cause.unsent_len), (CloseReason::Local, 0), "{entrance:?}");
        assert_eq!(play.clients[0].heard, 18);
    }
}

/// What is on its way when both sides have closed is read in such steps as well, and then something comes that is late.
#[test]
fn a_lingering_connection_waits_for_a_window_that_moves_in_large_steps() {
    for entrance in entrances() {
        let flood = "!flood 16 65536";
        let late = plan(Ending::CloseAndMore, &[flood]);
        let plan = Plan { window: SOCKET_LEN, entrance, pace: secs(15), ..late };
        let mut play = play(&config(), [plan]);
        let mut at = secs(0);
        play.clients[0].reads = Some(0);
        while play.clients[0].stage != Stage::Gone {
            at += secs(8);
            play.run_until(at);
            play.clients[0].reads = Some(240_000);
            play.run_until(at + Duration::from_millis(150));
            play.clients[0].reads = Some(0);
            assert!(at < secs(300), "it does not end");
        }
        assert!(play.clients[0].farewell.is_some(), "{entrance:?}: reset");
        assert_eq!(play.clients[0].heard, 18);
    }
}

#[test]
fn a_close_ends_though_its_peer_reads_a_byte_at_a_time() {
    for entrance in entrances() {
        let mut play = reader(&config(), entrance, "!flood 1 65536", 0);
        play.run_until(secs(2));
        let id = play.scene.log.borrow().clients[0].id.expect("it is open");
        play.scene.handle.close(id, CloseCode::new(4001), "go").expect("the worker lives");
        play.clients[0].reads = Some(1);
        let cause = play.run_to_the_end_of(0);
        assert_eq!(cause.reason, CloseReason::CloseTimeout);
        // 64 KiB and the frame's, at 1 KiB a second, and the time of a close.
        assert!((secs(66)..secs(78)).contains(&play.clock()), "{:?}", play.clock());
    }
}

#[test]
fn an_answer_may_come_slowly_and_not_for_ever() {
    // The answer to each has a body of some 1000 bytes as well.
    let body = "b".repeat(999);
    let request = format!("POST /now HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\n{body}");
    let least_len = 800_000;
    for (rate, is_served) in [(30_000, true), (10, false), (0, false)] {
        let mut play = Play::new(1, &config(), Faults::none(), Vec::new());
        let peer = play.scene.world.connect(0);
        peer.set_window(SOCKET_LEN);
        peer.write(request.repeat(800).as_bytes());
        let (mut got, mut tenth) = (0, 0);
        while got < least_len && !peer.is_closed() {
            tenth += 1;
            play.run_until(Duration::from_millis(100) * tenth);
            got += peer.read_some(rate / 10).len();
        }
        if is_served {
            assert!(play.clock() > secs(26), "{got} bytes at {:?}", play.clock());
            // It is as good as before.
            peer.write(request.as_bytes());
            play.run_until(play.clock() + secs(1));
            assert!(peer.read().ends_with(b"xxxxxxxxxx") && !peer.is_eof());
        } else if rate == 0 {
            // All is in the kernel, and another request may come until then.
            let latest = config().http_keep_alive_timeout.expect("it is on") + secs(30);
            assert!(play.clock() < latest, "{:?}", play.clock());
        } else {
            assert!((secs(800)..secs(1000)).contains(&play.clock()), "{:?}", play.clock());
        }
    }
}
