//! What nodes of a cluster say to each other.

use ringwire_codec::Message;

use super::handle::Handle;
use crate::topic::{TopicError, check_pattern};

impl Handle {
    /// Has `hear` called for each message that another node of the [cluster](crate::cluster) publishes to a topic that
    /// `pattern` takes in, for as long as the server runs: what nodes tell each other, rather than their clients. What
    /// this server publishes is not heard. Where there is no cluster, nothing is.
    ///
    /// It is called on the bus's thread, once for each, in order for each node and topic, and must not block.
    ///
    /// ```
    /// # use ringwire::{Handle, Message, topics::TopicError};
    /// fn obey(handle: &Handle) -> Result<(), TopicError> {
    ///     handle.hear_others("orders.*", |topic, message| {
    ///         println!("{topic}: {} bytes from another node", message.len());
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    /// The pattern is invalid.
    pub fn hear_others(
        &self,
        pattern: &str,
        hear: impl Fn(&str, Message<'_>) + Send + Sync + 'static,
    ) -> Result<(), TopicError> {
        check_pattern(pattern)?;
        if let Some(relay) = self.hub.exchange().relay() {
            relay.listen(pattern, hear);
        }
        Ok(())
    }
}
