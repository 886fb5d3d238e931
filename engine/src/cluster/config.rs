//! Bounds of a node.

use std::time::Duration;

use crate::base::setters::setters;

/// Bounds of a server that is a node of a [cluster](crate::cluster). Without a [`Bus`](crate::cluster::Bus) none of it
/// takes memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterConfig {
    /// Publications that wait for the bus, in bytes. Default: 16 MiB, which count among those of
    /// [`max_retained_len`](crate::topics::TopicConfig::max_retained_len). While the bus has no connection this is what
    /// the others get later; past it they miss what is published, and the publisher is told
    /// ([`PublishError::Cluster`](crate::topics::PublishError::Cluster)).
    pub max_outgoing_len: usize,
    /// How long a publication from another node waits for those before it, of the same node and topic, that have not
    /// come. Default: 250 ms. Then these are given up, and counted as
    /// [`missed`](crate::stats::ClusterStats::missed). `None`: it does not wait, and those that come late are passed
    /// over. Nothing waits unless something is missing.
    pub reorder_window: Option<Duration>,
    /// Publications that wait so, in bytes. Default: 4 MiB. Past it what they wait for is given up.
    pub max_held_len: usize,
    /// Topics, of one node each, whose order is known; twice: of what this node publishes, and of what it hears.
    /// Default: 65 536 (at least 1), of about 150 bytes each, and once more as many that were used before those. Of a
    /// topic that was forgotten, the next publication begins the order anew: one that the bus brings a second time so
    /// much later may come twice.
    pub max_streams: usize,
    /// [`Handle::readiness`](crate::Handle::readiness) is [`Apart`](crate::shutdown::Readiness::Apart), and `/readyz`
    /// answers 503, while the bus has no connection. Default: on, since whoever connects here would not hear the
    /// others. Where the bus is one thing that all nodes lose together, off keeps a balancer from shutting all of them
    /// out.
    pub unready_apart: bool,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            max_outgoing_len: 16 << 20,
            reorder_window: Some(Duration::from_millis(250)),
            max_held_len: 4 << 20,
            max_streams: 1 << 16,
            unready_apart: true,
        }
    }
}

setters! { ClusterConfig;
    with_max_outgoing_len, max_outgoing_len: usize;
    with_reorder_window, reorder_window: impl Into<Option<Duration>>;
    with_max_held_len, max_held_len: usize;
    with_max_streams, max_streams: usize;
    with_unready_apart, unready_apart: bool;
}
