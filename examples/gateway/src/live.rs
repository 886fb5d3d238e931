//! The WebSocket of the dashboard, and the pages.
//!
//! The first message signs in: `{"secret": "…"}`, a token of an administrator or the API key, since a browser can set
//! no header and an address ends up in logs. From then on, once a second:
//!
//! | `kind` | what follows |
//! |---|---|
//! | `signed_in` | `with`: what the secret was, `token` or `api_key` |
//! | `samples` | `samples` since the last time; `messages` by type and `refused` tokens by reason, so far |
//! | `users` | a page of the users online, where it has changed: `users`, `next` |
//!
//! Samples are [`Sample`](crate::clock::Sample)s.
//!
//! `{"after": "…"}` turns to the page of users behind that one, `{"after": null}` to the first.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use ringwire::http::header;
use ringwire::router::{Asset, SocketRoutes};
use ringwire::{Answer, CloseCode, Ctx, Handler, HeaderValue, Message, Posted, Request, Router};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::api::Admin;
use crate::app::App;
use crate::auth::Refused;
use crate::clock::Probe;
use crate::presence::listed;

/// The one timer of a connection.
const TICK: u64 = 0;
const TICK_PERIOD: Duration = Duration::from_secs(1);
/// How many users the dashboard lists at a time.
const PAGE_LEN: usize = 50;

/// The handler of `/ws/live`.
#[derive(Clone, Debug)]
pub(crate) struct Live(pub(crate) Arc<App>);

/// What a dashboard has been shown.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    /// Whoever has signed in.
    admin: Option<Admin>,
    /// When the newest sample was taken.
    seen: u64,
    after: Option<Uuid>,
    /// Of the page of users.
    page_hash: u64,
}

/// What a dashboard says.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Order {
    SignIn { secret: String },
    Turn { after: Option<Uuid> },
}

impl Live {
    /// Signs a dashboard in, or closes it.
    fn sign_in(self, ctx: &mut Ctx<'_, Watcher>, admin: Result<Admin, Refused>) {
        let with = match &admin {
            Ok(Admin::Key) => {
                ctx.clear_deadline();
                "api_key"
            }
            Ok(Admin::User(claims)) => {
                let end = self.0.verifier.load().end_of(claims);
                let (code, reason) = (Refused::Expired.close_code(), "expired: sign in again");
                let _ = ctx.set_deadline_with(end, code, reason);
                "token"
            }
            Err(refused) => return send_away(ctx, *refused),
        };
        ctx.set_authenticated();
        ctx.state_mut().admin = admin.ok();
        let _ = ctx.send(&json!({ "kind": "signed_in", "with": with }).to_string());
        self.show(ctx);
    }

    /// Sends what is new, and comes again.
    fn show(&self, ctx: &mut Ctx<'_, Watcher>) {
        if let Some(Admin::User(claims)) = &ctx.state().admin
            && self.0.verifier.load().is_revoked(claims)
        {
            return send_away(ctx, Refused::Revoked);
        }
        let (watcher, mut out) = ctx.split();
        let samples = self.0.board.since(watcher.seen);
        if let Some(newest) = samples.last() {
            watcher.seen = newest.at;
            let (messages, refused) = (self.0.counters.messages(), self.0.counters.refusals());
            let news = json!({
                "kind": "samples", "samples": samples, "messages": messages, "refused": refused,
            });
            // Where the peer is too slow for this one, the engine's limit decides.
            let _ = out.send(&news.to_string());
        }
        let page = self.0.presence.page(watcher.after.as_ref(), PAGE_LEN);
        let mut hasher = DefaultHasher::new();
        page.hash(&mut hasher);
        if hasher.finish() != watcher.page_hash {
            watcher.page_hash = hasher.finish();
            let mut users = listed(&page);
            users["kind"] = "users".into();
            let _ = out.send(&users.to_string());
        }
        let _ = out.set_timer(TICK, TICK_PERIOD);
    }
}

fn send_away(ctx: &mut Ctx<'_, Watcher>, refused: Refused) {
    // One that is closing already needs no other reason.
    let _ = ctx.close(refused.close_code(), refused.reason());
}

impl Handler for Live {
    type State = Watcher;

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<Watcher> {
        Answer::accept(Watcher::default())
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, Watcher>) {
        let (time, code) = (self.0.settings.login_timeout, Refused::Missing.close_code());
        let _ = ctx.set_deadline_with(time, code, "nobody has signed in in time");
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, Watcher>, message: Message<'_>) {
        match (serde_json::from_slice(message.as_bytes()), ctx.state().admin.is_some()) {
            (Ok(Order::SignIn { secret }), false) => {
                let app = self.0.clone();
                let admin = async move { Admin::of_secret(&app, &secret).await };
                let live = self.clone();
                // One that is refused has as many of these under way as it may, and is closed by its deadline.
                let _ = ctx.spawn(admin, |ctx, admin| live.sign_in(ctx, admin));
            }
            (Ok(Order::Turn { after }), true) => {
                ctx.state_mut().after = after;
                self.show(ctx);
            }
            _ => {
                let _ = ctx.close(CloseCode::POLICY_VIOLATION, "this is not what a dashboard says");
            }
        }
    }

    fn on_timer(&mut self, ctx: &mut Ctx<'_, Watcher>, _key: u64) {
        self.show(ctx);
    }

    fn on_event(&mut self, event: Posted) -> Result<(), Posted> {
        self.0.board.note(event.downcast::<Probe>()?);
        Ok(())
    }
}

/// Scripts and styles are the gateway's own, and so are connections; nobody puts the pages into frames.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Adds the pages.
pub(crate) fn pages<S: SocketRoutes>(router: Router<S>) -> Router<S> {
    const HTML: &str = "text/html; charset=utf-8";
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    const STYLE: &str = "text/css; charset=utf-8";
    let pages = [
        ("/", HTML, include_str!("../pages/dashboard.html")),
        ("/chat", HTML, include_str!("../pages/chat.html")),
        ("/dashboard.js", SCRIPT, include_str!("../pages/dashboard.js")),
        ("/chart.js", SCRIPT, include_str!("../pages/chart.js")),
        ("/chat.js", SCRIPT, include_str!("../pages/chat.js")),
        ("/gateway.js", SCRIPT, include_str!("../pages/gateway.js")),
        ("/gateway.css", STYLE, include_str!("../pages/gateway.css")),
    ];
    pages.into_iter().fold(router, |router, (path, media_type, text)| {
        let own = [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        let page = Asset::new(media_type, text.as_bytes());
        let page = own.into_iter().fold(page, |page, (name, value)| {
            page.with_header(name, HeaderValue::from_static(value))
        });
        router.asset(path, page)
    })
}
