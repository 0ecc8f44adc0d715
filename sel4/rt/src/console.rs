//! The kernel's debug console as a text sink.

use core::fmt;

/// Writes to the kernel's console; to nowhere on a kernel without (`sel4::HAS_DEBUG_CONSOLE`).
#[derive(Clone, Copy, Debug, Default)]
pub struct DebugConsole;

impl fmt::Write for DebugConsole {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(sel4::debug_put_char);
        Ok(())
    }
}
