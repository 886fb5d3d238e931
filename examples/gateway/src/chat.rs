//! The gateway's part `chat`.
