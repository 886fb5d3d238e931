//! Settings that are given one after the other.

/// Defines a consuming setter for each field of a type.
macro_rules! setters {
    ($of:ident; $($with:ident, $field:ident: $type:ty;)+) => {
        impl $of {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $with(mut self, $field: $type) -> Self {
                    self.$field = $field.into();
                    self
                }
            )+
        }
    };
}

pub(crate) use setters;
