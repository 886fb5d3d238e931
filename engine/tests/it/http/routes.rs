//! What stands around routes: guards, routers in routers, what they share, and answers that come later.

use http::{Method, StatusCode};
use ringwire::{
    Answer, Ctx, Event, Handler, Message, Request, Responder, Response, Router, on_message,
    router::Shared,
};
use ringwire_peers::{Client, Http, client_request, connect};

use crate::support::{Server, config};

fn server<H: Handler>(make: impl Fn() -> H + Send + Sync + 'static) -> Server {
    Server::with_handler(config(), &["127.0.0.1:0"], move |_, _| make())
}

fn socket(server: &Server, path: &str) -> Client {
    Client::upgrade(connect(server.addr()), &client_request(path))
}

/// The status that an upgrade is answered with.
fn upgrade_status(server: &Server, path: &str) -> u16 {
    let mut http = Http::connect(server.addr());
    let mut wire = Vec::new();
    client_request(path).encode(&mut wire);
    http.send(wire);
    http.head().status()
}

fn status(server: &Server, method: &str, path: &str, lines: &str) -> u16 {
    let mut http = Http::connect(server.addr());
    http.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
    http.head().status()
}

/// Lets in who knows the word.
fn is_known(request: &Request<'_>) -> Result<(), Response> {
    match request.header_str("authorization") {
        Some("Bearer sesame") => Ok(()),
        Some(_) => Err(Response::new(StatusCode::FORBIDDEN)),
        None => Err(Response::new(StatusCode::UNAUTHORIZED)),
    }
}

fn text(request: &Request<'_>) -> Response {
    Response::text(format!("{} below {}", request.path(), request.path_below()))
}

fn echo() -> impl Handler {
    on_message(|ctx, message| ctx.send(message))
}

#[test]
fn a_guard_covers_all_that_is_below() {
    let server = server(|| {
        Router::new()
            .get("/", text)
            .get("/admin", text)
            .get("/admin/users", text)
            .get("/administrators", text)
            .get("/{*rest}", text)
            .websocket("/admin/log", echo())
            .websocket("/log", echo())
            .guard("/admin", is_known)
    });
    let known = "Authorization: Bearer sesame\r\n";
    for path in
        ["/admin", "/admin/", "/admin/users", "/admin/nowhere", "/%61dmin/users", "/admin%2fx"]
    {
        assert_eq!(status(&server, "GET", path, ""), 401, "{path}");
        assert_eq!(status(&server, "GET", path, "Authorization: Bearer x\r\n"), 403, "{path}");
        assert_eq!(status(&server, "GET", path, known), 200, "{path}");
    }
    for method in ["HEAD", "POST", "OPTIONS", "BREW"] {
        assert_eq!(status(&server, method, "/admin/users", ""), 401, "{method}");
    }
    for path in ["/", "/administrators", "/other", "/x/admin"] {
        assert_eq!(status(&server, "GET", path, ""), 200, "{path}");
    }
    assert_eq!(upgrade_status(&server, "/admin/log"), 401);
    assert_eq!(upgrade_status(&server, "/admin/nowhere"), 401);
    assert_eq!(upgrade_status(&server, "/log"), 101);
    let name = http::header::AUTHORIZATION;
    let value = http::HeaderValue::from_static("Bearer sesame");
    let request = client_request("/admin/log").with_header(name, value).unwrap();
    let mut client = Client::upgrade(connect(server.addr()), &request);
    client.send("hello");
    assert_eq!(client.text(), "hello");
}

#[test]
fn guards_are_asked_in_their_order() {
    let server = server(|| {
        let refusing = |status: StatusCode| move |_: &Request<'_>| Err::<(), _>(status);
        Router::new()
            .guard("/", |request| match request.query_param("all") {
                Some(_) => Err(StatusCode::IM_A_TEAPOT),
                None => Ok(()),
            })
            .guard("/a/b", refusing(StatusCode::GONE))
            .guard("/a", refusing(StatusCode::CONFLICT))
            .get("/c", text)
    });
    for (path, expected) in
        [("/a/b/c", 410), ("/a/c", 409), ("/c", 200), ("/c?all", 418), ("/x?all", 418)]
    {
        assert_eq!(status(&server, "GET", path, ""), expected, "{path}");
    }
}

