//! What the application posts to a worker.

use std::any::{Any, type_name};
use std::fmt;

/// What [`Handle::post_event`](crate::Handle::post_event) brings to [`Handler::on_event`](crate::Handler::on_event): a
/// value of any type, which the handler that it is for takes out.
pub struct Posted {
    event: Box<dyn Any + Send>,
    type_name: &'static str,
}

impl Posted {
    pub(crate) fn new<E: Send + 'static>(event: E) -> Self {
        Self { event: Box::new(event), type_name: type_name::<E>() }
    }

    /// Whether it is an `E`.
    pub fn is<E: 'static>(&self) -> bool {
        self.event.is::<E>()
    }

    /// The event, if it is an `E`.
    ///
    /// # Errors
    /// It is of another type, and comes back.
    pub fn downcast<E: 'static>(self) -> Result<E, Self> {
        let Self { event, type_name } = self;
        event.downcast::<E>().map(|event| *event).map_err(|event| Self { event, type_name })
    }

    /// The name of its type, for logs.
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }
}

impl fmt::Debug for Posted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Posted").field(&self.type_name).finish()
    }
}
