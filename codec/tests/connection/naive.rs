//! A decoder that is plainly right and slow: it has all of the input, and goes through it a byte at
//! a time in the order of RFC 6455. The fuzz targets share this.

use ringwire_codec::{CloseCode, Config, Error, Limit, Role, Violation};

use crate::drive::{KEY, Mode, Outcome, Seen};

/// What is to come of `input`.
pub(crate) fn decode(role: Role, config: &Config, mode: Mode, input: &[u8]) -> Outcome {
    let mut naive = Naive {
        config: *config,
        role,
        mode,
        input,
        at: 0,
        message: None,
        controls: 0,
        seen: Vec::new(),
        pong: None,
        close: None,
    };
    while let Some(step) = naive.frame() {
        match step {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                naive.seen.push(Seen::Failed(error));
                naive.pong = None;
                naive.close = Some(error.close_code().get().to_be_bytes().to_vec());
                break;
            }
        }
    }
    naive.outcome()
}

struct Naive<'a> {
    config: Config,
    role: Role,
    mode: Mode,
    input: &'a [u8],
    at: usize,
    message: Option<Unfinished>,
    controls: usize,
    seen: Vec<Seen>,
    pong: Option<Vec<u8>>,
    close: Option<Vec<u8>>,
}

#[derive(Default)]
struct Unfinished {
    is_text: bool,
    bytes: Vec<u8>,
    fragments: usize,
    empty_fragments: usize,
}

struct Header {
    first: u8,
    key: Option<[u8; 4]>,
    len: u64,
    len_form: u8,
}

impl Naive<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.input.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn header(&mut self) -> Option<Header> {
        let first = self.byte()?;
        let second = self.byte()?;
        let len_form = second & 0x7f;
        let len_bytes = match len_form {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut len = 0;
        for _ in 0..len_bytes {
            len = len << 8 | u64::from(self.byte()?);
        }
        if len_bytes == 0 {
            len = u64::from(len_form);
        }
        let key = if second & 0x80 == 0 {
            None
        } else {
            Some([self.byte()?, self.byte()?, self.byte()?, self.byte()?])
        };
        Some(Header { first, key, len, len_form })
    }

    /// One frame. `None`: the input ends in it. `Ok(false)`: nothing after it is looked at.
    fn frame(&mut self) -> Option<Result<bool, Error>> {
        let header = self.header()?;
        if let Err(violation) = self.judge(&header) {
            return Some(Err(Error::PeerMisbehaved(violation)));
        }
        let opcode = header.first & 0x0f;
        let fin = header.first & 0x80 != 0;
        if opcode < 8 {
            let is_text = opcode == 1;
            let message =
                self.message.get_or_insert_with(|| Unfinished { is_text, ..Default::default() });
            if message.fragments == self.config.max_fragment_count as usize {
                return Some(Err(Error::LimitExceeded(Limit::FragmentCount)));
            }
            if message.bytes.len() as u64 + header.len > self.config.max_message_len as u64 {
                return Some(Err(Error::LimitExceeded(Limit::MessageLen)));
            }
            message.fragments += 1;
            message.empty_fragments += usize::from(header.len == 0 && !fin);
        }

        let mut payload = Vec::new();
        let mut whole = true;
        for i in 0..header.len {
            let Some(byte) = self.byte() else {
                whole = false;
                break;
            };
            payload.push(header.key.map_or(byte, |key| byte ^ key[(i % 4) as usize]));
        }
        if opcode >= 8 {
            return whole.then(|| self.control(opcode, payload));
        }
        self.data(&payload, whole, fin)
    }

