//! Figures that cannot be are no figures: they are withheld, and a note says why.

use crate::units::show_bytes;

/// What is said of figures that were withheld.
#[derive(Clone, Debug, Default)]
pub(crate) struct Withheld(Vec<String>);

impl Withheld {
    /// What each of some connections took of a kind of memory; `None` where it became less while they came.
    pub(crate) fn each(
        &mut self,
        name: &str,
        before: u64,
        now: u64,
        connections: u64,
    ) -> Option<f64> {
        if connections == 0 {
            return None;
        }
        let Some(grown) = now.checked_sub(before) else {
            let less = show_bytes((before - now) as f64);
            self.0.push(format!(
                "{name} a connection is withheld: it became {less} less while {connections} were opened, so that \
                 something else gave back more than they took; more connections, or a machine at rest, tell"
            ));
            return None;
        };
        Some(grown as f64 / connections as f64)
    }

    /// Any other figure, where it is possible.
    pub(crate) fn possible<T>(
        &mut self,
        figure: T,
        is_possible: bool,
        why: impl FnOnce() -> String,
    ) -> Option<T> {
        if !is_possible {
            self.0.push(why());
        }
        is_possible.then_some(figure)
    }

    /// What is to be told.
    pub(crate) fn into_notes(self) -> Vec<String> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_shrank_is_no_figure_of_connections() {
        let mut withheld = Withheld::default();
        assert_eq!(withheld.each("kernel slab", 1000, 5000, 4), Some(1000.0));
        assert_eq!(withheld.each("kernel slab", 1000, 1000, 4), Some(0.0));
        assert_eq!(withheld.each("kernel slab", 1000, 5000, 0), None);
        assert!(withheld.clone().into_notes().is_empty());
        assert_eq!(withheld.each("kernel slab", 5096, 1000, 10), None);
        let notes = withheld.into_notes();
        assert_eq!(notes.len(), 1);
        assert!(
            notes[0].contains("kernel slab a connection is withheld: it became 4 KiB less"),
            "{notes:?}"
        );
    }
}
