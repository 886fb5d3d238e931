//! Users in a database: SQLite or PostgreSQL, whichever a URL names.
//!
//! Where there is one, it decides who a token's user is: a user who is missing or inactive is refused, and the name,
//! the address and the role are those of the database. Users who have a password there can log in with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};
use ringwire::settings::Secret;
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AnyPool, Row as _, SqlSafeStr as _};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use uuid::Uuid;

use crate::auth::{Claims, Refused};

/// How long a query may take, and wait for a connection to the database before that.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The longest password: to hash it takes time.
const MAX_PASSWORD_LEN: usize = 1024;

// Drivers differ in what a BOOLEAN is.
macro_rules! find_by {
    ($column:literal) => {
        concat!(
            "SELECT id, username, email, role, CASE WHEN active THEN 1 ELSE 0 END AS active, \
             password_hash FROM gateway_users WHERE ",
            $column,
            " = $1"
        )
    };
}

const BY_ID: &str = find_by!("id");
const BY_NAME: &str = find_by!("username");
const ADD: &str = "INSERT INTO gateway_users (id, username, email, role, active, password_hash) \
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (username) DO UPDATE SET \
                   email = excluded.email, role = excluded.role, active = excluded.active, \
                   password_hash = excluded.password_hash";

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// What tokens call the user.
    pub id: Uuid,
    /// What people call the user. No other one has the same name.
    pub username: String,
    /// The user's address.
    pub email: String,
    /// What the user may do: `admin` may administer.
    pub role: Option<String>,
    /// Whether the user may come in at all.
    pub active: bool,
}

/// The users in a database.
#[derive(Clone, Debug)]
pub struct Users {
    pool: AnyPool,
    /// One for each password that is checked at the same time: each takes some 20 MiB, and a core.
    hashing: Arc<Semaphore>,
    /// One for each login that is under way, those included that wait for their turn.
    logins: Arc<Semaphore>,
    /// What a password is checked against where there is no user, so that it takes as long.
    nobody: Arc<str>,
    /// Whether the newest query had an answer.
    answers: Arc<AtomicBool>,
}

impl Users {
    /// Opens the database with so many connections at most, and makes the tables that it does not have yet. So many
    /// may log in at the same time.
    ///
    /// # Errors
    /// The URL is malformed, the database can't be reached, or its tables can't be made.
    pub async fn open(
        url: &Secret,
        max_connections: u32,
        max_logins: usize,
    ) -> Result<Self, sqlx::Error> {
        sqlx::any::install_default_drivers();
        let url = url.reveal();
        if !["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme)) {
            // An error of the library would have the URL in it, and with it a password.
            let problem = "the URL of a database begins with sqlite: or postgres:";
            return Err(sqlx::Error::Configuration(problem.into()));
        }
        let options = AnyPoolOptions::new().max_connections(max_connections);
        let pool = options.acquire_timeout(MAX_WAIT).connect(url).await?;
        let text = include_str!("../migrations/1_users.sql").into_sql_str();
        let users = Migration::new(1, "users".into(), MigrationType::Simple, text, false);
        let mut migrator = Migrator::with_migrations(vec![users]);
        // An application may have migrations of its own there.
        migrator.dangerous_set_table_name("gateway_migrations");
        migrator.run(&pool).await?;
        let cores = std::thread::available_parallelism().map_or(1, Into::into);
        let nobody = hash(Uuid::new_v4().to_string()).await?;
        let logins = Semaphore::new(max_logins.min(Semaphore::MAX_PERMITS)).into();
        let hashing = Arc::new(Semaphore::new(cores));
        Ok(Self { pool, hashing, logins, nobody: nobody.into(), answers: Arc::new(true.into()) })
    }

    /// A token's claims with what the database says of the user.
    ///
    /// # Errors
    /// The user is missing or inactive, or the database does not answer.
    pub async fn confirm(&self, claims: Claims) -> Result<Claims, Refused> {
        let user = self.active(claims.sub).await?;
        Ok(Claims { username: user.username, email: user.email, role: user.role, ..claims })
    }

