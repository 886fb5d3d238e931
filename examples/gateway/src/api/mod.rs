//! HTTP for administrators.

use std::sync::Arc;

use ringwire::Router;

use crate::app::App;

/// Adds the endpoints below `/ws/` to a router.
pub fn routes<S>(router: Router<S>, app: &Arc<App>) -> Router<S> {
    let _ = app;
    router
}
