//! What the routes of a router share.

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::rc::Rc;

use crate::app::request::Request;

/// What the routes of a worker have in common: the application, say. A clone is the same one.
///
/// Each worker makes a router of its own, so each has its own of this. What all workers share needs a lock, or belongs
/// into topics and names.
///
/// ```
/// use ringwire::{Answer, Ctx, Handler, Message, Request, Response, Router, StatusCode, router::Shared};
///
/// #[derive(Default)]
/// struct App { said: Vec<String> }
///
/// impl App {
///     fn check(&mut self, request: &Request<'_>) -> Result<(), StatusCode> {
///         let is_admin = request.header_str("authorization") == Some("Bearer sesame");
///         if is_admin { Ok(()) } else { Err(StatusCode::UNAUTHORIZED) }
///     }
///
///     fn log(&mut self, request: &Request<'_>) -> Result<Response, StatusCode> {
///         let index: usize = match request.query_param("index") {
///             Some(index) => index.parse().map_err(|_| StatusCode::BAD_REQUEST)?,
///             None => 0,
///         };
///         self.said.get(index).cloned().map(Response::text).ok_or(StatusCode::NOT_FOUND)
///     }
/// }
///
/// struct Chat(Shared<App>);
///
/// impl Handler for Chat {
///     type State = ();
///
///     fn on_request(&mut self, _request: &Request<'_>) -> Answer<()> {
///         Answer::accept(())
///     }
///
///     fn on_message(&mut self, _ctx: &mut Ctx<'_, ()>, message: Message<'_>) {
///         self.0.borrow_mut().said.extend(message.as_text().map(str::to_owned));
///     }
/// }
///
/// fn router() -> impl Handler {
///     let app = Shared::new(App::default());
///     Router::new()
///         .guard("/admin", app.with(App::check))
///         .get("/admin/log", app.with(App::log))
///         .get("/count", app.with(|app, _| Response::text(app.said.len().to_string())))
///         .websocket("/chat", Chat(app))
/// }
/// # router();
/// ```
pub struct Shared<A>(Rc<RefCell<A>>);

impl<A: 'static> Shared<A> {
    /// Shares a value.
    pub fn new(value: A) -> Self {
        Self(Rc::new(RefCell::new(value)))
    }

    /// A closure for a [`Router`](crate::Router) that gets the shared value beside the request.
    pub fn with<R, F>(&self, mut f: F) -> impl FnMut(&Request<'_>) -> R + use<A, R, F> + 'static
    where
        F: FnMut(&mut A, &Request<'_>) -> R + 'static,
    {
        let own = self.clone();
        move |request| f(&mut own.borrow_mut(), request)
    }

    /// The value.
    ///
    /// # Panics
    /// It is borrowed already, by a caller of this.
    pub fn borrow_mut(&self) -> RefMut<'_, A> {
        self.0.borrow_mut()
    }
}

impl<A> Clone for Shared<A> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<A: fmt::Debug> fmt::Debug for Shared<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.0).finish()
    }
}
