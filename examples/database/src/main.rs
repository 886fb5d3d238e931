//! `DATABASE_URL=sqlite:accounts.db?mode=rwc database`, or with a URL of PostgreSQL: see the library.

use std::error::Error;

use ringwire::{Config, Server};
use ringwire_database::{Accounts, router};

const ADDRESS: &str = "127.0.0.1:9001";

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL")
        .map_err(|_| "set DATABASE_URL, to sqlite:accounts.db?mode=rwc, for example")?;
    // Its threads talk to the database. The workers poll, and serve the clients.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let accounts = runtime.block_on(Accounts::open(&url))?;
    let server = Server::new(Config::default())
        .listen(ADDRESS)
        .with_runtime(runtime.handle().clone())
        .start(move |_worker| router(accounts.clone()))?;
    ringwire::program::announce(server.urls().map(|url| format!("listening on {url}")));
    server.join()?;
    Ok(())
}
