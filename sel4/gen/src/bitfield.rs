//! Bitfield generator: the kernel's `.bf` files to C accessor functions.
//!
//! A `.bf` file, after the C preprocessor, describes structures as sequences of
//! bit fields from the most significant bit down. [`parse`] reads it into
//! [`Description`], checking every rule of the format, and [`emit`] writes the
//! header that kernel sources include: for each structure a type `NAME_t`, a
//! constructor, and readers and writers by value and by pointer.
//!
//! ```text
//! base 64(49,1)                -- word of 64 bits; addresses have 49, sign-extended
//! block cap_a(x, p, tag) {     -- optional list: the constructor's argument order
//!     padding 8
//!     field x 8
//!     field_high p 43          -- the upper 43 bits of an address
//!     field tag 5
//! }
//! tagged_union cap tag {       -- blocks of one size, told apart by the field `tag`
//!     tag cap_a 1
//! }
//! ```
//!
//! Tags of several widths (`mask` lines) appear only in 32-bit kernels and are refused.

mod emit;
mod layout;
mod lexer;
mod parse;

pub use emit::emit;
pub use layout::{Base, Block, Description, Field, Tag, TaggedUnion};
pub use parse::parse;

use crate::Error;

/// The kernel header for one preprocessed `.bf` file. `guard` is the name of
/// its include guard.
///
/// # Errors
/// [`Error::Bitfield`] with file, line and the broken rule.
pub fn header(text: &str, guard: &str) -> Result<String, Error> {
    Ok(emit(&parse(text)?, guard))
}
