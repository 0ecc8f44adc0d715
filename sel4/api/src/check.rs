//! Whether the running kernel numbers its methods and objects as this program does.
//!
//! Nothing tells a program which kernel it runs on, and a number that is off by one is another method: a kernel
//! for several cores has one label more than one for a single core. [`check_kernel`] finds that out with requests
//! that any kernel refuses, by how it refuses them. For the root task, before it does anything else with the
//! kernel; programs built together with it need not ask again.

use core::fmt;

use sel4_sys::Word;
use sel4_sys::constants::{label, object};
use sel4_sys::invocation::invoke;

use crate::error::done;
use crate::irq::{MsiSource, Polarity, Trigger, Vector};
use crate::{ABI, Error, IrqControl, KERNEL_VERSION, Slot, Untyped};

/// What the kernel numbers otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelMismatch {
    /// Its methods.
    Labels,
    /// Its kinds of objects.
    ObjectTypes,
}

impl fmt::Display for KernelMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Labels => "methods",
            Self::ObjectTypes => "kinds of objects",
        };
        write!(
            f,
            "the running kernel numbers its {what} otherwise than seL4 {KERNEL_VERSION} (ABI family {ABI}) did as \
             it was configured when this program was built"
        )
    }
}

impl core::error::Error for KernelMismatch {}

/// Checks the numbers of this build against the running kernel. Changes nothing: all requests are refused (a debug
/// kernel reports four of them). `empty` is an empty slot of a CNode, `untyped` may be any.
///
/// # Errors
/// What does not match. Other capabilities than the ones asked for give the same answer.
pub fn check_kernel(irq: IrqControl, untyped: Untyped, empty: Slot) -> Result<(), KernelMismatch> {
    if labels_match(irq, empty) {
        if types_match(untyped, empty) {
            Ok(())
        } else {
            Err(KernelMismatch::ObjectTypes)
        }
    } else {
        Err(KernelMismatch::Labels)
    }
}

/// The two last labels of a kernel without virtual machines: a method more or less before them moves both. One that
/// moved onto the other is refused for the same reason, but then the other one is no method of this capability.
fn labels_match(irq: IrqControl, empty: Slot) -> bool {
    let Some(vector) = Vector::new(Vector::COUNT - 1) else {
        return false;
    };
    let no_device = MsiSource {
        bus: 0,
        device: 32,
        function: 0,
        handle: 0,
    };
    let no_pin = (Word::MAX, Word::MAX);
    irq.get_msi(empty, no_device, vector) == Err(Error::RangeError)
        && irq.get_ioapic(empty, no_pin, Trigger::Edge, Polarity::ActiveHigh, vector)
            == Err(Error::RangeError)
}

/// One more than the highest number of a kind.
const OBJECT_TYPES: Word = {
    let last = [
        Some(object::PAGE_DIRECTORY),
        object::opt::IO_PAGE_TABLE,
        object::opt::EPT_PT,
    ];
    let mut count = 0;
    let mut index = 0;
    while index < last.len() {
        if let Some(number) = last[index]
            && number >= count
        {
            count = number + 1;
        }
        index += 1;
    }
    count
};

/// The kernel looks at the kind before it looks at the slots, of which there are none so far up.
fn types_match(untyped: Untyped, empty: Slot) -> bool {
    let retype = |kind| {
        let (size, node_index, node_depth, offset, count) = (0, 0, 0, Word::MAX, 1);
        let args = [kind, size, node_index, node_depth, offset, count];
        done(invoke(
            untyped.cptr(),
            label::UNTYPED_RETYPE,
            args,
            [empty.root.cptr()],
        ))
    };
    retype(OBJECT_TYPES - 1) == Err(Error::RangeError)
        && retype(OBJECT_TYPES) == Err(Error::InvalidArgument)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_types_is_one_more_than_the_last() {
        let known = [
            object::UNTYPED,
            object::CNODE,
            object::PAGE_4K,
            object::PAGE_DIRECTORY,
        ];
        assert!(known.into_iter().all(|number| number < OBJECT_TYPES));
        if let (Some(last), None) = (object::opt::IO_PAGE_TABLE, object::opt::EPT_PT) {
            assert_eq!(OBJECT_TYPES, last + 1);
        }
    }
}
