//! The connection's tests: rows of the security list, one test for each violation, and the same
//! input told in several ways (whole, cut, to a naive decoder, to a peer).

#![expect(clippy::disallowed_types, reason = "prop_oneof! shares its strategies through Arc")]

mod close;
mod corpus;
mod drive;
mod frames;
mod memory;
mod naive;
mod oracle;
mod pair;
mod security;
mod sending;
mod split;
mod streaming;
mod targets;
mod violations;
