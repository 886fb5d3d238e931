//! A second way to inflate: a bit at a time, in the order of RFC 1951, without a table. It also says
//! how far back a stream refers.

/// What a stream comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Naive {
    pub(crate) bytes: Vec<u8>,
    /// The greatest distance that is referred back.
    pub(crate) max_distance: usize,
}

/// Inflates a message: its payload as it was sent, after `before` in the window. `None`: it is no
/// deflate stream, or ends inside a block.
pub(crate) fn inflate(payload: &[u8], before: &[u8]) -> Option<Naive> {
    let stream = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut bits = Bits { stream: &stream, at: 0 };
    let mut out = before.to_vec();
    let mut max_distance = 0;
    while bits.at < stream.len() * 8 {
        let is_final = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => stored(&mut bits, &mut out)?,
            1 => {
                let lengths: Vec<u8> = (0..288)
                    .map(|symbol| match symbol {
                        0..=143 => 8,
                        144..=255 => 9,
                        256..=279 => 7,
                        _ => 8,
                    })
                    .collect();
                block(&mut bits, &lengths, &[5; 30], &mut out, &mut max_distance)?;
            }
            2 => {
                let (literals, distances) = tables(&mut bits)?;
                block(&mut bits, &literals, &distances, &mut out, &mut max_distance)?;
            }
            _ => return None,
        }
        if is_final {
            bits.at = bits.at.next_multiple_of(8);
        }
    }
    Some(Naive { bytes: out.split_off(before.len()), max_distance })
}

struct Bits<'a> {
    stream: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<usize> {
        let mut value = 0;
        for i in 0..count {
            let byte = *self.stream.get(self.at / 8)?;
            value |= usize::from(byte >> (self.at % 8) & 1) << i;
            self.at += 1;
        }
        Some(value)
    }

    /// The next symbol of a canonical code with these lengths (RFC 1951 §3.2.2).
    fn symbol(&mut self, lengths: &[u8]) -> Option<usize> {
        let (mut code, mut first) = (0, 0);
        for len in 1..=15 {
            code = code << 1 | self.take(1)?;
            let count = lengths.iter().filter(|&&each| each == len).count();
            if code < first + count {
                let mut symbols = (0..lengths.len()).filter(|&i| lengths[i] == len);
                return symbols.nth(code.checked_sub(first)?);
            }
            first = (first + count) << 1;
        }
        None
    }
}

fn stored(bits: &mut Bits<'_>, out: &mut Vec<u8>) -> Option<()> {
    bits.at = bits.at.next_multiple_of(8);
    let len = bits.take(16)?;
    if bits.take(16)? != len ^ 0xffff {
        return None;
    }
    for _ in 0..len {
        out.push(u8::try_from(bits.take(8)?).ok()?);
    }
    Some(())
}

fn tables(bits: &mut Bits<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let literal_count = bits.take(5)? + 257;
    let distance_count = bits.take(5)? + 1;
    let code_count = bits.take(4)? + 4;
    let mut code_lengths = [0; 19];
    for &symbol in ORDER.iter().take(code_count) {
        code_lengths[symbol] = u8::try_from(bits.take(3)?).ok()?;
    }
    let mut lengths: Vec<u8> = Vec::new();
    while lengths.len() < literal_count + distance_count {
        let (value, count) = match bits.symbol(&code_lengths)? {
            16 => (*lengths.last()?, bits.take(2)? + 3),
            17 => (0, bits.take(3)? + 3),
            18 => (0, bits.take(7)? + 11),
            len => (u8::try_from(len).ok()?, 1),
        };
        lengths.extend(std::iter::repeat_n(value, count));
    }
    let distances = lengths.split_off(literal_count);
    Some((lengths, distances))
}

fn block(
    bits: &mut Bits<'_>,
    literals: &[u8],
    distances: &[u8],
    out: &mut Vec<u8>,
    max_distance: &mut usize,
) -> Option<()> {
    loop {
        let symbol = bits.symbol(literals)?;
        let len = match symbol {
            0..=255 => {
                out.push(u8::try_from(symbol).ok()?);
                continue;
            }
            256 => return Some(()),
            257..=264 => symbol - 254,
            265..=284 => {
                let extra = (symbol - 261) / 4;
                let base = (4 + (symbol - 265) % 4) << extra;
                base + 3 + bits.take(extra)?
            }
            285 => 258,
            _ => return None,
        };
        let distance = match bits.symbol(distances)? {
            symbol @ 0..=3 => symbol + 1,
            symbol @ 4..=29 => {
                let extra = symbol / 2 - 1;
                let base = (2 + symbol % 2) << extra;
                base + 1 + bits.take(extra)?
            }
            _ => return None,
        };
        *max_distance = distance.max(*max_distance);
        for _ in 0..len {
            out.push(*out.get(out.len().checked_sub(distance)?)?);
        }
    }
}
