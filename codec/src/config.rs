//! What a peer may do to one connection.

/// The limits of a connection. The default is fit for the open internet.
///
/// One value serves any number of connections: it is passed to each
/// [`receive`](crate::Connection::receive).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The longest message, in bytes, that is handed over whole. Default: 1 MiB.
    ///
    /// Enforced when a frame's header arrives, before any memory is taken. A compressed message is
    /// inflated to at most one byte more, and may itself be an eighth longer than this. Worst case in memory:
    /// this much for each connection with a message under way, once its peer has sent that much.
    pub max_message_len: usize,
    /// The longest message, in bytes, that is handed over in parts (see
    /// [`set_streaming`](crate::Connection::set_streaming)). Default: 1 GiB.
    ///
    /// Parts are borrowed from the input, so this costs no memory. Those of a compressed message are
    /// handed over in a buffer each, one after the other.
    pub max_streamed_len: u64,
    /// The most frames one message may consist of. Default: 131 072.
    ///
    /// A fragment costs no memory beyond its bytes, so this bounds only the work that a peer can
    /// cause without ever ending a message. The default lets 4 MiB arrive in fragments of 64
    /// bytes, which conformance suites do.
    pub max_fragment_count: u32,
    /// The most pings, pongs and empty fragments in a window. Default: 256.
    ///
    /// The caller has the clock and starts a window with
    /// [`reset_control_window`](crate::Connection::reset_control_window).
    pub max_control_count: u16,
    /// How many times longer than its compressed form a message may be. Default: 200.
    ///
    /// Deflate reaches 1032. JSON and text stay below 50, and below 150 where records differ in a number or two
    /// only. But what repeats the same few bytes and nothing else, such as an empty bitmap or an array of zeros,
    /// goes beyond any bound that would keep bombs out. So this holds only from
    /// [`inflate_ratio_floor`](Self::inflate_ratio_floor) on.
    pub max_inflate_ratio: u32,
    /// The inflated length, in bytes, from which on [`max_inflate_ratio`](Self::max_inflate_ratio)
    /// holds. Default: 64 KiB.
    ///
    /// So a peer pays for a MiB with more than 5 KiB, and for a GiB in parts with more than 5 MiB. Raise it
    /// to the longest message that is expected to be nearly empty: to `max_message_len` where
    /// peers send large bitmaps that may be blank, say.
    pub inflate_ratio_floor: u64,
    /// Whether pings are answered (RFC 6455 §5.5.2 says that they have to be). Default: yes. No is for callers that
    /// answer with [`send_pong`](crate::Connection::send_pong) themselves, once they know that they are well.
    pub answers_pings: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_message_len: 1 << 20,
            max_streamed_len: 1 << 30,
            max_fragment_count: 1 << 17,
            max_control_count: 256,
            max_inflate_ratio: 200,
            inflate_ratio_floor: 64 << 10,
            answers_pings: true,
        }
    }
}

impl Config {
    /// Sets [`max_message_len`](Self::max_message_len).
    #[must_use]
    pub const fn with_max_message_len(mut self, len: usize) -> Self {
        self.max_message_len = len;
        self
    }

    /// Sets [`max_streamed_len`](Self::max_streamed_len).
    #[must_use]
    pub const fn with_max_streamed_len(mut self, len: u64) -> Self {
        self.max_streamed_len = len;
        self
    }

    /// Sets [`max_fragment_count`](Self::max_fragment_count).
    #[must_use]
    pub const fn with_max_fragment_count(mut self, count: u32) -> Self {
        self.max_fragment_count = count;
        self
    }

    /// Sets [`max_control_count`](Self::max_control_count).
    #[must_use]
    pub const fn with_max_control_count(mut self, count: u16) -> Self {
        self.max_control_count = count;
        self
    }

    /// Sets [`max_inflate_ratio`](Self::max_inflate_ratio).
    #[must_use]
    pub const fn with_max_inflate_ratio(mut self, ratio: u32) -> Self {
        self.max_inflate_ratio = ratio;
        self
    }

    /// Sets [`inflate_ratio_floor`](Self::inflate_ratio_floor).
    #[must_use]
    pub const fn with_inflate_ratio_floor(mut self, len: u64) -> Self {
        self.inflate_ratio_floor = len;
        self
    }

    /// Sets [`answers_pings`](Self::answers_pings).
    #[must_use]
    pub const fn with_answers_pings(mut self, answers: bool) -> Self {
        self.answers_pings = answers;
        self
    }
}
