//! What a server does not let anybody take.

mod exceeded;
mod memory;
mod security;
