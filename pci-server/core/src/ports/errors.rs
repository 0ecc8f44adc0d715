//! Errors that reach a port: [`ErrorSource`] takes what a root port collected
//! (AER) and whether a port contained an error (DPC), bounded, and keeps a
//! flood off (PCIe 5.0, 6.2.4, 6.2.10, 7.8.4).

use hw::capability::{
    CapabilityList, Containment, DpcControl, DpcStatus, ErrorReporting, Express, RootControl,
    RootErrorCommand, RootErrorStatus,
};
use hw::header::{BridgeControl, Command, register};
use hw::{ConfigSpace, Sbdf};

/// Rounds of taking errors at one interrupt.
const ROUNDS: u8 = 4;
/// Interrupts about errors in a [`WINDOW_US`] after which the port is silenced for as long.
const FLOOD: u8 = 16;
/// The time over which they are counted.
const WINDOW_US: u64 = 1_000_000;

/// What a root port collected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Collected {
    /// Which function reported a correctable error.
    pub correctable: Option<u16>,
    /// Which function reported an uncorrectable one.
    pub uncorrectable: Option<u16>,
    /// Others did too: their names are lost.
    pub more: bool,
}

/// Errors of one function that were taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// Uncorrectable Error Status of what is fatal (by Uncorrectable Error Severity), without what is masked.
    pub fatal: u32,
    /// Uncorrectable Error Status of the rest, likewise.
    pub non_fatal: u32,
    /// Correctable Error Status, likewise.
    pub correctable: u32,
}

/// What a port has to report errors with.
#[derive(Clone, Debug)]
pub struct ErrorSource {
    /// Advanced error reporting of a root port.
    root: Option<u16>,
    /// Root Control of the port, where it has one.
    root_control: Option<u16>,
    /// DPC Control and DPC Status.
    containment: Option<(u16, u16)>,
    window: u64,
    count: u8,
    /// Silenced until then.
    silent: Option<u64>,
}

/// Correctable, non-fatal and fatal error reporting in Device Control (PCIe 5.0, 7.5.3.4).
pub const REPORT_ERRORS: u16 = 0b111;
/// SERR# Enable in Command. The specification has uncorrectable errors reported by this bit or by those of Device Control
/// (PCIe 5.0, 7.5.1.1.3); QEMU wants both. No system error comes of it: Root Control has that ([`ErrorSource::begin`]).
pub const REPORT_COMMAND: Command = Command::SERR_ENABLE;

/// Lets messages about errors of the functions below pass a bridge, and the bridge's own (PCIe 5.0, 6.2.6).
pub fn pass<C: ConfigSpace>(cfg: &mut C, at: Sbdf, express: &Express) {
    let control = cfg.read16(at, register::BRIDGE_CONTROL);
    let control = BridgeControl::from_bits_retain(control) | BridgeControl::SERR_ENABLE;
    cfg.write16(at, register::BRIDGE_CONTROL, control.bits());
    let control = express.device_control_register();
    let value = cfg.read16(at, control);
    cfg.write16(at, control, value | REPORT_ERRORS);
    let command = Command::from_bits_retain(cfg.read16(at, register::COMMAND));
    cfg.write16(at, register::COMMAND, (command | REPORT_COMMAND).bits());
}

impl ErrorSource {
    /// What the port at `at` has; `None` where it is nothing.
    pub fn new<C: ConfigSpace>(
        cfg: &C,
        at: Sbdf,
        express: &Express,
        list: &CapabilityList,
    ) -> Option<Self> {
        let has_root = express.port.has_root_registers();
        let root = list
            .find_extended::<ErrorReporting, C>(cfg, at)
            .ok()
            .flatten()
            .filter(|_| has_root)
            .map(|errors| errors.offset);
        let containment = list
            .find_extended::<Containment, C>(cfg, at)
            .ok()
            .flatten()
            .map(|dpc| (dpc.control_register(), dpc.status_register()));
        (root.is_some() || containment.is_some()).then_some(Self {
            root,
            root_control: has_root.then_some(express.root_control_register()),
            containment,
            window: 0,
            count: 0,
            silent: None,
        })
    }

    /// From now on errors interrupt; old ones are forgotten, and none stops the machine by a system error.
    pub fn begin<C: ConfigSpace>(&mut self, cfg: &mut C, at: Sbdf) {
        if let Some(root) = self.root {
            let status = cfg.read32(at, root + ROOT_STATUS);
            if status == u32::MAX {
                return;
            }
            cfg.write32(at, root + ROOT_STATUS, status & COLLECTED);
            if let Some(control) = self.root_control {
                let value = RootControl::from_bits_retain(cfg.read16(at, control));
                let stopping =
                    RootControl::CORRECTABLE | RootControl::NON_FATAL | RootControl::FATAL;
                cfg.write16(at, control, (value - stopping).bits());
            }
            self.listen(cfg, at);
        }
        if let Some((control, status)) = self.containment {
            let old = DpcStatus::from_bits_retain(cfg.read16(at, status));
            cfg.write16(at, status, (old & DpcStatus::INTERRUPT).bits());
            // Fatal errors only: a driver hears of others and may go on.
            let trigger = DpcControl::TRIGGER_FATAL | DpcControl::INTERRUPT_ENABLE;
            let value = DpcControl::from_bits_retain(cfg.read16(at, control));
            let value = (value - DpcControl::TRIGGER_NON_FATAL) | trigger;
            cfg.write16(at, control, value.bits());
        }
    }

