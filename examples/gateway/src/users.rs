//! The gateway's part `users`.
