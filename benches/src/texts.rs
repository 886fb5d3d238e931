//! Texts to be compressed. The micro-benchmarks of the codec include this file too, so that both speak of the same.

/// A kind of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// A feed of small objects in JSON.
    Json,
    /// Random letters and digits. They compress to three quarters where codes are made for them, which level 1 leaves
    /// out.
    Letters,
}

impl Text {
    /// So many texts of that length, which follow on each other: all differ, unless there are very many.
    pub(crate) fn texts(self, len: usize, count: usize) -> Vec<String> {
        let all = match self {
            Self::Json => json(len * count),
            Self::Letters => letters(len * count),
        };
        (0..count).map(|at| all[at * len..(at + 1) * len].to_owned()).collect()
    }
}

/// Random numbers of 16 bits, the same each time.
fn numbers() -> impl FnMut() -> u32 {
    let mut state = 1_u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    }
}

/// That long, or a little longer.
fn json(len: usize) -> String {
    let mut next = numbers();
    let mut json = String::new();
    while json.len() < len {
        let (id, price) = (next() % 10_000, next() % 1000);
        json += &format!("{{\"id\":{id},\"symbol\":\"RW{}\",\"price\":{price}.5}},", id % 40);
    }
    json
}

fn letters(len: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut next = numbers();
    (0..len).map(|_| char::from(LETTERS[(next() % 64) as usize])).collect()
}