    fn listen<C: ConfigSpace>(&self, cfg: &mut C, at: Sbdf) {
        if let Some(root) = self.root {
            let all = RootErrorCommand::CORRECTABLE
                | RootErrorCommand::NON_FATAL
                | RootErrorCommand::FATAL;
            cfg.write32(at, root + ROOT_COMMAND, all.bits());
        }
    }

    /// Takes what the root port collected, writing back exactly what was read as set; `None`: nothing.
    pub fn collect<C: ConfigSpace>(
        &mut self,
        cfg: &mut C,
        at: Sbdf,
        now: u64,
    ) -> Option<Collected> {
        let root = self.root?;
        let mut all = Collected::default();
        let mut any = false;
        for _ in 0..ROUNDS {
            let status = cfg.read32(at, root + ROOT_STATUS);
            let bits = status & COLLECTED;
            if status == u32::MAX || bits == 0 {
                break;
            }
            // Held by the port until the bits that it belongs to are cleared.
            let source = cfg.read32(at, root + ROOT_SOURCE);
            cfg.write32(at, root + ROOT_STATUS, bits);
            any = true;
            let flags = RootErrorStatus::from_bits_retain(bits);
            let mut note = |known: &mut Option<u16>, flag, id| {
                if flags.contains(flag) {
                    all.more |= known.is_some_and(|known| known != id);
                    known.get_or_insert(id);
                }
            };
            note(
                &mut all.correctable,
                RootErrorStatus::CORRECTABLE,
                source as u16,
            );
            note(
                &mut all.uncorrectable,
                RootErrorStatus::UNCORRECTABLE,
                (source >> 16) as u16,
            );
            all.more |= flags.intersects(
                RootErrorStatus::MULTIPLE_CORRECTABLE | RootErrorStatus::MULTIPLE_UNCORRECTABLE,
            );
        }
        if !any {
            return None;
        }
        self.count_one(cfg, at, now);
        Some(all)
    }

    fn count_one<C: ConfigSpace>(&mut self, cfg: &mut C, at: Sbdf, now: u64) {
        if now.saturating_sub(self.window) >= WINDOW_US {
            self.window = now;
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        if let Some(root) = self.root.filter(|_| self.count >= FLOOD) {
            cfg.write32(at, root + ROOT_COMMAND, 0);
            self.silent = Some(now.saturating_add(WINDOW_US));
        }
    }

    /// When [`Self::resume`] is due.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.silent.unwrap_or(u64::MAX)
    }

    /// After a flood: listens again. What was collected meanwhile is taken with the next look; true: look now.
    pub fn resume<C: ConfigSpace>(&mut self, cfg: &mut C, at: Sbdf, now: u64) -> bool {
        let over = self.silent.is_some_and(|until| until <= now);
        if over {
            self.silent = None;
            self.window = now;
            self.count = 0;
            self.listen(cfg, at);
        }
        over
    }

    /// Is the port silenced after a flood?
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        self.silent.is_some()
    }

    /// The card behind a port that contained an error is gone: the link may come up for another.
    pub fn release<C: ConfigSpace>(&self, cfg: &mut C, at: Sbdf) {
        let Some((_, status)) = self.containment else {
            return;
        };
        let value = cfg.read16(at, status);
        let bits = DpcStatus::from_bits_retain(value);
        if value != u16::MAX && bits.contains(DpcStatus::TRIGGERED) {
            cfg.write16(at, status, DpcStatus::TRIGGERED.bits());
        }
    }

    /// Has the port contained an error since the last look? It stays contained: only the interrupt is taken.
    pub fn contained<C: ConfigSpace>(&self, cfg: &mut C, at: Sbdf) -> bool {
        let Some((_, status)) = self.containment else {
            return false;
        };
        let value = cfg.read16(at, status);
        let bits = DpcStatus::from_bits_retain(value);
        if value == u16::MAX || !bits.contains(DpcStatus::INTERRUPT) {
            return false;
        }
        cfg.write16(at, status, DpcStatus::INTERRUPT.bits());
        bits.contains(DpcStatus::TRIGGERED)
    }
}

/// Root Error Command, Root Error Status, and the sources, from the capability's start.
const ROOT_COMMAND: u16 = 0x2c;
const ROOT_STATUS: u16 = 0x30;
const ROOT_SOURCE: u16 = 0x34;
/// Status, mask and severity of a function's errors, likewise.
const UNCORRECTABLE_STATUS: u16 = 0x04;
const UNCORRECTABLE_MASK: u16 = 0x08;
const UNCORRECTABLE_SEVERITY: u16 = 0x0c;
const CORRECTABLE_STATUS: u16 = 0x10;
const CORRECTABLE_MASK: u16 = 0x14;
/// The bits of Root Error Status that are cleared by writing ones.
const COLLECTED: u32 = 0x7f;

/// Takes the errors of a function whose reporting capability starts at `offset`: exactly what was
/// read as set is written back. Nothing where the function does not answer.
pub fn take<C: ConfigSpace>(cfg: &mut C, at: Sbdf, offset: u16) -> Status {
    let mut one = |status: u16, mask: u16| {
        let bits = cfg.read32(at, offset + status);
        if bits == 0 || bits == u32::MAX {
            return 0;
        }
        let masked = cfg.read32(at, offset + mask);
        cfg.write32(at, offset + status, bits);
        bits & !masked
    };
    let uncorrectable = one(UNCORRECTABLE_STATUS, UNCORRECTABLE_MASK);
    let correctable = one(CORRECTABLE_STATUS, CORRECTABLE_MASK);
    let fatal = match uncorrectable {
        0 => 0,
        bits => bits & cfg.read32(at, offset + UNCORRECTABLE_SEVERITY),
    };
    Status {
        fatal,
        non_fatal: uncorrectable & !fatal,
        correctable,
    }
}
