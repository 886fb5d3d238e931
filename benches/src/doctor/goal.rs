//! What is asked of a machine.

use std::fmt;

use serde::Serialize;

use super::Role;
use crate::units::show_count;

/// Descriptors of a process that are no connections.
const SPARE_FILES: u64 = 1024;
/// Addresses of the loopback that `ringwire-bench` connects from by itself.
const LOOPBACK_ADDRESSES: u64 = 254;
/// Resident memory of a process for an idle plain connection, in bytes: the higher one of both drivers
/// (docs/benchmarks/2026-11-22.md, Memory).
const PROCESS_BYTES: u64 = 320;
/// The kernel's objects of one end of an idle connection, in bytes: half of the higher one that was measured for both
/// (docs/benchmarks/2026-11-22.md, Memory).
const KERNEL_BYTES: u64 = 4560;
/// A message on its way takes a page of the sender and one of the receiver, at least.
const PAGE: u64 = 4096;

/// Connections and where they end.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Goal {
    pub(super) connections: u64,
    pub(super) role: Role,
    /// Connections with a message on its way.
    pub(super) active: u64,
    /// Addresses that a client connects from.
    pub(super) source_addresses: u64,
}

impl Goal {
    /// With what was not given.
    pub(super) fn new(
        connections: u32,
        role: Role,
        active: Option<u32>,
        source_addresses: Option<u32>,
    ) -> Self {
        let default = if role == Role::Both { LOOPBACK_ADDRESSES } else { 1 };
        Self {
            connections: connections.into(),
            role,
            active: active.unwrap_or(connections).min(connections).into(),
            source_addresses: source_addresses.map_or(default, u64::from),
        }
    }

    pub(super) fn accepts(&self) -> bool {
        self.role != Role::Client
    }

    pub(super) fn connects(&self) -> bool {
        self.role != Role::Server
    }

    /// Ends of a connection that are here.
    pub(super) fn ends(&self) -> u64 {
        if self.role == Role::Both { 2 } else { 1 }
    }

    /// Open files of one process.
    pub(super) fn files(&self) -> u64 {
        self.connections + SPARE_FILES
    }

    /// Memory in bytes, of the processes and of the kernel.
    pub(super) fn memory(&self) -> u64 {
        self.connections * self.ends() * (PROCESS_BYTES + KERNEL_BYTES) + self.tcp_pages() * PAGE
    }

    /// Pages that TCP has for messages on their way.
    pub(super) fn tcp_pages(&self) -> u64 {
        self.active * self.ends()
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends = match self.role {
            Role::Server => "to a server here",
            Role::Client => "from here",
            Role::Both => "with both ends here",
        };
        let (all, active) = (show_count(self.connections as f64), show_count(self.active as f64));
        write!(f, "{all} connections {ends}, {active} of them with a message on its way at a time")
    }
}
