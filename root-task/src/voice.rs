//! What the root task says: on the serial line itself until the console service
//! runs, then through a log ring like every PD; in a panic on the serial line again.
//! [`last_words`] are for a kernel that it was not built for.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};

use ipc_proto::console;
use ipc_proto::log::{Line, LogRing};
use sel4::{EmergencySerial, IoPort, Notification};
use sel4_glue::Port;

/// First I/O port of the serial line (16550).
const COM1: u16 = 0x3f8;
/// Line Status register: bit 5 says that the transmitter takes a byte (16550 data sheet).
const LINE_STATUS: u16 = COM1 + 5;
const TAKES_A_BYTE: u8 = 1 << 5;
/// How often the line is asked whether it takes a byte: at 9600 baud a byte takes a millisecond.
const PATIENCE: u32 = 100_000;

/// The capability for the serial line's ports, for the panic handler; 0 before there is one.
static PORTS: AtomicU64 = AtomicU64::new(0);

/// The serial line, written to directly.
#[derive(Clone, Copy, Debug)]
pub struct Serial;

impl Serial {
    /// Says which capability has the ports.
    pub fn use_ports(cptr: u64) {
        PORTS.store(cptr, Ordering::Relaxed);
        sel4_rt::set_panic_sink(|text| {
            let _ = Self.write_str(text);
        });
    }
}

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let ports = IoPort::at(PORTS.load(Ordering::Relaxed));
        if ports.cptr() == 0 {
            return sel4_rt::DebugConsole.write_str(text);
        }
        for byte in text.bytes() {
            let mut patience = PATIENCE;
            while patience > 0
                && ports
                    .in8(LINE_STATUS)
                    .is_ok_and(|status| status & TAKES_A_BYTE == 0)
            {
                patience -= 1;
            }
            ports.out8(COM1, byte).map_err(|_| fmt::Error)?;
        }
        Ok(())
    }
}

/// Says a line when the kernel is not the one that this program was built for, which closes every
/// other way. No way, no words.
pub fn last_words(text: fmt::Arguments<'_>) {
    if let Some(mut serial) = EmergencySerial::find() {
        let _ = writeln!(serial, "root| {text}");
    }
}

/// The way to the console service.
#[derive(Clone, Copy)]
pub struct Console {
    /// The root task's log ring, which the console drains.
    pub ring: &'static LogRing,
    /// Tells the console that there is text.
    pub signal: Notification,
    /// The console's endpoint, with the root task's badge.
    pub port: Port,
}

/// The root task's voice.
#[derive(Default)]
pub struct Voice {
    console: Option<Console>,
}

impl Voice {
    /// From now on through the console, or (`None`: it died) directly again.
    pub fn use_console(&mut self, console: Option<Console>) {
        if console.is_none() {
            // It may have died in the middle of a line.
            let _ = Serial.write_str("\n");
        }
        self.console = console;
    }

    /// Says a line.
    pub fn say(&mut self, text: fmt::Arguments<'_>) {
        let Some(console) = self.console else {
            let _ = writeln!(Serial, "root| {text}");
            return;
        };
        let mut line = Line::new();
        // A text that is too long is cut by the line.
        let _ = line.write_fmt(text);
        let line = line.finish();
        if !console.ring.write(line) {
            // The console is below the root task in priority: it drains while the root task waits.
            let _ = console::Stub(console.port).flush();
            console.ring.write(line);
        }
        console.signal.signal();
    }

    /// Waits until all lines are on the serial line.
    pub fn flush(&mut self) {
        if let Some(console) = self.console {
            let _ = console::Stub(console.port).flush();
        }
    }
}

/// Says a line: `say!(voice, "...", arguments)`.
#[macro_export]
macro_rules! say {
    ($voice:expr, $($text:tt)*) => { $voice.say(::core::format_args!($($text)*)) };
}
