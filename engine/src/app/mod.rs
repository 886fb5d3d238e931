//! What an application implements and is given.

pub(crate) mod ctx;
pub(crate) mod forwarded;
pub(crate) mod handler;
pub(crate) mod offload;
pub(crate) mod request;
pub(crate) mod router;
pub(crate) mod states;
