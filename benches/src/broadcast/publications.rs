//! What is published: the frames, and which of them are not with everyone yet.

use std::collections::VecDeque;
use std::ops::Range;

use ringwire_codec::OpCode;

use super::told::Told;
use crate::echo::{Failure, Shape, Ticks, header, masked_frame};

/// Bytes at the start of a payload that differ from message to message: its number and the time of its sending.
pub(crate) const STAMP_LEN: usize = 12;

/// The messages of one publisher, which are numbered from 0 on.
pub(crate) struct Publications {
    shape: Shape,
    key: [u8; 4],
    /// The payload; the stamp at its start is that of the newest.
    payload: Vec<u8>,
    /// What a delivery begins with.
    header: Vec<u8>,
    /// In place of all of that: a message that an application tells in words of its own.
    told: Option<Told>,
    /// How many have been sent.
    count: u64,
    /// The last ones, oldest first.
    outstanding: VecDeque<Outstanding>,
}

#[derive(Clone, Copy, Debug)]
struct Outstanding {
    sent: Ticks,
    /// Subscribers that it has not reached.
    left: usize,
}

impl Publications {
    /// Messages with so many bytes of payload, of which a stamp is the least.
    pub(crate) fn new(payload_len: usize, key: [u8; 4]) -> Self {
        let shape = Shape::of_noise(payload_len.max(STAMP_LEN));
        let payload = shape.payloads(1).pop().unwrap_or_default();
        let header = header(OpCode::Binary, payload.len());
        Self { shape, key, payload, header, told: None, count: 0, outstanding: VecDeque::new() }
    }

    /// Messages that are this text, which an application tells in words of its own.
    ///
    /// # Errors
    /// When a delivery would not be known by such words.
    pub(crate) fn told(text: &str, key: [u8; 4]) -> anyhow::Result<Self> {
        Ok(Self { told: Some(Told::new(text, key)?), ..Self::new(0, key) })
    }

    /// Whether something else than deliveries may come.
    pub(crate) fn may_be_others(&self) -> bool {
        self.told.is_some()
    }

    /// How many have been sent.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// How many are not with everyone.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// When the oldest of them was sent.
    pub(crate) fn oldest(&self) -> Option<Ticks> {
        self.outstanding.front().map(|oldest| oldest.sent)
    }

    /// Appends the next message to `out`, as a client sends it. It is for so many `subscribers`.
    pub(crate) fn publish(&mut self, now: Ticks, subscribers: usize, out: &mut Vec<u8>) {
        self.encode(now, out);
        self.outstanding.push_back(Outstanding { sent: now, left: subscribers });
        self.count += 1;
    }

    fn encode(&mut self, now: Ticks, out: &mut Vec<u8>) {
        if let Some(told) = &self.told {
            return told.publish(self.count, out);
        }
        let (number, time) = self.payload.split_at_mut(size_of::<u64>());
        number.copy_from_slice(&self.count.to_le_bytes());
        time[..size_of::<u32>()].copy_from_slice(&now.to_le_bytes());
        out.extend(masked_frame(self.shape, false, &self.payload, self.key));
    }

    /// Length of the frame that begins so, once it is known.
    pub(crate) fn frame_len(&self, bytes: &[u8]) -> Option<usize> {
        match &self.told {
            Some(_) => Told::frame_len(bytes),
            None => Some(self.header.len() + self.payload.len()),
        }
    }

    /// Whether `bytes` may be the start of a delivery.
    pub(crate) fn begins(&self, bytes: &[u8]) -> bool {
        if self.told.is_some() {
            return Told::begins(bytes);
        }
        let len = bytes.len().min(self.header.len());
        bytes[..len] == self.header[..len]
    }

