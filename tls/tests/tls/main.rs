//! Clients and servers joined in memory.

mod pair;
mod traffic;
