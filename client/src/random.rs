//! Bytes from the kernel's random source.

use std::io;

use crate::error::Error;

/// Fresh random bytes (getrandom(2)).
pub(super) fn random<const LEN: usize>() -> Result<[u8; LEN], Error> {
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::Lost(io::Error::other(error.to_string())))?;
    Ok(bytes)
}
