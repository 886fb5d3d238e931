//! Accounts in a database, over WebSockets: each connection is served by an async function, and `await`s its queries on
//! the connection's own worker. `sqlx` finds the runtime that it needs through
//! [`Server::with_runtime`](ringwire::Server::with_runtime).
//!
//! - `/ws?name=NAME`: a WebSocket for whoever has an account of that name, 401 for others. `get` is answered with its
//!   number, `add NUMBER` adds to it and is answered with the sum, if there is room for that, and everything else comes
//!   back as it is.
//! - `GET /accounts/NAME`: the number, 404 if there is no such account.

use ringwire::{
    Handler, OwnedMessage, OwnedRequest, Response, Router, Socket, SocketError, StatusCode,
};
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyPool, Row as _};

/// Where accounts are kept: a pool of connections to a database that a URL names.
#[derive(Clone, Debug)]
pub struct Accounts(AnyPool);

impl Accounts {
    /// Opens the database, and makes the table where there is none.
    ///
    /// # Errors
    /// The URL is malformed, or the database can't be reached.
    pub async fn open(url: &str) -> Result<Self, sqlx::Error> {
        sqlx::any::install_default_drivers();
        // SQLite has one writer at a time, and gives its lock in no order: one of several could wait for too long.
        let connections = if url.starts_with("sqlite:") { 1 } else { 5 };
        let pool = AnyPoolOptions::new().max_connections(connections).connect(url).await?;
        let table =
            "CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, number BIGINT NOT NULL)";
        sqlx::query(table).execute(&pool).await?;
        Ok(Self(pool))
    }

    /// The number of an account, if there is one with this name.
    ///
    /// # Errors
    /// The database failed.
    pub async fn get(&self, name: &str) -> Result<Option<i64>, sqlx::Error> {
        let query = sqlx::query("SELECT number FROM accounts WHERE name = $1").bind(name);
        query.fetch_optional(&self.0).await?.map(|row| row.try_get(0)).transpose()
    }

    /// Adds to the number of an account, which is made where there is none. Gives the sum.
    ///
    /// # Errors
    /// The database failed, or the sum is too large ([`sqlx::Error::RowNotFound`]): the account is as it was then.
    pub async fn add(&self, name: &str, number: i64) -> Result<i64, sqlx::Error> {
        // SQLite makes a floating-point number of a sum that is too large, so such a row is left as it is: then there
        // is none to return. Only CASE has the order in which its parts are worked out.
        let text = "INSERT INTO accounts (name, number) VALUES ($1, $2) \
                    ON CONFLICT (name) DO UPDATE SET number = accounts.number + excluded.number \
                    WHERE CASE WHEN excluded.number >= 0 \
                    THEN accounts.number <= 9223372036854775807 - excluded.number \
                    ELSE accounts.number >= -9223372036854775807 - 1 - excluded.number END \
                    RETURNING number";
        sqlx::query(text).bind(name).bind(number).fetch_one(&self.0).await?.try_get(0)
    }
}

/// What a worker serves.
#[must_use]
pub fn router(accounts: Accounts) -> impl Handler + use<> {
    let (for_requests, for_sockets, for_http) = (accounts.clone(), accounts.clone(), accounts);
    Router::new()
        .websocket_async(
            "/ws",
            async move |request: OwnedRequest| authenticate(&for_requests, &request).await,
            async move |name: String, socket: Socket| serve(&for_sockets, &name, socket).await,
        )
        .get_async("/accounts/{name}", async move |request: OwnedRequest| {
            let number = for_http.get(request.param("name").unwrap_or_default()).await;
            number
                .map_err(failed)?
                .map(|number| Response::text(number.to_string()))
                .ok_or_else(not_found)
        })
}

async fn authenticate(accounts: &Accounts, request: &OwnedRequest) -> Result<String, Response> {
    let name = request.query().and_then(|query| query.strip_prefix("name=")).unwrap_or_default();
    match accounts.get(name).await.map_err(failed)? {
        Some(_) => Ok(name.to_owned()),
        None => Err(Response::new(StatusCode::UNAUTHORIZED)),
    }
}

async fn serve(accounts: &Accounts, name: &str, mut socket: Socket) -> Result<(), SocketError> {
    while let Some(message) = socket.receive().await? {
        let answer = match answer(accounts, name, &message).await {
            Ok(Some(number)) => OwnedMessage::Text(number.to_string()),
            Ok(None) => message,
            Err(sqlx::Error::RowNotFound) => OwnedMessage::from("the sum is too large"),
            Err(error) => {
                tracing::error!(%error, "a query failed");
                OwnedMessage::from("the database failed")
            }
        };
        socket.send(answer).await?;
    }
    Ok(())
}

async fn answer(
    accounts: &Accounts,
    name: &str,
    message: &OwnedMessage,
) -> Result<Option<i64>, sqlx::Error> {
    let text = message.as_text().unwrap_or_default();
    if text == "get" {
        return accounts.get(name).await;
    }
    match text.strip_prefix("add ").and_then(|number| number.parse().ok()) {
        Some(number) => accounts.add(name, number).await.map(Some),
        None => Ok(None),
    }
}

fn failed(error: sqlx::Error) -> Response {
    tracing::error!(%error, "a query failed");
    Response::new(StatusCode::SERVICE_UNAVAILABLE)
}

fn not_found() -> Response {
    Response::new(StatusCode::NOT_FOUND)
}
