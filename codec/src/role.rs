//! The two ends of a connection.

/// Which end of the connection this is. Clients mask what they send, servers do not
/// (RFC 6455 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The end that asked for the connection.
    Client,
    /// The end that accepted it.
    Server,
}
