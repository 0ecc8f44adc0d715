//! Finding the functions of a segment: [`enumerate`] goes over the buses once,
//! in ascending order, and hands what it finds to a visitor as [`Found`];
//! [`Inventory`] is a visitor that keeps it.
//!
//! A bus is scanned if a bridge leads to it, or if no bridge claims it: then a
//! host bridge may have it as its root bus without being listed anywhere (QEMU's
//! `pxb-pcie` at bus 80h is). Buses that a bridge claims, and no deeper bridge
//! leads to, cannot be reached and cost nothing. An absent device costs one read,
//! a function three, a bridge four.
//!
//! A bridge may only lead to higher buses than its own, inside what the bridge
//! above it claims and outside what its siblings claim. So the pass ends whatever
//! bridges say, without recursion; one that breaks the rule is reported and not followed.

use core::ops::ControlFlow;

use heapless::Vec;
use thiserror::Error;

use crate::header::{BusNumbers, ClassCode, Header, HeaderError, Ids, Layout, register};
use crate::{BusRange, ConfigSpace, Sbdf};

/// A function that answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function {
    /// Its address.
    pub at: Sbdf,
    /// Its header.
    pub header: Header,
    /// The bridge whose secondary bus it is on; `None` on a root bus.
    pub parent: Option<Sbdf>,
    /// First bus of the host bridge it is behind ([`HostBridge::buses`]).
    pub host: u8,
    /// The buses behind it, if it is a bridge and may have those that it claims.
    pub buses: Option<BusRange>,
}

impl Function {
    /// Vendor and device.
    #[must_use]
    pub const fn ids(&self) -> Ids {
        self.header.ids
    }

    /// Class code.
    #[must_use]
    pub const fn class(&self) -> ClassCode {
        self.header.class
    }
}

/// A host bridge: the root of a tree of buses.
///
/// Its range goes up to the bus before the next host bridge, so that every bus of the segment
/// belongs to one; buses added later (hot-plug) fall to the bridge that owns their numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostBridge {
    /// PCI segment group.
    pub segment: u16,
    /// Root bus, and all buses up to the next host bridge's.
    pub buses: BusRange,
    /// The highest bus that has a function or that a bridge claims.
    pub last_used: u8,
}

/// Why a function or what is behind it was left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Fault {
    /// It answers, and its header is none.
    #[error("{0}")]
    Header(HeaderError),
    /// A bridge which firmware has not given bus numbers.
    #[error("bridge without bus numbers")]
    BridgeNotSetUp,
    /// A bridge's primary bus is not the one that it is on.
    #[error("bridge says it is on bus {primary:#04x}")]
    WrongPrimary {
        /// What it says.
        primary: u8,
    },
    /// A bridge's buses are not above its own, not in order, or not inside those of the bridge above.
    #[error("bridge claims buses {secondary:#04x} to {subordinate:#04x}, which it cannot have")]
    BadRange {
        /// First bus claimed.
        secondary: u8,
        /// Last bus claimed.
        subordinate: u8,
    },
    /// A bridge claims buses of another one.
    #[error(
        "bridge claims buses {secondary:#04x} to {subordinate:#04x}, some of which another has"
    )]
    Overlap {
        /// First bus claimed.
        secondary: u8,
        /// Last bus claimed.
        subordinate: u8,
    },
}

/// What [`enumerate`] finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A function, in ascending order of addresses.
    Function(Function),
    /// A host bridge, after all functions behind it.
    Host(HostBridge),
    /// Something that was left out.
    Fault {
        /// Which function.
        at: Sbdf,
        /// Why.
        fault: Fault,
    },
}

/// Scans `buses` of `segment` and calls `visit` with everything found, until it breaks off.
///
/// Registers are only read. `buses` is what the segment's ECAM window holds, or the share
/// of one server.
pub fn enumerate<C, F>(cfg: &C, segment: u16, buses: BusRange, mut visit: F) -> ControlFlow<()>
where
    C: ConfigSpace + ?Sized,
    F: FnMut(Found) -> ControlFlow<()>,
{
    let mut scan = Scan {
        cfg,
        segment,
        buses,
        known: BusTable::new(),
        host: None,
    };
    for bus in buses.iter() {
        scan.bus(bus, &mut visit)?;
    }
    match scan
        .host
        .and_then(|host| host.ending(segment, buses.last()))
    {
        Some(host) => visit(Found::Host(host)),
        None => ControlFlow::Continue(()),
    }
}

/// A set of bus numbers.
#[derive(Clone, Copy)]
struct BusSet([u64; 4]);

impl BusSet {
    const EMPTY: Self = Self([0; 4]);

    fn contains(&self, bus: u8) -> bool {
        let word = self.0.get(usize::from(bus / 64)).copied().unwrap_or(0);
        word >> (bus % 64) & 1 != 0
    }

