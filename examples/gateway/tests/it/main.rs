//! Tests of the gateway's WebSockets: in a simulated network, and on real sockets with both drivers.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test that fails panics, and is no worker's thread"
)]

/// Runs each scene in the simulation, with one worker and with several, and on real sockets.
macro_rules! scenes {
    ($($name:ident),+ $(,)?) => {
        #[test]
        fn scenes_in_the_simulation() {
            for workers in [1, 3] {
                $($name(&mut crate::common::sim(workers, &Default::default()));)+
            }
        }

        #[test]
        fn scenes_on_epoll() {
            $($name(&mut crate::common::live(ringwire::DriverKind::Epoll, 2));)+
        }

        #[test]
        fn scenes_on_io_uring() {
            $($name(&mut crate::common::live(ringwire::DriverKind::Uring, 2));)+
        }
    };
}

mod api;
mod common;
mod envelopes;
mod model;
mod nodes;
mod pubsub;
mod recovery;
mod rooms;
mod users;
