//! The gateway's part `dispatch`.