    fn insert(&mut self, range: BusRange) {
        for bus in range.iter() {
            if let Some(word) = self.0.get_mut(usize::from(bus / 64)) {
                *word |= 1 << (bus % 64);
            }
        }
    }

    fn meets(&self, range: BusRange) -> bool {
        range.iter().any(|bus| self.contains(bus))
    }
}

/// What the bridges found so far say about buses.
struct BusTable {
    /// For a secondary bus: the requester id of the bridge and the last bus it claims.
    lead: [Option<(u16, u8)>; 256],
    /// Buses that some bridge claims.
    claimed: BusSet,
}

impl BusTable {
    const fn new() -> Self {
        Self {
            lead: [None; 256],
            claimed: BusSet::EMPTY,
        }
    }

    fn lead(&self, bus: u8) -> Option<(u16, u8)> {
        self.lead.get(usize::from(bus)).copied().flatten()
    }

    fn claim(&mut self, bridge: Sbdf, range: BusRange) {
        if let Some(lead) = self.lead.get_mut(usize::from(range.first())) {
            *lead = Some((bridge.requester_id(), range.last()));
        }
        self.claimed.insert(range);
    }
}

/// The host bridge whose buses are being scanned.
#[derive(Clone, Copy)]
struct OpenHost {
    first: u8,
    last_used: u8,
}

impl OpenHost {
    fn ending(self, segment: u16, last: u8) -> Option<HostBridge> {
        Some(HostBridge {
            segment,
            buses: BusRange::new(self.first, last)?,
            last_used: self.last_used,
        })
    }
}

struct Scan<'c, C: ?Sized> {
    cfg: &'c C,
    segment: u16,
    buses: BusRange,
    known: BusTable,
    host: Option<OpenHost>,
}

/// The bus being scanned.
struct CurrentBus {
    number: u8,
    parent: Option<Sbdf>,
    /// The last bus that a bridge on this one may claim.
    limit: u8,
    /// Buses that no further bridge on this one may claim.
    taken: BusSet,
}

