//! HTTP beside WebSocket, and what a server says about itself over it.

mod answers;
mod monitor;
mod requests;
mod responders;
mod router;
mod routes;
