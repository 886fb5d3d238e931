//! Workers that look for what comes instead of sleeping.

use std::time::Duration;

use ringwire::{Config, Server, on_message};
use ringwire_peers::Client;

use crate::support::{PATIENCE, config, driver, join_in_time, wait_until};

/// The CPU time of a thread of this process (`PID/task/TID`, as `/proc/thread-self` has it), in ticks of 10 ms.
fn ticks_of(thread: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{thread}/stat")).expect("it runs");
    // Of proc_pid_stat(5), without the name: utime and stime.
    let (_, numbers) = stat.rsplit_once(") ").expect("a name in brackets");
    numbers.split(' ').skip(11).take(2).map(|number| number.parse::<u64>().expect("a number")).sum()
}

/// A server with these settings whose answer to anything is where procfs has its worker.
fn server(config: Config) -> ringwire::Running {
    let thread = || std::fs::read_link("/proc/thread-self").expect("procfs is there");
    Server::new(config)
        .listen("127.0.0.1:0")
        .start(move |_| {
            on_message(move |ctx, _| ctx.send(thread().to_str().expect("digits and names")))
        })
        .expect("it starts")
}

#[test]
fn a_worker_that_looks_for_what_comes_does_not_sleep() {
    let server = server(config().with_busy_poll(Duration::from_secs(3600)));
    let mut client = Client::connect(server.local_addrs()[0]);
    client.send("where?");
    let worker = client.text();
    let before = ticks_of(&worker);
    // Nothing comes, and it looks all the time.
    wait_until("it has looked for 100 ms", || ticks_of(&worker) >= before + 10);
    // What comes over a socket and from another thread ends that.
    client.send("where?");
    assert_eq!(client.text(), worker);
    server.handle().topics().wait(PATIENCE).expect("it answers");
    server.handle().shutdown(Duration::from_millis(200));
    assert_eq!(client.close_frame().0, 1001, "and so does a timer");
    join_in_time(server).expect("it ends");
}

/// Over loopback the kernel has nothing to poll; the driver has to take the settings and to work with them.
#[test]
fn the_kernel_polls_where_it_has_something_to_poll() {
    let times = config().with_napi_busy_poll(Duration::from_micros(50));
    for config in [times.clone(), times.with_napi_prefer_busy_poll(true)] {
        let server = server(config.with_busy_poll(Duration::from_micros(20)));
        assert_eq!(server.driver(), driver());
        let mut client = Client::connect(server.local_addrs()[0]);
        for _ in 0..100 {
            client.send("where?");
            assert!(client.text().contains("/task/"));
        }
        server.handle().shutdown(Duration::ZERO);
        join_in_time(server).expect("it ends");
    }
}
