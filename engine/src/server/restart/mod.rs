//! How one process of a server follows another: sockets from a service manager, a successor started here, one started
//! elsewhere.

pub mod activation;
pub(crate) mod successor;
pub mod takeover;