/// Greets with a parameter of its prefix and one of its own path.
struct Greeter;

impl Handler for Greeter {
    type State = String;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<String> {
        let param = |name| request.param(name).unwrap_or_else(|| "none".into());
        Answer::accept(format!("{} in {}", param("user"), param("room")))
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, String>) {
        let (state, mut out) = ctx.split();
        out.send(&*state).expect("nothing waits");
    }
}

fn rooms() -> impl Handler {
    Router::new()
        .get("/", text)
        .get("/{room}", |request| {
            let param = |name| request.param(name).unwrap_or_else(|| "none".into());
            Response::text(format!("{} of {}", param("room"), param("user")))
        })
        .post("/{room}", |_| StatusCode::CREATED)
        .guard("/secret", is_known)
        .websocket("/{room}/talk", Greeter)
}

#[test]
fn routers_nest() {
    let server = server(|| {
        let v1 = Router::new().get("/", text).get("/ping", text).nest("/users/{user}", rooms());
        Router::new()
            .get("/", text)
            .websocket("/echo", echo())
            .nest("/v1", v1)
            .get("/v2/ping", text)
            .fallback(|_| StatusCode::IM_A_TEAPOT)
    });
    let mut http = Http::connect(server.addr());
    for (path, expected) in [
        ("/", "/ below /"),
        ("/v1", "/v1 below /"),
        ("/v1/", "/v1/ below /"),
        ("/v1/ping", "/v1/ping below /ping"),
        ("/v1/ping?x=/y", "/v1/ping below /ping"),
        ("/v2/ping", "/v2/ping below /v2/ping"),
        ("/v1/users/anna", "/v1/users/anna below /"),
        ("/v1/users/anna/", "/v1/users/anna/ below /"),
        ("/v1/users/anna/kitchen", "kitchen of anna"),
    ] {
        let answer = http.get(path);
        assert_eq!((answer.status(), answer.text()), (200, expected), "{path}");
    }
    assert_eq!(http.post("/v1/users/anna/kitchen", "").status(), 201);
    let answer = http.post("/v1/ping", "");
    assert_eq!((answer.status(), answer.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
    assert_eq!(http.get("/v1/nowhere").status(), 404, "the nested router's own answer");
    assert_eq!(http.get("/v1x").status(), 418);
    assert_eq!(http.get("/v1/users/anna/secret").status(), 401, "a guard of a nested router");
    assert_eq!(http.get("/v1/users/anna/kitchen/talk").status(), 426);
    let mut client = socket(&server, "/v1/users/anna/kitchen/talk");
    assert_eq!(client.text(), "anna in kitchen");
    client.leave();
    assert_eq!(upgrade_status(&server, "/v1/users/anna/secret/talk"), 401);
    assert_eq!(upgrade_status(&server, "/v1/nowhere"), 404);
    let mut client = socket(&server, "/echo");
    client.send("hello");
    assert_eq!(client.text(), "hello");
}

#[derive(Default)]
struct App {
    said: Vec<String>,
}

impl App {
    fn page(&mut self, request: &Request<'_>) -> Result<Response, StatusCode> {
        let page = request.query_param("page").ok_or(StatusCode::BAD_REQUEST)?;
        let page: usize = page.parse().map_err(|_| StatusCode::UNPROCESSABLE_ENTITY)?;
        self.said.get(page).cloned().map(Response::text).ok_or(StatusCode::NOT_FOUND)
    }
}

struct Chat(Shared<App>);

impl Handler for Chat {
    type State = ();

    fn on_request(&mut self, _: &Request<'_>) -> Answer<()> {
        Answer::accept(())
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, ()>, message: Message<'_>) {
        self.0.borrow_mut().said.extend(message.as_text().map(str::to_owned));
        ctx.send(message).expect("nothing waits");
    }
}

#[test]
fn routes_share_and_answer_with_results() {
    let server = server(|| {
        let app = Shared::new(App::default());
        Router::new()
            .get("/said", app.with(App::page))
            .delete(
                "/said",
                app.with(|app, _| {
                    app.said.clear();
                    StatusCode::NO_CONTENT
                }),
            )
            .websocket("/chat", Chat(app))
    });
    let mut client = socket(&server, "/chat");
    client.send("one");
    assert_eq!(client.text(), "one");
    let mut http = Http::connect(server.addr());
    for (path, expected) in
        [("/said", 400), ("/said?page=x", 422), ("/said?page=7", 404), ("/said?page=%30", 200)]
    {
        assert_eq!(http.get(path).status(), expected, "{path}");
    }
    assert_eq!(http.get("/said?x=1&page=0").text(), "one");
    assert_eq!(status(&server, "DELETE", "/said", ""), 204);
    assert_eq!(http.get("/said?page=0").status(), 404);
}

#[test]
fn a_route_may_answer_later() {
    let server = server(|| {
        Router::new().route_with(Method::GET, "/later/{name}", |request, responder: Responder| {
            let name = request.param("name").unwrap_or_default().into_owned();
            std::thread::spawn(move || responder.send(Response::text(name)));
        })
    });
    let mut http = Http::connect(server.addr());
    assert_eq!(http.get("/later/a").text(), "a");
    assert_eq!(http.get("/later/b").text(), "b");
    assert_eq!(http.post("/later/b", "").status(), 405);
}

#[test]
fn parameters_of_a_query_are_decoded() {
    let server = server(|| {
        Router::new().get("/", |request| {
            let all: Vec<_> = request.query_params().collect();
            Response::text(format!("{:?} {all:?}", request.query_param("q")))
        })
    });
    let mut http = Http::connect(server.addr());
    for (path, expected) in [
        ("/", "None []"),
        ("/?", "None []"),
        ("/?q", "Some(\"\") [(\"q\", \"\")]"),
        ("/?q=a+b%2B%26c&q=2", "Some(\"a b+&c\") [(\"q\", \"a b+&c\"), (\"q\", \"2\")]"),
        ("/?%71=%c3%a4", "Some(\"ä\") [(\"q\", \"ä\")]"),
    ] {
        assert_eq!(http.get(path).text(), expected, "{path}");
    }
}

/// Answers some messages itself, and passes on everything else; keeps a count beside the state of the handler inside.
struct Counting<H>(H);

impl<H: Handler> Handler for Counting<H> {
    type State = (u32, H::State);

    fn on_request(&mut self, request: &Request<'_>) -> Answer<Self::State> {
        self.0.on_request(request).map(|state| (0, state))
    }

    fn handle(&mut self, ctx: &mut Ctx<'_, Self::State>, event: Event<'_>) {
        if let Event::Message(message) = event {
            ctx.state_mut().0 += 1;
            if message == Message::Text("count") {
                let (state, mut out) = ctx.split();
                out.send(&state.0.to_string()).expect("nothing waits");
                return;
            }
        }
        self.0.handle(&mut ctx.project(|state| &mut state.1), event);
    }
}

/// Says of each of its calls what it was.
struct Chatty;

impl Handler for Chatty {
    type State = &'static str;

    fn on_request(&mut self, _: &Request<'_>) -> Answer<&'static str> {
        Answer::accept("inner")
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, &'static str>) {
        ctx.send("open").expect("nothing waits");
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, &'static str>, _: Message<'_>) {
        let job = || 6 * 7;
        let then = |ctx: &mut Ctx<'_, &'static str>, answer: Result<i32, _>| {
            let text = format!("{} {}", ctx.state(), answer.expect("it does not panic"));
            ctx.send(&text).expect("nothing waits");
        };
        ctx.offload(job, then).expect("there is a thread");
    }

    fn on_ping(&mut self, ctx: &mut Ctx<'_, &'static str>, payload: &[u8]) {
        ctx.send(payload).expect("nothing waits");
    }
}

#[test]
fn a_handler_around_another_passes_everything_on() {
    let config = config().with_compute_workers(1);
    let server = Server::with_handler(config, &["127.0.0.1:0"], |_, _| {
        Router::new().websocket("/", echo()).websocket("/chatty", Counting(Chatty))
    });
    let mut client = socket(&server, "/chatty");
    assert_eq!(client.text(), "open");
    client.send("hello");
    assert_eq!(client.text(), "inner 42");
    client.ping(b"ping");
    client.send("count");
    let mut got = Vec::new();
    while got.len() < 3 {
        got.push(format!("{:?}", client.next()));
    }
    got.sort();
    assert_eq!(got, ["Binary([112, 105, 110, 103])", "Pong([112, 105, 110, 103])", "Text(\"2\")"]);
    client.leave();
}
