//! permessage-deflate, on connections from either side.

mod accepted;
mod dialled;
mod inflating;
mod machines;
mod offloaded;
