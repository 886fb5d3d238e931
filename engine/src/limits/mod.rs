//! What keeps a server alive among strangers and while it is replaced: draining, deadlines that the application sets,
//! and limits on what comes in.
//!
//! Here are the settings, tables and arithmetic. What a worker does with them is in `worker/`; limits of the protocol
//! are the codec's.

pub(crate) mod deadline;
pub(crate) mod drain;
pub(crate) mod kernel;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod progress;
pub(crate) mod rate;
pub(crate) mod work;

pub use deadline::Deadline;
pub use drain::{CutOff, Drain, DrainReport, Draining, Readiness};
pub use rate::{Excess, RateLimit};
