//! How a connection begins: it is accepted, dialled, or taken over from an application.

pub(crate) mod adoption;
pub(crate) mod claim;
pub(crate) mod dial;
pub(crate) mod listener;
pub(crate) mod proxy;
