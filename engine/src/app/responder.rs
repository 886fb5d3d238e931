//! The answer to an ordinary HTTP request: now, later, or from another thread, and once.

#![expect(clippy::disallowed_types, reason = "an answer may come from any thread")]

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use http::StatusCode;
use ringwire_codec::http::Response;

use crate::app::offload::{JobRefusal, RefusedJob};
use crate::base::panics::panic_text;
use crate::compute::{Answer, Job, Lane};
use crate::conn::id::ConnId;
use crate::hub::mail::{Answered, RequestId, WayBack};

/// The answer that is owed for one HTTP request, from [`Handler::on_http`](crate::Handler::on_http).
///
/// It is used up by its answer, on any thread, and belongs to this request: where the connection has ended meanwhile,
/// or the request was answered for it, the answer is dropped. Until it comes, the connection's further requests wait;
/// after [`handshake_timeout`](crate::Config::handshake_timeout) the server answers 503 and closes the connection. A
/// responder that is dropped answers 500, with an error in the log.
///
/// ```
/// use std::thread;
/// use ringwire::{Method, Response, Router};
///
/// let router = Router::new()
///     .get("/now", |_| Response::text("at once"))
///     .route_with(Method::GET, "/later", |request, responder| {
///         let user = request.query_param("user").unwrap_or_default().into_owned();
///         thread::spawn(move || responder.send(Response::text(format!("hello, {user}"))));
///     });
/// # fn is_handler(_: impl ringwire::Handler) {}
/// # is_handler(router);
/// ```
#[must_use = "a request without an answer is answered 500"]
pub struct Responder {
    way: Option<Arc<WayBack>>,
    request: RequestId,
}

/// A call of `on_http` that is under way on this thread, and its answer.
struct Call {
    way: Option<Arc<WayBack>>,
    request: RequestId,
    answer: Option<Response>,
}

thread_local! {
    /// An answer that is given within the call does not go by mailbox.
    static CALL: RefCell<Option<Call>> = const { RefCell::new(None) };
}

/// Calls `work` with the responder of a request. Gives the answer, if it was given meanwhile. `Err`: it panicked.
pub(crate) fn answered_within(
    way: Option<&Arc<WayBack>>,
    request: RequestId,
    work: impl FnOnce(Responder),
) -> std::thread::Result<Option<Response>> {
    let way = way.cloned();
    CALL.set(Some(Call { way: way.clone(), request, answer: None }));
    let result = catch_unwind(AssertUnwindSafe(|| work(Responder { way: way.clone(), request })));
    let call = CALL.take();
    result.map(|()| call.and_then(|call| call.answer))
}

impl Responder {
    /// The connection of the request.
    pub fn conn(&self) -> ConnId {
        self.request.conn
    }

    /// Answers.
    pub fn send(mut self, response: impl IntoResponse) {
        self.answer(response.into_response());
    }

    /// Gives `job` to the compute threads, and answers with what it gives back. One that panics answers 500. It is run
    /// also where the client has gone meanwhile.
    ///
    /// ```
    /// # use ringwire::{Request, Responder, Response, StatusCode};
    /// # fn sum(text: &str) -> u64 { text.bytes().map(u64::from).sum() }
    /// fn on_post(request: &Request<'_>, responder: Responder) {
    ///     let body = String::from_utf8_lossy(request.body()).into_owned();
    ///     let job = move || Response::text(sum(&body).to_string());
    ///     if let Err(refused) = responder.offload(job) {
    ///         refused.then.send(StatusCode::SERVICE_UNAVAILABLE);
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// The job is not taken: there are no compute threads, or their queue is full. It comes back, and with it, as what
    /// was to follow, the responder.
    pub fn offload<A, J>(self, job: J) -> Result<(), RefusedJob<J, Self>>
    where
        A: IntoResponse,
        J: FnOnce() -> A + Send + 'static,
    {
        let way = self.way.clone();
        let Some(compute) = way.as_ref().and_then(|way| way.compute.as_ref()) else {
            return Err(RefusedJob { reason: JobRefusal::NoComputeWorkers, job, then: self });
        };
        let Some(room) = compute.room(Lane::Application) else {
            return Err(RefusedJob { reason: JobRefusal::QueueFull, job, then: self });
        };
        let work = move || match catch_unwind(AssertUnwindSafe(|| job().into_response())) {
            Ok(response) => {
                self.send(response);
                false
            }
            Err(panic) => {
                let text = panic_text(panic);
                crate::base::event::error!(conn = %self.conn(), panic = text, "a job panicked");
                self.send(StatusCode::INTERNAL_SERVER_ERROR);
                true
            }
        };
        room.submit(Job::Answer(Answer(Box::new(work))));
        Ok(())
    }

    /// Nobody waits for the answer any more.
    #[cfg(feature = "async")]
    pub(crate) fn forget(mut self) {
        self.way = None;
    }

    fn answer(&mut self, response: Response) {
        // Without a way it was used up before.
        let Some(way) = self.way.take() else { return };
        let mut response = Some(response);
        // On a thread that ends there is no call.
        let _ = CALL.try_with(|call| {
            if let Some(call) = &mut *call.borrow_mut()
                && call.request == self.request
                && call.way.as_ref().is_some_and(|own| Arc::ptr_eq(own, &way))
            {
                call.answer = response.take();
            }
        });
        if let Some(response) = response {
            // Where the worker has ended, so has the connection.
            let _ = way.answers.post(Answered { request: self.request, response });
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.way.is_some() {
            if !std::thread::panicking() {
                crate::base::event::error!(
                    conn = %self.request.conn,
                    "an HTTP request was dropped without an answer"
                );
            }
            self.answer(Response::new(StatusCode::INTERNAL_SERVER_ERROR));
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").field("request", &self.request).finish_non_exhaustive()
    }
}

/// What can be the answer to an HTTP request: a [`Response`], a status alone, or a [`Result`] of two such, of which
/// either is the answer. An application that implements it for its own error can answer with `?`.
///
/// ```
/// use ringwire::{IntoResponse, Request, Response, StatusCode};
///
/// enum Problem { NotFound, NoNumber(std::num::ParseIntError) }
///
/// impl From<std::num::ParseIntError> for Problem {
///     fn from(error: std::num::ParseIntError) -> Self { Self::NoNumber(error) }
/// }
///
/// impl IntoResponse for Problem {
///     fn into_response(self) -> Response {
///         match self {
///             Self::NotFound => StatusCode::NOT_FOUND.into_response(),
///             Self::NoNumber(error) => {
///                 Response::text(error.to_string()).with_status(StatusCode::BAD_REQUEST)
///             }
///         }
///     }
/// }
///
/// fn page(request: &Request<'_>) -> Result<Response, Problem> {
///     let page: usize = request.query_param("page").unwrap_or_default().parse()?;
///     let text = ["zero", "one"].get(page).ok_or(Problem::NotFound)?;
///     Ok(Response::text(*text))
/// }
/// let router = ringwire::Router::new().get("/page", page);
/// # fn is_handler(_: impl ringwire::Handler) {}
/// # is_handler(router);
/// ```
pub trait IntoResponse {
    /// The answer.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl IntoResponse for StatusCode {
    fn into_response(self) -> Response {
        Response::new(self)
    }
}

impl<T: IntoResponse, E: IntoResponse> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(response) => response.into_response(),
            Err(response) => response.into_response(),
        }
    }
}
