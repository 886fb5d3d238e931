//! Requests with bodies: where they end, what is refused, and that it makes no difference how they are cut.

mod bodies;
mod drive;
mod smuggling;
mod targets;
