//! What clients ask for at their handshake beside the URL, and say first: headers, cookies, subprotocols, tokens.
#![expect(clippy::disallowed_types, reason = "all connections of a load share it, over threads")]

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, bail};
use http::{HeaderName, HeaderValue, header};
use ringwire_codec::handshake::{HandshakeError, client::Request};
use serde::{Deserialize, Serialize};

/// Stands for the connection's token.
pub(crate) const TOKEN: &str = "{token}";
/// A socket that is new takes as much at once.
const MAX_FIRST_LEN: usize = 64 << 10;

/// Flags of what clients ask for and say first.
#[derive(Clone, Default, Deserialize, Serialize, clap::Args)]
#[command(next_help_heading = "Handshake")]
pub(crate) struct AskArgs {
    /// A header of each upgrade request, such as 'X-Api-Key: abc'; may be given again. {token} stands for the
    /// connection's line of --token-file, here, in --cookie, --subprotocol and --first-message, and in the URL.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// A cookie of each upgrade request; may be given again.
    #[arg(long = "cookie", value_name = "NAME=VALUE")]
    cookies: Vec<String>,
    /// Tokens, one a line: each connection has its own, and they begin again where there are fewer. Where {token}
    /// stands nowhere, it is sent as `Authorization: Bearer`.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Subprotocols to offer, the most wanted first, such as chat or bearer,{token}.
    #[arg(long = "subprotocol", value_delimiter = ',', value_name = "NAME")]
    subprotocols: Vec<String>,
    /// A text message that each connection sends before all else; may be given again.
    #[arg(long = "first-message", value_name = "TEXT")]
    first_messages: Vec<String>,
    /// Messages that have to come before a connection counts as open. [default: as many as --first-message]
    #[arg(long, value_name = "COUNT")]
    first_replies: Option<u32>,
}

/// The same, checked, with the tokens of some connections.
#[derive(Default)]
pub(crate) struct Ask {
    headers: Vec<(HeaderName, String)>,
    subprotocols: Vec<String>,
    first_messages: Vec<String>,
    first_replies: u32,
    tokens: Vec<String>,
    /// The number of the next connection, where nobody else gives them numbers.
    next: AtomicU32,
}

impl AskArgs {
    /// Whether nothing is asked for.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { headers, cookies, token_file, subprotocols, first_messages, first_replies } =
            self;
        let lists = [headers, cookies, subprotocols, first_messages];
        lists.iter().all(|list| list.is_empty()) && token_file.is_none() && first_replies.is_none()
    }

    /// Checks the flags, and reads the tokens of these connections. `path` is the URL's.
    ///
    /// # Errors
    /// When a header, cookie, subprotocol or token cannot be sent, or the file cannot be read.
    pub(crate) fn load(&self, path: &str, numbers: Range<u32>) -> anyhow::Result<Arc<Ask>> {
        let mut headers = self
            .headers
            .iter()
            .map(|line| split_header(line))
            .collect::<anyhow::Result<Vec<_>>>()?;
        if !self.cookies.is_empty() {
            headers.push((header::COOKIE, self.cookies.join("; ")));
        }
        let texts = headers.iter().map(|(_, value)| value);
        let texts = texts.chain(&self.subprotocols).chain(&self.first_messages);
        let is_placed = texts.map(String::as_str).chain([path]).any(|text| text.contains(TOKEN));
        let tokens = match &self.token_file {
            Some(file) => read_tokens(file, numbers)?,
            None if is_placed => {
                bail!("{TOKEN} stands for a line of --token-file, which is not given")
            }
            None => Vec::new(),
        };
        if !tokens.is_empty() && !is_placed {
            headers.push((header::AUTHORIZATION, format!("Bearer {TOKEN}")));
        }
        if self.first_messages.iter().map(String::len).sum::<usize>() > MAX_FIRST_LEN {
            bail!("--first-message: more than {MAX_FIRST_LEN} bytes");
        }
        let waits = u32::try_from(self.first_messages.len()).unwrap_or(u32::MAX);
        let ask = Ask {
            headers,
            subprotocols: self.subprotocols.clone(),
            first_messages: self.first_messages.clone(),
            first_replies: self.first_replies.unwrap_or(waits),
            tokens,
            next: AtomicU32::new(0),
        };
        // What the handshake takes of one connection it takes of all.
        let request = Request::new("localhost", &ask.fill(path, 0), [0; 16]);
        request.and_then(|request| ask.request(request, 0)).context(
            "a header, cookie, subprotocol or token that no upgrade request can have (RFC 6455 §4.1)",
        )?;
        Ok(Arc::new(ask))
    }
}

