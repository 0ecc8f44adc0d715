//! [`Forwarding`]: what a bridge of the platform forwards, as it was read or set
//! up, and how its windows are opened.

use hw::header::{BusNumbers, Command, Header, Layout, register};
use hw::{BusRange, ConfigSpace, Sbdf};

use crate::space::Range;

/// Windows are multiples of 1 MiB (PCIe 5.0, 7.5.1.3.8).
pub const WINDOW_UNIT: u64 = 1 << 20;

/// Which window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WindowKind {
    /// Below 4 GiB, whatever reading does.
    Memory,
    /// For memory whose reading has no side effects.
    Prefetchable,
}

/// What is behind a bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forwarding {
    /// Its buses; `None` where it leads nowhere.
    pub buses: Option<BusRange>,
    /// It forwards whatever nobody else claims (class 06.04.01), or is a CardBus bridge, whose
    /// windows are set up by nobody here.
    pub anything: bool,
    memory: Range,
    prefetchable: Range,
    /// [`CLOSED_IO`] is none.
    io: IoWindow,
}

/// First and last I/O address of a window.
pub type IoWindow = (u16, u16);

/// An I/O window that forwards nothing.
const CLOSED_IO: IoWindow = (1, 0);

/// A window that forwards nothing.
const CLOSED: Range = Range { first: 1, last: 0 };

impl Forwarding {
    /// A bridge to these buses whose windows have not been looked at.
    #[must_use]
    pub const fn to(buses: Option<BusRange>) -> Self {
        Self {
            buses,
            anything: false,
            memory: CLOSED,
            prefetchable: CLOSED,
            io: CLOSED_IO,
        }
    }

    /// Reads what a bridge forwards; `buses` is what has been made of its bus numbers.
    pub fn read<C: ConfigSpace>(
        cfg: &C,
        at: Sbdf,
        header: &Header,
        buses: Option<BusRange>,
    ) -> Self {
        let anything = header.layout == Layout::CardBus || header.class.interface == 1;
        let (memory, prefetchable) = match header.layout {
            Layout::Bridge => windows(cfg, at),
            _ => (CLOSED, CLOSED),
        };
        let io = match header.layout {
            Layout::Bridge => io_window(cfg, at).unwrap_or(CLOSED_IO),
            _ => CLOSED_IO,
        };
        Self {
            buses,
            anything,
            memory,
            prefetchable,
            io,
        }
    }

    /// The addresses of a window that is open.
    #[must_use]
    pub fn window(&self, kind: WindowKind) -> Option<Range> {
        let window = match kind {
            WindowKind::Memory => self.memory,
            WindowKind::Prefetchable => self.prefetchable,
        };
        (window.first <= window.last).then_some(window)
    }

    /// I/O addresses that it forwards.
    #[must_use]
    pub const fn io(&self) -> Option<IoWindow> {
        let (first, last) = self.io;
        if first <= last { Some(self.io) } else { None }
    }

    /// Opens the I/O window, which the caller has found free: whole units of 4 KiB. `false`: the bridge does not have
    /// it; it is closed then.
    pub fn open_io<C: ConfigSpace>(&mut self, cfg: &mut C, at: Sbdf, window: IoWindow) -> bool {
        let (first, last) = window;
        write_io_window(cfg, at, first >> 8 & 0xf0 | last & 0xf000);
        let now = io_window(cfg, at).filter(|now| *now == window);
        self.io = now.unwrap_or(CLOSED_IO);
        if now.is_none() {
            // Its limit below its base.
            write_io_window(cfg, at, 0x00f0);
        }
        now.is_some()
    }

    /// The windows of memory that are open.
    pub fn windows(&self) -> impl Iterator<Item = Range> + use<> {
        [self.memory, self.prefetchable]
            .into_iter()
            .filter(|window| window.first <= window.last)
    }

    /// Does it forward all of these addresses?
    #[must_use]
    pub fn forwards(&self, range: &Range) -> bool {
        self.anything || self.windows().any(|window| window.covers(range))
    }

    /// Opens a window, which the caller has found free: `range` is whole MiB. Nothing may be using the
    /// window. `false`: the bridge does not have it; it is closed then.
    pub fn open<C: ConfigSpace>(
        &mut self,
        cfg: &mut C,
        at: Sbdf,
        kind: WindowKind,
        range: Range,
    ) -> bool {
        write_window(cfg, at, kind, range);
        let (memory, prefetchable) = windows(cfg, at);
        let (now, window) = match kind {
            WindowKind::Memory => (memory, &mut self.memory),
            WindowKind::Prefetchable => (prefetchable, &mut self.prefetchable),
        };
        if now == range {
            *window = range;
            return true;
        }
        write_window(
            cfg,
            at,
            kind,
            Range {
                first: 0xfff0_0000,
                last: 0,
            },
        );
        *window = CLOSED;
        false
    }
}

