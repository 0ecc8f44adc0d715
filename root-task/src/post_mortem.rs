//! What is said of a PD that faulted, or of a server that hangs: why in words, and the registers.

use core::fmt;

use root_core::plan::Pd;
use sel4::{Fault, UserContext};

use crate::say;
use crate::voice::Voice;

/// A fault in a few words.
#[derive(Clone, Copy, Debug)]
pub enum Words {
    /// The PD panicked.
    Panic,
    /// The kernel's fault.
    Fault(Fault),
    /// A message of the PD's own to its fault endpoint.
    Message,
    /// It was restarted, and not ready in time.
    Silence,
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic => f.write_str("panic"),
            Self::Fault(fault) => write!(f, "{fault}"),
            Self::Message => f.write_str("message to its own fault endpoint"),
            Self::Silence => f.write_str("not ready in time after a restart"),
        }
    }
}

/// Says it, and gives it in a few words.
pub fn tell(
    voice: &mut Voice,
    pd: &Pd,
    fault: Option<Fault>,
    registers: Option<UserContext>,
) -> Words {
    let name = &pd.name;
    let words = match fault {
        Some(Fault::UnknownSyscall { ip, number, .. }) if number == sel4_rt::PANIC_SYSCALL => {
            say!(voice, "fault: {name}: panicked at {ip:#x}, see its log");
            Words::Panic
        }
        Some(fault) => {
            let overflow = match fault {
                Fault::Page { address, .. } => pd
                    .stack_guard()
                    .is_some_and(|guard| guard.start() <= address && address < guard.end()),
                _ => false,
            };
            let hint = if overflow { " (stack overflow)" } else { "" };
            say!(voice, "fault: {name}: {fault}{hint}");
            Words::Fault(fault)
        }
        None => {
            say!(
                voice,
                "fault: {name}: a message to its fault endpoint that is none of the kernel's"
            );
            Words::Message
        }
    };
    tell_registers(voice, pd, registers);
    words
}

/// Says that a server hangs in its restart, and gives it in a few words.
pub fn tell_silence(voice: &mut Voice, pd: &Pd, registers: Option<UserContext>) -> Words {
    say!(voice, "silence: {}: {}", pd.name, Words::Silence);
    tell_registers(voice, pd, registers);
    Words::Silence
}

fn tell_registers(voice: &mut Voice, pd: &Pd, registers: Option<UserContext>) {
    let name = &pd.name;
    if let Some(r) = registers {
        say!(
            voice,
            "fault: {name}: rip {:x} rsp {:x} rbp {:x} rflags {:x}",
            r.rip,
            r.rsp,
            r.rbp,
            r.rflags
        );
        say!(
            voice,
            "fault: {name}: rax {:x} rbx {:x} rcx {:x} rdx {:x} rsi {:x} rdi {:x}",
            r.rax,
            r.rbx,
            r.rcx,
            r.rdx,
            r.rsi,
            r.rdi
        );
        say!(
            voice,
            "fault: {name}: r8 {:x} r9 {:x} r10 {:x} r11 {:x} r12 {:x} r13 {:x} r14 {:x} r15 {:x}",
            r.r8,
            r.r9,
            r.r10,
            r.r11,
            r.r12,
            r.r13,
            r.r14,
            r.r15
        );
    }
}
