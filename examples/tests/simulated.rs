//! The handlers of the examples, in simulations.

use std::time::Duration;

use ringwire::Config;
use ringwire::testing::Sim;
use ringwire_examples::{Broadcast, Echo};

#[test]
fn echo_answers_everyone_and_has_a_page() {
    let sim = Sim::new(Config::default().with_io_workers(2), |_| Echo);
    sim.seeds(0..50, |sim| {
        let mut random = sim.random();
        let mut peers = [(); 4].map(|()| sim.connect("/").expect_open());
        for round in 0..20 {
            for peer in &mut peers {
                peer.send(format!("{round} {}", "x".repeat(random.below(3000))));
            }
        }
        for peer in &mut peers {
            for round in 0..20 {
                assert!(peer.text().starts_with(&format!("{round} ")));
            }
        }
        assert!(sim.request("/").text().contains("<html"), "it has a page");
        assert_eq!(sim.request("/else").status, 404);
    });
}

/// Each message comes to everybody else, once, and in the order of its sender. Who reads too slowly misses some and
/// stays.
#[test]
fn broadcast_reaches_everybody_else() {
    const COUNT: usize = 30;
    let config = Config::default().with_io_workers(3).with_topics(Broadcast::topics());
    let sim = Sim::new(config, |_| Broadcast);
    sim.seeds(0..50, |sim| {
        let mut peers = [(); 5].map(|()| sim.connect("/").expect_open());
        // All have subscribed.
        sim.advance(Duration::from_secs(1));
        peers[4].stop_reading();
        for number in 0..COUNT {
            for (index, peer) in peers.iter_mut().enumerate().take(4) {
                peer.send(format!("{index} {number}"));
            }
        }
        for (index, peer) in peers.iter_mut().enumerate().take(4) {
            let mut next = [0; 4];
            for _ in 0..3 * COUNT {
                let text = peer.text();
                let (from, number) = text.split_once(' ').expect("two words");
                let from: usize = from.parse().expect("a number");
                assert_ne!(from, index, "its own");
                assert_eq!(number.parse(), Ok(next[from]), "of {from}");
                next[from] += 1;
            }
            peer.expect_nothing();
        }
        peers[4].go_on_reading();
        let _ = peers[4].text();
        assert!(peers[4].is_open());
    });
}
