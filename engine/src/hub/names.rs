//! Connections by a name that the application gives them, a user's say, over all workers.

use crate::base::roll::Roll;
use crate::conn::id::ConnId;

/// The longest name, in bytes.
pub(crate) const MAX_NAME_LEN: usize = 255;
/// The most names of one connection.
pub(crate) const MAX_NAMES: usize = 64;

/// Why a connection did not get a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It is longer than 255 bytes.
    #[error("a name is longer than {MAX_NAME_LEN} bytes")]
    TooLong,
    /// The connection has 64 of them.
    #[error("a connection has at most {MAX_NAMES} names")]
    TooMany,
    /// The connection is closing.
    #[error("the connection is closing")]
    Closing,
}

/// Who has which name.
pub(crate) type Registry = Roll<ConnId>;
