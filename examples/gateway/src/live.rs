//! The gateway's part `live`.