    fn judge(&self, header: &Header) -> Result<(), Violation> {
        let opcode = header.first & 0x0f;
        let fin = header.first & 0x80 != 0;
        if (3..=7).contains(&opcode) || opcode >= 11 {
            return Err(Violation::ReservedOpCode);
        }
        if opcode >= 8 && !fin {
            return Err(Violation::FragmentedControl);
        }
        if opcode >= 8 && header.len_form > 125 {
            return Err(Violation::ControlTooLong);
        }
        if header.len_form == 126 && header.len < 126
            || header.len_form == 127 && header.len < 65536
        {
            return Err(Violation::LengthNotMinimal);
        }
        if header.len >= 1 << 63 {
            return Err(Violation::LengthTooLarge);
        }
        if header.first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        if self.role == Role::Server && header.key.is_none() {
            return Err(Violation::UnmaskedClientFrame);
        }
        if self.role == Role::Client && header.key.is_some() {
            return Err(Violation::MaskedServerFrame);
        }
        if opcode == 0 && self.message.is_none() {
            return Err(Violation::ContinuationWithoutStart);
        }
        if (opcode == 1 || opcode == 2) && self.message.is_some() {
            return Err(Violation::MessageInsideMessage);
        }
        Ok(())
    }

    fn data(&mut self, payload: &[u8], whole: bool, fin: bool) -> Option<Result<bool, Error>> {
        let message = self.message.as_mut()?;
        message.bytes.extend_from_slice(payload);
        if message.is_text {
            let ends = whole && fin;
            match String::from_utf8(message.bytes.clone()) {
                Ok(_) => {}
                Err(error) if !ends && error.utf8_error().error_len().is_none() => {}
                Err(_) => return Some(Err(Error::InvalidUtf8)),
            }
        }
        if !whole {
            return None;
        }
        if !fin {
            return Some(Ok(true));
        }
        let message = self.message.take()?;
        self.controls += message.empty_fragments;
        if self.controls > usize::from(self.config.max_control_count) {
            return Some(Err(Error::LimitExceeded(Limit::ControlCount)));
        }
        if self.mode != Mode::CloseSent {
            self.seen.push(if message.is_text {
                Seen::Text(String::from_utf8(message.bytes).ok()?)
            } else {
                Seen::Binary(message.bytes)
            });
        }
        Some(Ok(true))
    }

    fn control(&mut self, opcode: u8, payload: Vec<u8>) -> Result<bool, Error> {
        if opcode == 8 {
            let (code, reason) = close_body(&payload)?;
            self.seen.push(Seen::Close(code, reason));
            self.close = Some(payload.into_iter().take(2).collect());
            return Ok(false);
        }
        self.controls += 1;
        if self.controls > usize::from(self.config.max_control_count) {
            return Err(Error::LimitExceeded(Limit::ControlCount));
        }
        if opcode == 9 {
            self.pong = Some(payload.clone());
            self.seen.push(Seen::Ping(payload));
        } else {
            self.seen.push(Seen::Pong(payload));
        }
        Ok(true)
    }

    fn outcome(self) -> Outcome {
        let mut owed = Vec::new();
        // Who has sent a close frame owes nothing.
        if self.mode != Mode::CloseSent {
            for (first, body) in [(0x8a, self.pong), (0x88, self.close)] {
                let Some(body) = body else { continue };
                owed.push(first);
                let len = u8::try_from(body.len()).expect("control frames are short");
                match self.role {
                    Role::Server => {
                        owed.push(len);
                        owed.extend(body);
                    }
                    Role::Client => {
                        owed.push(0x80 | len);
                        owed.extend(KEY);
                        owed.extend(body.iter().enumerate().map(|(i, byte)| byte ^ KEY[i % 4]));
                    }
                }
            }
        }
        Outcome { seen: self.seen, owed }
    }
}

fn close_body(body: &[u8]) -> Result<(Option<CloseCode>, String), Error> {
    let (code, reason) = match body {
        [] => return Ok((None, String::new())),
        [_] => return Err(Error::PeerMisbehaved(Violation::HalfCloseCode)),
        [high, low, reason @ ..] => (u16::from(*high) * 256 + u16::from(*low), reason),
    };
    // RFC 6455 §7.4.2, and 1012–1014 from the registry.
    let may_be_sent = match code {
        0..=999 => false,
        1004 | 1005 | 1006 | 1015 => false,
        1000..=1014 => true,
        1016..=2999 => false,
        3000..=4999 => true,
        _ => false,
    };
    if !may_be_sent {
        return Err(Error::PeerMisbehaved(Violation::BadCloseCode));
    }
    let reason = String::from_utf8(reason.to_vec()).map_err(|_| Error::InvalidUtf8)?;
    Ok((Some(CloseCode::new(code)), reason))
}
