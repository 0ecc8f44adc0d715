//! A panic: print, tell, and stop in a way the supervisor recognises.

use core::fmt::{self, Write};
use core::mem::transmute;
use core::panic::PanicInfo;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use crate::DebugConsole;

/// Number of the system call that ends a panicked thread: "PANC" in ASCII, which no kernel has. 5.0.0 reports
/// 32 bits of a number.
pub const PANIC_SYSCALL: u64 = 0x5041_4e43;

static SINK: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
static HOOK: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
static PANICKING: AtomicBool = AtomicBool::new(false);

/// Sends a panic's text to `sink`, piece by piece. Default: the kernel's debug console.
pub fn set_panic_sink(sink: fn(&str)) {
    SINK.store(sink as *mut (), Ordering::Relaxed);
}

/// Has `hook` called after a panic's text, to flush it or tell somebody. It may return.
pub fn set_panic_hook(hook: fn()) {
    HOOK.store(hook as *mut (), Ordering::Relaxed);
}

struct Sink;

impl Write for Sink {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let sink = SINK.load(Ordering::Relaxed);
        if sink.is_null() {
            return DebugConsole.write_str(text);
        }
        // SAFETY: not null, so it is the function that `set_panic_sink` stored.
        let sink = unsafe { transmute::<*mut (), fn(&str)>(sink) };
        sink(text);
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // A panic while panicking: the sink or hook is broken, leave them out.
    if !PANICKING.swap(true, Ordering::Relaxed) {
        let _ = write!(Sink, "panic: {}", info.message());
        let _ = match info.location() {
            Some(at) => writeln!(Sink, " at {}:{}", at.file(), at.line()),
            None => writeln!(Sink),
        };
        let hook = HOOK.load(Ordering::Relaxed);
        if !hook.is_null() {
            // SAFETY: not null, so it is the function that `set_panic_hook` stored.
            let hook = unsafe { transmute::<*mut (), fn()>(hook) };
            hook();
        }
    }
    stop()
}

/// Faults. The kernel stops the thread and tells its fault endpoint.
fn stop() -> ! {
    // SAFETY: the kernel does not know the number and stops the thread; nothing is done after that, even if
    // somebody resumes it.
    unsafe {
        core::arch::asm!(
            "syscall",
            "2: ud2",
            "jmp 2b",
            in("rdx") PANIC_SYSCALL,
            options(noreturn, nostack),
        )
    }
}
