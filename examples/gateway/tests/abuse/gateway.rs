//! The gateway as a process of its own: its HTTP, its memory, its descriptors.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use ringwire_peers::http;
use serde_json::Value;
use uuid::Uuid;

use crate::common::SECRET;

const API_KEY: &str = "the key of the tests";

pub(crate) struct Gateway {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Gateway {
    /// One with two workers on this driver, `epoll` or `uring`.
    pub(crate) fn start(driver: &str) -> Self {
        let program = std::env::var("GATEWAY_PROGRAM");
        let program = program.as_deref().unwrap_or(env!("CARGO_BIN_EXE_gateway"));
        let mut child = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--driver", driver, "--io-workers", "2"])
            .args(["--pin", "none"])
            // Clients of a test that is busy with others answer no pings.
            .args(["--set", "ping_interval=off", "--set", "idle_timeout=off"])
            .env("JWT_SECRET", str::from_utf8(SECRET).unwrap())
            .env("GATEWAY_API_KEY", API_KEY)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().trim_end_matches('/').rsplit('/').next().unwrap();
        let address = address.parse().unwrap_or_else(|_| panic!("it does not listen: {line:?}"));
        Self { child, address }
    }

    fn get(&self, path: &str) -> Value {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {API_KEY}\r\n\
             Connection: close\r\n\r\n"
        );
        let answer = http(self.address, request);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
        serde_json::from_str(body).unwrap()
    }

    /// Who is online, read in pages.
    pub(crate) fn online(&self) -> BTreeSet<Uuid> {
        let (mut users, mut after) = (BTreeSet::new(), String::new());
        loop {
            let page = self.get(&format!("/ws/online?limit=1000{after}"));
            for user in page["users"].as_array().unwrap() {
                let id = user["user_id"].as_str().unwrap().parse().unwrap();
                assert!(users.insert(id), "twice: {user}");
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return users,
            }
        }
    }

    /// How many connections and users are online.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let stats = self.get("/ws/stats");
        let count = |name: &str| stats[name].as_u64().unwrap();
        (count("total_connections"), count("unique_users"))
    }

    /// Resident memory, in bytes (proc_pid_statm(5)).
    pub(crate) fn resident_len(&self) -> usize {
        let text = fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    /// Open descriptors.
    pub(crate) fn descriptor_count(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself, which is what the test then fails of.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fails where this process, or the gateway, may not have so many descriptors.
pub(crate) fn expect_descriptors(needed: usize) {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let most = line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX);
    assert!(
        most >= needed,
        "so many users need {needed} open files in one process, of which there may be {most}: \
         `ulimit -n {needed}`, or a smaller ABUSE_USERS"
    );
}