    /// The user with this id, who has to be active.
    ///
    /// # Errors
    /// The user is missing or inactive, or the database does not answer.
    pub async fn active(&self, id: Uuid) -> Result<User, Refused> {
        let found = self.find(BY_ID, &id.to_string()).await?;
        let (user, _) = found.ok_or(Refused::UnknownUser)?;
        if user.active { Ok(user) } else { Err(Refused::Inactive) }
    }

    /// The user of this name, if the password is right. Takes as long for a name that is wrong.
    ///
    /// # Errors
    /// Name or password is wrong, the user is inactive, the database does not answer, or too many log in.
    pub async fn login(&self, username: &str, password: &str) -> Result<User, Refused> {
        // PostgreSQL takes no text with a zero.
        if password.len() > MAX_PASSWORD_LEN || username.contains('\0') {
            return Err(Refused::Credentials);
        }
        // Given back when the login is given up, too.
        let _place = self.logins.try_acquire().map_err(|_| Refused::Busy)?;
        let found = self.find(BY_NAME, username).await?;
        let (user, expected) = found.unzip();
        let is_known = user.is_some();
        let expected = expected.flatten().unwrap_or_else(|| self.nobody.to_string());
        let password = password.to_owned();
        let turn = self.hashing.clone().acquire_owned().await.map_err(|_| Refused::Unavailable)?;
        let check = move || {
            let _turn = turn;
            Argon2::default().verify_password(password.as_bytes(), &*expected).is_ok()
        };
        let is_right =
            tokio::task::spawn_blocking(check).await.map_err(|_| Refused::Unavailable)?;
        let user = user.filter(|_| is_known && is_right).ok_or(Refused::Credentials)?;
        if user.active { Ok(user) } else { Err(Refused::Inactive) }
    }

    /// Adds a user, or gives the one of this name another password, address, role and state.
    ///
    /// # Errors
    /// The database failed, or has the id for another name.
    pub async fn add(&self, user: &User, password: Option<&str>) -> Result<(), sqlx::Error> {
        let hash = match password {
            Some(password) => Some(hash(password.to_owned()).await?),
            None => None,
        };
        let query = sqlx::query(ADD).bind(user.id.to_string()).bind(&user.username);
        let query = query.bind(&user.email).bind(&user.role).bind(user.active).bind(hash);
        query.execute(&self.pool).await.map(drop)
    }

    /// The connections to the database: all, and those that nobody uses.
    #[must_use]
    pub fn connections(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }

    /// Whether the database has answered the last time that it was asked.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.answers.load(Ordering::Relaxed)
    }

    /// Asks the database something, so that [`answers`](Self::answers) is of now.
    pub(crate) async fn ask(&self) {
        let _ = self.find(BY_ID, "").await;
    }

    async fn find(
        &self,
        query: &'static str,
        by: &str,
    ) -> Result<Option<(User, Option<String>)>, Refused> {
        let row = sqlx::query(query).bind(by).fetch_optional(&self.pool);
        let row = timeout(MAX_WAIT, row).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        self.answers.store(row.is_ok(), Ordering::Relaxed);
        row.and_then(|row| row.map(|row| user(&row)).transpose()).map_err(|error| {
            tracing::error!(%error, "a query failed");
            Refused::Unavailable
        })
    }
}

impl User {
    /// The claims of a user who has logged in with a password.
    #[must_use]
    pub fn claims(self, now: SystemTime, lifetime: Duration) -> Claims {
        let iat = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Claims {
            sub: self.id,
            username: self.username,
            email: self.email,
            exp: iat.saturating_add(lifetime.as_secs()),
            iat,
            nbf: None,
            jti: Uuid::new_v4().to_string(),
            role: self.role,
        }
    }
}

fn user(row: &AnyRow) -> Result<(User, Option<String>), sqlx::Error> {
    let id: String = row.try_get("id")?;
    let user = User {
        id: id.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        username: row.try_get("username")?,
        email: row.try_get("email")?,
        role: row.try_get("role")?,
        active: row.try_get::<i64, _>("active")? != 0,
    };
    Ok((user, row.try_get("password_hash")?))
}

/// Hashes a password, away from the workers.
async fn hash(password: String) -> Result<String, sqlx::Error> {
    let work =
        move || Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string());
    let hash = tokio::task::spawn_blocking(work).await.ok().and_then(Result::ok);
    hash.ok_or(sqlx::Error::WorkerCrashed)
}
