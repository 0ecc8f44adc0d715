//! Carrying out cuts: retypes of untypeds that `root-core` planned.

use alloc::format;
use alloc::string::String;

use root_core::carve::{Cut, Piece};
use sel4::object::RETYPE_MAX;
use sel4::{FrameSize, ObjectType, Untyped, Window};

use crate::stock::CNODE;

/// The kernel's object for a piece.
const fn object(piece: Piece) -> ObjectType {
    match piece {
        Piece::Untyped(bits) => ObjectType::Untyped(bits),
        Piece::SmallFrame => ObjectType::Frame(FrameSize::Small),
        Piece::LargeFrame => ObjectType::Frame(FrameSize::Large),
    }
}

/// Size of the frames of a piece; `None` for untypeds.
pub const fn frame_size(piece: Piece) -> Option<FrameSize> {
    match piece {
        Piece::Untyped(_) => None,
        Piece::SmallFrame => Some(FrameSize::Small),
        Piece::LargeFrame => Some(FrameSize::Large),
    }
}

/// Carries out cuts in order. An error names the piece that could not be cut.
pub fn cut(cuts: &[Cut]) -> Result<(), String> {
    for cut in cuts {
        let made = make(cut.from.into(), object(cut.piece), cut.slot, cut.count);
        made.map_err(|error| {
            let Cut {
                from,
                base,
                piece,
                count,
                ..
            } = cut;
            format!("{count} x {piece:?} at {base:#x} of the untyped in slot {from}: {error}")
        })?;
    }
    Ok(())
}

/// Makes any number of objects of one kind, in slots from `first` on.
pub fn make(untyped: u64, kind: ObjectType, first: u32, count: u32) -> sel4::Result {
    let mut done = 0;
    while done < count {
        let some = (count - done).min(RETYPE_MAX);
        Untyped::at(untyped).retype(kind, Window::of(CNODE, (first + done).into(), some))?;
        done += some;
    }
    Ok(())
}
