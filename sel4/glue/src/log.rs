//! The PD's log: whole lines into the ring that the console service drains.
//!
//! [`log!`](crate::log!) never waits: a line that finds no room is counted and lost. [`reliably`] waits for the console to
//! drain the ring; it is for clients, since the console is below every server in priority.

use core::fmt::{self, Write};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use ipc_proto::console;
use ipc_proto::log::{Line, LogRing};
use sel4::Notification;
use system::layout::slot;

use crate::Port;

static RING: AtomicPtr<LogRing> = AtomicPtr::new(ptr::null_mut());

/// Makes `ring` the one that lines go to. Before that they go nowhere.
pub(crate) fn install(ring: &'static LogRing) {
    RING.store(ptr::from_ref(ring).cast_mut(), Ordering::Relaxed);
    sel4_rt::set_panic_sink(append);
    sel4_rt::set_panic_hook(tell);
}

fn ring() -> Option<&'static LogRing> {
    // SAFETY: null, or the pointer from a `&'static` that `install` stored.
    unsafe { RING.load(Ordering::Relaxed).as_ref() }
}

/// Writes a line to the PD's log: arguments as of `format!`. More than 255 bytes are cut and end in `...`.
#[macro_export]
macro_rules! log {
    ($($argument:tt)*) => {
        $crate::log::line(::core::format_args!($($argument)*))
    };
}

/// Writes a line and tells the console once; a line that finds no room is lost. What [`log!`](crate::log!) calls.
#[inline(never)]
pub fn line(text: fmt::Arguments<'_>) {
    write(text);
    tell();
}

/// Writes a line; while the ring is full, waits until the console has drained it.
/// `false` when the line was lost all the same: the console does not answer.
#[inline(never)]
pub fn reliably(text: fmt::Arguments<'_>) -> bool {
    // Nobody else writes into the ring, so after one flush there is room for any line.
    let taken =
        write(text) || (console::Stub(Port::at(slot::CONSOLE)).flush().is_ok() && write(text));
    tell();
    taken
}

/// Waits until the console has written all lines so far. `false` when it does not answer.
pub fn flush() -> bool {
    console::Stub(Port::at(slot::CONSOLE)).flush().is_ok()
}

fn write(text: fmt::Arguments<'_>) -> bool {
    let mut line = Line::new();
    // A value whose formatting fails leaves a shorter line.
    let _ = line.write_fmt(text);
    ring().is_some_and(|ring| ring.write(line.finish()))
}

/// A piece of a panic's text, as it comes.
fn append(text: &str) {
    if let Some(ring) = ring() {
        ring.write(text.as_bytes());
    }
}

/// Tells the console that there is text.
fn tell() {
    Notification::at(slot::LOG).signal();
}