    /// The number of the message whose delivery `frame` is, of [`frame_len`](Self::frame_len) bytes. `None`: it is
    /// none, and may come.
    ///
    /// # Errors
    /// It is none of those that were sent.
    pub(crate) fn check(&self, frame: &[u8]) -> Result<Option<u64>, Failure> {
        if let Some(told) = &self.told {
            let number = told.check(frame)?;
            let is_known = number.is_none_or(|number| number < self.count);
            return if is_known { Ok(number) } else { Err(Failure::PayloadMismatch) };
        }
        let payload = frame.strip_prefix(self.header.as_slice()).ok_or(Failure::HeaderMismatch)?;
        let (number, rest) = payload.split_first_chunk().ok_or(Failure::PayloadMismatch)?;
        let number = u64::from_le_bytes(*number);
        let (time, rest) = rest.split_first_chunk().ok_or(Failure::PayloadMismatch)?;
        let sent = self.index(number).and_then(|index| self.outstanding.get(index));
        let is_known = number < self.count
            && sent.is_none_or(|outstanding| outstanding.sent.to_le_bytes() == *time)
            && *rest == self.payload[STAMP_LEN..];
        if is_known { Ok(Some(number)) } else { Err(Failure::PayloadMismatch) }
    }

    /// A subscriber has got the messages of these numbers, or will never get them.
    pub(crate) fn pass(&mut self, numbers: Range<u64>) {
        for number in numbers {
            if let Some(index) = self.index(number)
                && let Some(outstanding) = self.outstanding.get_mut(index)
            {
                outstanding.left = outstanding.left.saturating_sub(1);
            }
        }
    }

    /// Takes off the oldest one if it is with everyone; when it was sent.
    pub(crate) fn take_complete(&mut self) -> Option<Ticks> {
        self.outstanding.pop_front_if(|oldest| oldest.left == 0).map(|oldest| oldest.sent)
    }

    /// Takes off the oldest one in any case.
    pub(crate) fn give_up(&mut self) {
        self.outstanding.pop_front();
    }

    /// The place of a number among those that are outstanding.
    fn index(&self, number: u64) -> Option<usize> {
        let first = self.count - self.outstanding.len() as u64;
        usize::try_from(number.checked_sub(first)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo::Clock;

    const KEY: [u8; 4] = [1, 2, 3, 4];

    /// What a server makes of a client's frame of less than 126 bytes.
    fn delivery(frame: &[u8]) -> Vec<u8> {
        let (header, payload) = frame.split_at(6);
        let unmasked = payload.iter().zip(header[2..].iter().cycle()).map(|(byte, key)| byte ^ key);
        [header[0], header[1] & 0x7f].into_iter().chain(unmasked).collect()
    }

    #[test]
    fn deliveries_are_known_by_their_number_time_and_payload() {
        let clock = Clock::start();
        let mut publications = Publications::new(40, KEY);
        let mut frames = Vec::new();
        for _ in 0..3 {
            let mut frame = Vec::new();
            publications.publish(clock.now(), 1, &mut frame);
            frames.push(delivery(&frame));
        }
        for (number, frame) in frames.iter().enumerate() {
            assert_eq!(publications.frame_len(frame), Some(frame.len()));
            assert_eq!(publications.check(frame), Ok(Some(number as u64)));
            assert!((0..frame.len()).all(|len| publications.begins(&frame[..len])));
        }
        for at in 0..frames[1].len() {
            let mut wrong = frames[1].clone();
            wrong[at] ^= 0x40;
            let failure = match at {
                0..2 => Failure::HeaderMismatch,
                _ => Failure::PayloadMismatch,
            };
            assert_eq!(publications.check(&wrong), Err(failure), "{at}");
        }
        // Of one that is with everyone the number and what all have in common is left to check.
        publications.pass(0..1);
        assert!(publications.take_complete().is_some());
        assert_eq!(publications.check(&frames[0]), Ok(Some(0)));
    }

    #[test]
    fn a_publication_is_complete_when_the_last_subscriber_has_it() {
        let mut publications = Publications::new(0, KEY);
        let now = Clock::start().now();
        for _ in 0..2 {
            publications.publish(now, 2, &mut Vec::new());
        }
        publications.pass(0..2);
        assert_eq!(publications.take_complete(), None);
        publications.pass(0..1);
        assert_eq!(publications.take_complete(), Some(now));
        assert_eq!((publications.take_complete(), publications.outstanding()), (None, 1));
        // What is complete may be passed once more.
        publications.pass(0..2);
        assert_eq!(publications.take_complete(), Some(now));
        assert_eq!((publications.oldest(), publications.count()), (None, 2));
    }
}
