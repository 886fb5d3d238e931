//! The states with which connections may begin that the handler itself has not accepted.

use std::any::{Any, TypeId};
use std::fmt;

/// The types of state with which connections may begin that [`Handle::connect`](crate::Handle::connect) opens or that
/// were [upgraded](crate::transport::Adoption::with_state) elsewhere, and that [`Handle::run`](crate::Handle::run) may
/// ask for: that of the handler, and of a [`Router`](crate::Router) those of its routes as well. Where two routes have
/// states of the same type, a connection belongs to the one that was added first.
pub struct States<S> {
    kinds: Vec<Kind<S>>,
}

/// One type, and how to make the handler's of it.
struct Kind<S> {
    id: TypeId,
    make: Box<dyn Fn(Box<dyn Any + Send>) -> Option<S>>,
}

impl<S: 'static> States<S> {
    /// The handler's own type and no other.
    #[must_use]
    pub fn own() -> Self {
        let make = |state: Box<dyn Any + Send>| state.downcast::<S>().ok().map(|state| *state);
        Self { kinds: vec![Kind { id: TypeId::of::<S>(), make: Box::new(make) }] }
    }

    /// No type.
    #[must_use]
    pub fn none() -> Self {
        Self { kinds: Vec::new() }
    }

    /// These, and behind them those of a handler inside, of whose states `wrap` makes this one's.
    #[must_use]
    pub fn and<T: 'static>(
        mut self,
        inner: States<T>,
        wrap: impl Fn(T) -> S + Clone + 'static,
    ) -> Self {
        self.kinds.extend(inner.kinds.into_iter().map(|Kind { id, make }| {
            let wrap = wrap.clone();
            let make = move |state: Box<dyn Any + Send>| make(state).map(&wrap);
            Kind { id, make: Box::new(make) as _ }
        }));
        self
    }

    /// What identifies the types.
    pub(crate) fn ids(&self) -> impl Iterator<Item = TypeId> {
        self.kinds.iter().map(|kind| kind.id)
    }

    /// The handler's state that is made of one of these.
    pub(crate) fn make(&self, state: Box<dyn Any + Send>) -> Option<S> {
        let id = (*state).type_id();
        let kind = self.kinds.iter().find(|kind| kind.id == id)?;
        (kind.make)(state)
    }
}

impl<S> fmt::Debug for States<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("States").field("count", &self.kinds.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_type_has_it() {
        #[derive(Debug, PartialEq)]
        enum State {
            Number(u32),
            Text(&'static str),
            OtherNumber(u32),
        }

        let states = States::own()
            .and(States::own(), State::Number)
            .and(States::own(), State::Text)
            .and(States::own(), State::OtherNumber);
        assert_eq!(states.make(Box::new(7_u32)), Some(State::Number(7)));
        assert_eq!(states.make(Box::new("seven")), Some(State::Text("seven")));
        assert_eq!(states.make(Box::new(State::OtherNumber(8))), Some(State::OtherNumber(8)));
        assert_eq!(states.make(Box::new(7_u64)), None);
        assert!(states.ids().any(|id| id == TypeId::of::<&'static str>()));
        assert!(States::<State>::none().make(Box::new(State::Number(1))).is_none());
    }
}
