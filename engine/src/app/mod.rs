//! What an application implements and is given.

pub(crate) mod bearer;
pub(crate) mod ctx;
pub(crate) mod event;
pub(crate) mod forwarded;
pub(crate) mod handler;
#[cfg(feature = "json")]
pub mod json;
pub(crate) mod offload;
pub(crate) mod presence;
pub(crate) mod query;
pub(crate) mod request;
pub(crate) mod responder;
pub(crate) mod router;
#[cfg(feature = "async")]
pub(crate) mod serve;
pub(crate) mod spawn;
pub(crate) mod states;