impl Ask {
    /// A number for a connection of a client that counts none itself.
    pub(crate) fn next_number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A text with the token of a connection in its place.
    pub(crate) fn fill<'t>(&self, text: &'t str, number: u32) -> Cow<'t, str> {
        let at = (number as usize).checked_rem(self.tokens.len());
        match at.and_then(|at| self.tokens.get(at)) {
            Some(token) if text.contains(TOKEN) => Cow::Owned(text.replace(TOKEN, token)),
            _ => Cow::Borrowed(text),
        }
    }

    /// What a connection says first.
    pub(crate) fn first_messages(&self, number: u32) -> impl Iterator<Item = Cow<'_, str>> {
        self.first_messages.iter().map(move |text| self.fill(text, number))
    }

    /// Messages that have to come before a connection counts as open.
    pub(crate) fn first_replies(&self) -> u32 {
        self.first_replies
    }

    /// Whether anything is said or waited for before the work.
    pub(crate) fn has_first(&self) -> bool {
        self.first_replies > 0 || !self.first_messages.is_empty()
    }

    /// The request of a connection, with what it asks for.
    pub(crate) fn request(
        &self,
        mut request: Request,
        number: u32,
    ) -> Result<Request, HandshakeError> {
        for (name, value) in &self.headers {
            let value = HeaderValue::from_str(&self.fill(value, number))
                .map_err(|_| HandshakeError::HeaderValue)?;
            request = match *name {
                header::ORIGIN => request.with_origin(value),
                _ => request.with_header(name.clone(), value)?,
            };
        }
        for name in &self.subprotocols {
            request = request.with_subprotocol(&self.fill(name, number))?;
        }
        Ok(request)
    }
}

/// Tokens are nobody's business.
impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask").finish_non_exhaustive()
    }
}

impl fmt::Debug for AskArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskArgs").finish_non_exhaustive()
    }
}

fn split_header(line: &str) -> anyhow::Result<(HeaderName, String)> {
    let split = line.split_once(':').with_context(|| {
        format!("--header {line:?} is no header: write NAME: VALUE, such as 'X-Api-Key: abc'")
    })?;
    let name = HeaderName::from_bytes(split.0.trim().as_bytes())
        .with_context(|| format!("--header: {:?} is no name of a header", split.0))?;
    Ok((name, split.1.trim().to_owned()))
}

