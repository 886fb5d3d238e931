-- The users. A view of this name over an application's own users does as well.
CREATE TABLE IF NOT EXISTS gateway_users (
    id TEXT PRIMARY KEY CHECK (length(id) = 36 AND id = lower(id)),
    username TEXT NOT NULL UNIQUE,
    email TEXT NOT NULL,
    -- `admin`, or nothing.
    role TEXT,
    active BOOLEAN NOT NULL DEFAULT TRUE,
    -- Argon2 in the PHC string format; without one the user can't log in by password.
    password_hash TEXT
)
