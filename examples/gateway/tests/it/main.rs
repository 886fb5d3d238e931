//! Tests of the gateway's WebSockets: in a simulated network, and on real sockets with both drivers.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test that fails panics, and is no worker's thread"
)]


                $($name(&mut crate::common::sim(workers, &Default::default()));)+
            $($name(&mut crate::common::live(ringwire::DriverKind::Epoll, 2));)+
            $($name(&mut crate::common::live(ringwire::DriverKind::Uring, 2));)+
            for workers in [1, 3] {
            }
        #[test]
        fn scenes_in_the_simulation() {
        fn scenes_on_epoll() {
        fn scenes_on_io_uring() {
        }
    ($($name:ident),+ $(,)?) => {
    };
/// Runs each scene in the simulation, with one worker and with several, and on real sockets.
macro_rules! scenes {
mod api;
}
mod common;
mod dispatch;
mod envelopes;
mod model;
mod rooms;
