//! [`Place`]: an `Option` whose empty form is all zeros.
//!
//! The tables are static memory. A compiler may choose any pattern for
//! `Option::None`; half a megabyte of such a pattern would have to be in the
//! program's file and be copied at boot, where zeros need neither.

/// A value, or none.
#[repr(u8)]
pub enum Place<T> {
    /// None.
    Empty = 0,
    /// A value.
    Taken(T) = 1,
}

impl<T> Place<T> {
    /// Takes the value out.
    pub fn take(&mut self) -> Option<T> {
        match core::mem::replace(self, Self::Empty) {
            Self::Empty => None,
            Self::Taken(value) => Some(value),
        }
    }

    /// The value.
    #[inline]
    pub fn as_ref(&self) -> Option<&T> {
        match self {
            Self::Empty => None,
            Self::Taken(value) => Some(value),
        }
    }

    /// The value, to change it.
    #[inline]
    pub fn as_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Empty => None,
            Self::Taken(value) => Some(value),
        }
    }
}
