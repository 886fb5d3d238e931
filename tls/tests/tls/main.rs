//! Clients and servers joined in memory.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod cuts;
mod ends;
mod established;
mod identity;
mod interop;
mod pair;
mod people;
mod reload;
mod traffic;
