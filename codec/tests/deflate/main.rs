//! permessage-deflate: what is agreed on, what goes over the wire, and what a hostile peer sends.

#![expect(clippy::disallowed_types, reason = "prop_oneof! shares its strategies through Arc")]

mod agreement;
mod bombs;
mod ends;
mod messages;
mod naive;
mod rules;
mod sending;
mod streams;
mod targets;
