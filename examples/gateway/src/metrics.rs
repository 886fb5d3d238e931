//! What the gateway counts.

use crate::auth::Refused;
use crate::envelope::MessageType;

/// What the gateway counts beside the engine's own counters.
#[derive(Debug, Default)]
pub struct Counters {}

impl Counters {
    /// A token, or a user, was refused.
    pub fn refused(&self, reason: Refused) {
        let _ = (self, reason);
    }

    /// A message of this type came from a client.
    pub fn message(&self, message_type: MessageType) {
        let _ = (self, message_type);
    }
}
