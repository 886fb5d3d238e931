//! What panics leave behind.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Drops what an application may have made, whose destructor may panic.
pub(crate) fn quietly<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        crate::base::event::error!("a destructor panicked");
        // Its own destructor may do so as well.
        std::mem::forget(panic);
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => String::from("a value that is no text"),
    };
    quietly(panic);
    text
}
