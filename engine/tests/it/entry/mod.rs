//! The ways in: listeners, connections that others accepted, and which worker gets each.

mod adoption;
mod balance;
mod listeners;
mod proxy_protocol;