/// The tokens of these connections, of which the first has the first.
fn read_tokens(file: &Path, numbers: Range<u32>) -> anyhow::Result<Vec<String>> {
    let context = || format!("cannot read --token-file {}", file.display());
    let lines = BufReader::new(File::open(file).with_context(context)?).lines();
    let mut tokens = Vec::new();
    for line in lines {
        let line = line.with_context(context)?;
        let token = line.trim();
        if !token.is_empty() {
            HeaderValue::from_str(token)
                .with_context(|| format!("{}: a token with control characters", file.display()))?;
            tokens.push(token.to_owned());
        }
    }
    if tokens.is_empty() {
        bail!("--token-file {} has no token", file.display());
    }
    let first = numbers.start as usize % tokens.len();
    tokens.rotate_left(first);
    tokens.truncate(numbers.len().max(1));
    tokens.shrink_to_fit();
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::parse_words;

    fn load(args: &[&str], path: &str, numbers: Range<u32>) -> anyhow::Result<Arc<Ask>> {
        parse_words::<AskArgs>(args)?.load(path, numbers)
    }

    /// The head of the request of a connection.
    fn head(ask: &Ask, path: &str, number: u32) -> String {
        let request = Request::new("localhost", &ask.fill(path, number), [0; 16]).unwrap();
        let mut bytes = Vec::new();
        ask.request(request, number).unwrap().encode(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    fn tokens(lines: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines).unwrap();
        file
    }

    #[test]
    fn request_has_what_is_asked_for() {
        let args = [
            "--header",
            "X-Api-Key: a:b",
            "-H",
            "Origin: https://example.org",
            "--cookie",
            "a=1",
            "--cookie",
            "b=2",
            "--subprotocol",
            "chat.v2,chat",
        ];
        let head = head(&load(&args, "/", 0..1).unwrap(), "/", 0).to_ascii_lowercase();
        for line in [
            "x-api-key: a:b",
            "origin: https://example.org",
            "cookie: a=1; b=2",
            "sec-websocket-protocol: chat.v2, chat",
        ] {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
        }
    }

    #[test]
    fn each_connection_has_its_token() {
        let file = tokens("one\n\n two \nthree\n");
        let file = file.path().to_str().unwrap();
        let bearer = load(&["--token-file", file], "/", 0..3).unwrap();
        for (number, token) in [(0, "one"), (1, "two"), (2, "three"), (3, "one")] {
            let head = head(&bearer, "/", number).to_ascii_lowercase();
            assert!(head.contains(&format!("\r\nauthorization: bearer {token}\r\n")), "{head}");
        }
        // In its place it is nowhere else. A process that has the second connection on begins with that one's.
        let args = [
            "--token-file",
            file,
            "--subprotocol",
            "bearer,{token}",
            "--first-message",
            "hello {token}",
        ];
        let placed = load(&args, "/ws?token={token}", 1..3).unwrap();
        let head = head(&placed, "/ws?token={token}", 0);
        assert!(head.starts_with("GET /ws?token=two HTTP/1.1\r\n"), "{head}");
        assert!(
            head.contains("bearer, two\r\n") && !head.to_lowercase().contains("authorization"),
            "{head}"
        );
        assert_eq!(placed.first_messages(1).collect::<Vec<_>>(), ["hello three"]);
        assert_eq!(placed.first_replies(), 1);
    }

    #[test]
    fn what_cannot_be_sent_is_told_before_the_run() {
        let file = tokens("\n \n");
        let file = file.path().to_str().unwrap();
        for (args, path, told) in [
            (&["--header", "no colon"][..], "/", "NAME: VALUE"),
            (&["--header", "a b: c"], "/", "no name of a header"),
            (&["--header", "Upgrade: h2c"], "/", "RFC 6455"),
            (&["--header", "X: a\u{7f}b"], "/", "RFC 6455"),
            (&["--subprotocol", "a b"], "/", "RFC 6455"),
            (&[], "/?{token}", "--token-file"),
            (&["--token-file", file], "/", "has no token"),
            (&["--token-file", "/nowhere/tokens"], "/", "/nowhere/tokens"),
        ] {
            let error = format!("{:#}", load(args, path, 0..1).err().unwrap());
            assert!(error.contains(told), "{args:?}: {error}");
        }
    }

    #[test]
    fn tokens_are_in_no_debug_output() {
        let file = tokens("secret");
        let args = ["--token-file", file.path().to_str().unwrap(), "--header", "X: secret"];
        let flags: AskArgs = parse_words(args).unwrap();
        let ask = flags.load("/", 0..1).unwrap();
        assert!(!format!("{flags:?} {ask:?}").contains("secret"));
    }
}
