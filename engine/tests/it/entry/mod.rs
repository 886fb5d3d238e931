//! The ways in: listeners, connections that others accepted, and which worker gets each.

#[cfg(feature = "tls")]
mod adoption;
#[cfg(all(feature = "client", feature = "tls"))]
mod balance;
mod by_cpu;
#[cfg(feature = "client")]
mod listeners;
#[cfg(feature = "client")]
mod notify;
#[cfg(feature = "tls")]
mod proxy_protocol;