/// Memory and prefetchable window as the registers have them.
fn windows<C: ConfigSpace>(cfg: &C, at: Sbdf) -> (Range, Range) {
    let memory = cfg.read32(at, register::MEMORY_BASE);
    let prefetch = cfg.read32(at, register::PREFETCH_BASE);
    let (base_upper, limit_upper) = if prefetch & 0xf == 1 {
        (
            cfg.read32(at, register::PREFETCH_BASE_UPPER),
            cfg.read32(at, register::PREFETCH_LIMIT_UPPER),
        )
    } else {
        (0, 0)
    };
    (
        window(memory, 0, 0),
        window(prefetch, base_upper, limit_upper),
    )
}

fn window(word: u32, base_upper: u32, limit_upper: u32) -> Range {
    // Zero throughout is a window that does not exist, all ones a bridge that does not answer.
    if word == 0 && base_upper == 0 && limit_upper == 0 || word == u32::MAX {
        return CLOSED;
    }
    let range = Range {
        first: u64::from(base_upper) << 32 | u64::from(word & 0xfff0) << 16,
        last: u64::from(limit_upper) << 32 | u64::from(word & 0xfff0_0000) | 0xf_ffff,
    };
    if range.first <= range.last {
        range
    } else {
        CLOSED
    }
}

/// The I/O window; `None`: closed, beyond 16 bits, or there is none.
fn io_window<C: ConfigSpace>(cfg: &C, at: Sbdf) -> Option<IoWindow> {
    let word = cfg.read16(at, register::IO_BASE);
    let (first, last) = ((word & 0xf0) << 8, word & 0xf000 | 0xfff);
    // Zero throughout is a window that does not exist, all ones a bridge that does not answer.
    if word == 0 || word == u16::MAX || first > last {
        return None;
    }
    let is_wide = word & 0xf == 1;
    (!is_wide || cfg.read32(at, register::IO_BASE_UPPER) == 0).then_some((first, last))
}

/// `word`: bits 15:12 of the base in its low byte, of the limit in its high byte. The status register beside it is left alone.
fn write_io_window<C: ConfigSpace>(cfg: &mut C, at: Sbdf, word: u16) {
    if cfg.read16(at, register::IO_BASE) & 0xf == 1 {
        cfg.write32(at, register::IO_BASE_UPPER, 0);
    }
    cfg.write16(at, register::IO_BASE, word);
}

fn write_window<C: ConfigSpace>(cfg: &mut C, at: Sbdf, kind: WindowKind, range: Range) {
    // Bits 31:20 of both ends.
    let word = (range.first >> 16 & 0xfff0) as u32 | (range.last as u32 & 0xfff0_0000);
    match kind {
        WindowKind::Memory => cfg.write32(at, register::MEMORY_BASE, word),
        WindowKind::Prefetchable => {
            // In an order in which it forwards nothing in between (its limit is below its base).
            cfg.write32(at, register::PREFETCH_LIMIT_UPPER, 0);
            cfg.write32(
                at,
                register::PREFETCH_BASE_UPPER,
                (range.first >> 32) as u32,
            );
            cfg.write32(at, register::PREFETCH_BASE, word);
            cfg.write32(
                at,
                register::PREFETCH_LIMIT_UPPER,
                (range.last >> 32) as u32,
            );
        }
    }
}

/// Gives a bridge its bus numbers. `false`: it does not take them.
pub fn set_buses<C: ConfigSpace>(cfg: &mut C, at: Sbdf, buses: BusRange) -> bool {
    // The bridge's fourth byte is the latency timer, which stays.
    let timer = cfg.read32(at, register::BUS_NUMBERS) & 0xff00_0000;
    let numbers =
        u32::from(at.bus()) | u32::from(buses.first()) << 8 | u32::from(buses.last()) << 16;
    cfg.write32(at, register::BUS_NUMBERS, timer | numbers);
    let now = BusNumbers::read(cfg, at);
    now.behind() == Some(buses)
}

/// Lets a bridge forward: memory towards its devices, and their requests upwards (which an IOMMU
/// confines).
pub fn forward<C: ConfigSpace>(cfg: &mut C, at: Sbdf) {
    let needed = (Command::MEMORY_SPACE | Command::BUS_MASTER).bits();
    let command = cfg.read16(at, register::COMMAND);
    if command != u16::MAX && command & needed != needed {
        cfg.write16(at, register::COMMAND, command | needed);
    }
}
