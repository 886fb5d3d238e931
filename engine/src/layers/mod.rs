//! What stands between a connection's frames and its socket.

pub(crate) mod compression;
pub(crate) mod deflate;
pub(crate) mod extensions;
pub(crate) mod tls;