impl<C: ConfigSpace + ?Sized> Scan<'_, C> {
    fn bus<F>(&mut self, number: u8, visit: &mut F) -> ControlFlow<()>
    where
        F: FnMut(Found) -> ControlFlow<()>,
    {
        let mut bus = match self.known.lead(number) {
            Some((bridge, last)) => CurrentBus {
                number,
                parent: Some(Sbdf::from_requester_id(self.segment, bridge)),
                limit: last,
                taken: BusSet::EMPTY,
            },
            None if self.known.claimed.contains(number) => return ControlFlow::Continue(()),
            None => CurrentBus {
                number,
                parent: None,
                limit: self.buses.last(),
                taken: self.known.claimed,
            },
        };
        // Most places are empty: what they cost is what a scan costs.
        let mut left = self.cfg.devices_on(self.segment, number);
        while left != 0 {
            let routing = u16::from(number) << 8 | (left.trailing_zeros() as u16) << 3;
            left &= left - 1;
            let first = Sbdf::from_requester_id(self.segment, routing);
            let ids = self.cfg.read32(first, register::VENDOR_ID);
            let Some(header) = self.function(first, ids, &mut bus, visit)? else {
                continue;
            };
            if !header.multi_function {
                continue;
            }
            for function in 1..=Sbdf::MAX_FUNCTION {
                let at = first.with_function(function);
                let ids = self.cfg.read32(at, register::VENDOR_ID);
                self.function(at, ids, &mut bus, visit)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Looks at one function whose first four bytes are `ids`; `Some` if it answers.
    fn function<F>(
        &mut self,
        at: Sbdf,
        ids: u32,
        bus: &mut CurrentBus,
        visit: &mut F,
    ) -> ControlFlow<(), Option<Header>>
    where
        F: FnMut(Found) -> ControlFlow<()>,
    {
        let header = match Header::read_on(self.cfg, at, ids) {
            Ok(header) => header,
            Err(HeaderError::Absent) => return ControlFlow::Continue(None),
            Err(error) => {
                let fault = Fault::Header(error);
                visit(Found::Fault { at, fault })?;
                return ControlFlow::Continue(None);
            }
        };
        let host = self.host_of(bus, visit)?;
        let behind = (header.layout != Layout::Endpoint).then(|| self.behind(at, bus));
        visit(Found::Function(Function {
            at,
            header,
            parent: bus.parent,
            host,
            buses: behind.and_then(Result::ok),
        }))?;
        match behind {
            Some(Ok(range)) => {
                bus.taken.insert(range);
                self.known.claim(at, range);
                if let Some(host) = &mut self.host {
                    host.last_used = host.last_used.max(range.last());
                }
            }
            Some(Err(fault)) => visit(Found::Fault { at, fault })?,
            None => {}
        }
        ControlFlow::Continue(Some(header))
    }

    /// The host bridge of `bus`, on which a function was just found: a new one, if the bus is a
    /// root bus beyond everything that belongs to the last. A root bus between the buses of a
    /// host bridge is counted to it: ranges of host bridges never interleave.
    fn host_of<F>(&mut self, bus: &CurrentBus, visit: &mut F) -> ControlFlow<(), u8>
    where
        F: FnMut(Found) -> ControlFlow<()>,
    {
        if let Some(open) = &mut self.host {
            if bus.number <= open.last_used {
                return ControlFlow::Continue(open.first);
            }
            // The bus is above 0, since a lower one is in use.
            if let Some(host) = open.ending(self.segment, bus.number.saturating_sub(1)) {
                visit(Found::Host(host))?;
            }
        }
        self.host = Some(OpenHost {
            first: bus.number,
            last_used: bus.number,
        });
        ControlFlow::Continue(bus.number)
    }

    /// The buses behind the bridge at `at`, if it may have them.
    fn behind(&self, at: Sbdf, bus: &CurrentBus) -> Result<BusRange, Fault> {
        let numbers = BusNumbers::read(self.cfg, at);
        let BusNumbers {
            primary,
            secondary,
            subordinate,
        } = numbers;
        if secondary == 0 {
            return Err(Fault::BridgeNotSetUp);
        }
        // Express ports may leave the primary bus hardwired to zero: nothing uses it.
        if primary != bus.number && primary != 0 {
            return Err(Fault::WrongPrimary { primary });
        }
        let range = numbers
            .behind()
            .filter(|range| range.first() > bus.number && range.last() <= bus.limit)
            .ok_or(Fault::BadRange {
                secondary,
                subordinate,
            })?;
        if bus.taken.meets(range) {
            return Err(Fault::Overlap {
                secondary,
                subordinate,
            });
        }
        Ok(range)
    }
}

/// Everything found in a segment, up to `FUNCTIONS` functions and `HOSTS` host bridges.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inventory<const FUNCTIONS: usize, const HOSTS: usize> {
    /// Functions in ascending order of addresses.
    pub functions: Vec<Function, FUNCTIONS>,
    /// Host bridges in ascending order of buses.
    pub hosts: Vec<HostBridge, HOSTS>,
    /// The first faults found.
    pub faults: Vec<(Sbdf, Fault), 16>,
    /// Faults found beyond those in [`Self::faults`].
    pub more_faults: usize,
}

/// A segment has more than an [`Inventory`] holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum InventoryError {
    /// Too many functions.
    #[error("more than {limit} functions; the next is {next}")]
    Functions {
        /// How many there is room for.
        limit: usize,
        /// The first without room.
        next: Sbdf,
    },
    /// Too many host bridges.
    #[error("more than {limit} host bridges; the next has bus {next:#04x}")]
    Hosts {
        /// How many there is room for.
        limit: usize,
        /// Root bus of the first without room.
        next: u8,
    },
}

impl<const FUNCTIONS: usize, const HOSTS: usize> Inventory<FUNCTIONS, HOSTS> {
    /// Scans `buses` of `segment` (see [`enumerate`]) and keeps what is found, in place: the
    /// inventory may be larger than a stack.
    ///
    /// # Errors
    /// There is more than there is room for; what was found before is kept.
    pub fn fill<C: ConfigSpace + ?Sized>(
        &mut self,
        cfg: &C,
        segment: u16,
        buses: BusRange,
    ) -> Result<(), InventoryError> {
        self.functions.clear();
        self.hosts.clear();
        self.faults.clear();
        self.more_faults = 0;
        let mut full = None;
        let _ = enumerate(cfg, segment, buses, |found| {
            match found {
                Found::Function(function) => {
                    if self.functions.push(function).is_err() {
                        full = Some(InventoryError::Functions {
                            limit: FUNCTIONS,
                            next: function.at,
                        });
                    }
                }
                Found::Host(host) => {
                    if self.hosts.push(host).is_err() {
                        full = Some(InventoryError::Hosts {
                            limit: HOSTS,
                            next: host.buses.first(),
                        });
                    }
                }
                Found::Fault { at, fault } => {
                    if self.faults.push((at, fault)).is_err() {
                        self.more_faults += 1;
                    }
                }
            }
            match full {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            }
        });
        full.map_or(Ok(()), Err)
    }

    /// The function at `at`.
    #[must_use]
    pub fn get(&self, at: Sbdf) -> Option<&Function> {
        let index = self
            .functions
            .binary_search_by_key(&at, |function| function.at)
            .ok()?;
        self.functions.get(index)
    }
}
