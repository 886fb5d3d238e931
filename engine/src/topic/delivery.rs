//! Publications on their way to their subscribers.

use ringwire_codec::deflate::WindowBits;

use super::exchange::Exchange;
use super::publication::SharedPublication;
use crate::base::output::SharedBytes;
use crate::conn::id::ConnId;
use crate::conn::options::Backpressure;
use crate::driver::Token;
use crate::layers::deflate::Deflate;

/// The most bytes of publications that are joined to one piece of output.
const MAX_JOINED_LEN: usize = 64 << 10;

/// Forms of a publication: as it is, and compressed for each size of window.
const CLASSES: usize = 1 + (WindowBits::MAX.get() - WindowBits::MIN.get()) as usize + 1;

/// A publication, or several in a row that go to the same connections, and who has yet to get them.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    pub(super) publications: Vec<SharedPublication>,
    len: usize,
    /// What goes out, by class.
    bytes: [Option<SharedBytes>; CLASSES],
    pub(super) targets: Vec<Token>,
    /// Who comes next.
    next: usize,
}

impl Delivery {
    /// Whether somebody has yet to get it.
    #[inline]
    pub(crate) fn is_under_way(&self) -> bool {
        self.next < self.targets.len()
    }

    /// Who gets it next.
    #[inline]
    pub(crate) fn next_target(&mut self) -> Option<Token> {
        let target = self.targets.get(self.next).copied();
        self.next += 1;
        target
    }

    pub(crate) fn publications(&self) -> &[SharedPublication] {
        &self.publications
    }

    /// Who does not get it.
    pub(crate) fn except(&self) -> Option<ConnId> {
        self.publications.first().and_then(|first| first.except)
    }

    /// The name of connections that do not get it.
    pub(crate) fn except_name(&self) -> Option<&str> {
        self.publications.first().and_then(|first| first.except_name.as_deref())
    }

    /// The key by which it replaces one that waits; only a publication by itself has one.
    pub(crate) fn key(&self) -> Option<u64> {
        self.publications.first().and_then(|first| first.key)
    }

    /// For subscribers who do not keep up, if the topic has a policy of its own.
    pub(crate) fn policy(&self) -> Option<Backpressure> {
        self.publications.first().and_then(|first| first.policy)
    }

    /// Whether any of it is compressed for those with whom that was agreed on.
    pub(crate) fn is_compressed(&self, deflate: &Deflate) -> bool {
        let wanted = |each: &SharedPublication| deflate.wants(each.len(), each.compress);
        self.publications.iter().any(wanted)
    }

    /// What goes out to a connection with this window, or to one without compression.
    pub(crate) fn bytes(
        &mut self,
        window: Option<WindowBits>,
        deflate: &mut Deflate,
        exchange: &Exchange,
    ) -> &SharedBytes {
        let class =
            window.map_or(0, |window| 1 + usize::from(window.get() - WindowBits::MIN.get()));
        let Self { publications, len, bytes, .. } = self;
        bytes[class].get_or_insert_with(|| {
            let mut frames = publications.iter().map(|publication| match window {
                Some(window) if deflate.wants(publication.len(), publication.compress) => {
                    publication.deflated(window, || {
                        let frame = deflate.encode_alone(window, publication.message());
                        SharedBytes::new(frame, exchange.budget())
                    })
                }
                _ => &publication.frame,
            });
            match (frames.next(), frames.len()) {
                (Some(only), 0) => only.clone(),
                (first, _) => {
                    let mut joined = Vec::with_capacity(*len);
                    first
                        .into_iter()
                        .chain(frames)
                        .for_each(|frame| joined.extend_from_slice(frame));
                    SharedBytes::new(joined, exchange.budget())
                }
            }
        })
    }

    /// What was before has ended.
    pub(super) fn begin(&mut self, first: SharedPublication) {
        self.add(first);
    }

    /// Whether a publication may go out with those that it has.
    pub(super) fn takes(&self, next: &SharedPublication) -> bool {
        let fits = self.len + next.frame.len() <= MAX_JOINED_LEN;
        fits && self.publications.first().is_some_and(|first| first.goes_with(next))
    }

    pub(super) fn add(&mut self, publication: SharedPublication) {
        self.len += publication.frame.len();
        self.publications.push(publication);
    }

    /// Lets go of what was delivered.
    pub(super) fn end(&mut self) {
        self.publications.clear();
        self.bytes = Default::default();
        self.targets.clear();
        (self.len, self.next) = (0, 0);
    }
}
