//! The gateway's part `cli`.
