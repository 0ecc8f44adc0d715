//! One device and one buffer, behind servers that die at a chosen request; and a timer, whose time passes while the driver waits.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![allow(dead_code, reason = "each test uses some of it")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::AtomicU64;

use ipc_proto::{
    ANY_IOVA, Badge, BadgeKind, BarKind, Delivery, Message, Properties, Transport, iommu, pci,
    timer,
};
use portcullis_client::{KernelError, Memory, Mmio, Platform, Refusal, Rule};
use system::info::ClientInfo;
use system::layout::{event, slot};

pub const IOVA: u64 = 0x10_0000;
pub const IDS: u32 = 0x11e8_1234;

/// What of a request has been done when its server dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Done {
    Nothing,
    /// All but the answer.
    All,
}

#[derive(Default)]
struct State {
    requests: u32,
    /// Requests from this one on die, so many of them.
    death: Option<(u32, u32, Done)>,
    slots: Slots,
    /// Window slots that hold something.
    window: BTreeSet<u16>,
    /// Slot of the device's capability.
    device: Option<u16>,
    /// Slot of the buffer's.
    buffer: Option<u16>,
    /// Slots of its frames.
    frames: BTreeSet<u16>,
    mapped: bool,
    messages: bool,
    clock: Clock,
}

/// The library's bits of the window.
struct Slots(&'static [AtomicU64]);

impl Default for Slots {
    fn default() -> Self {
        Self(Box::leak(Box::new([const { AtomicU64::new(0) }; 16])))
    }
}

/// Time, and what is signalled in it.
#[derive(Default)]
struct Clock {
    now: u64,
    /// When the timer runs out.
    armed: Option<u64>,
    /// It runs out just before it is disarmed.
    late: bool,
    /// Flags, and when they come.
    coming: Vec<(u64, u64)>,
    /// What has been signalled and not been handed out.
    pending: u64,
}

impl Clock {
    /// What has come by now.
    fn take(&mut self) -> u64 {
        let now = self.now;
        self.coming.retain(|&(at, flags)| {
            if at <= now {
                self.pending |= flags;
            }
            at > now
        });
        if self.armed.is_some_and(|at| at <= now) {
            self.armed = None;
            self.pending |= event::TIMER;
        }
        std::mem::take(&mut self.pending)
    }

    /// Time passes until something comes.
    fn wait(&mut self) -> u64 {
        match self.take() {
            0 => {
                let next = self.coming.iter().map(|&(at, _)| at).chain(self.armed);
                self.now = next.min().expect("waits for ever");
                self.take()
            }
            came => came,
        }
    }

    fn serve(&mut self, request: timer::Request) -> Message {
        match request {
            timer::Request::Now {} => timer::NowReply { micros: self.now }.encode(),
            timer::Request::Arm { micros } => {
                if self.armed.is_some() && std::mem::take(&mut self.late) {
                    self.pending |= event::TIMER;
                }
                self.armed = (micros != 0).then(|| self.now + micros);
                timer::ArmReply {}.encode()
            }
        }
    }
}

/// Of static memory, so that ways to call are values.
#[derive(Clone, Copy)]
pub struct Kernel(&'static RefCell<State>);

/// A way to call whom a capability leads to.
#[derive(Clone, Copy)]
pub struct Way {
    kernel: Kernel,
    /// A private slot, or one of the window.
    to: Result<u64, u16>,
}

impl Kernel {
    pub fn new() -> Self {
        Self(Box::leak(Box::default()))
    }

    /// Servers die at request `first`, and at `times` in all from there on.
    pub fn dying(first: u32, times: u32, done: Done) -> Self {
        let kernel = Self::new();
        kernel.0.borrow_mut().death = Some((first, times, done));
        kernel
    }

    /// `flags` are signalled at this time.
    pub fn signal_at(&self, micros: u64, flags: u64) {
        self.0.borrow_mut().clock.coming.push((micros, flags));
    }

    /// The timer runs out just before it is disarmed the next time.
    pub fn run_out_late(&self) {
        self.0.borrow_mut().clock.late = true;
    }

    pub fn now(&self) -> u64 {
        self.0.borrow().clock.now
    }

    pub fn requests(&self) -> u32 {
        self.0.borrow().requests
    }

    pub fn is_as_at_the_start(&self) -> bool {
        let state = self.0.borrow();
        let held = state.device.is_some() || state.buffer.is_some();
        state.window.is_empty() && !held && !state.mapped && !state.messages
    }
}

impl State {
    fn place(&mut self, slot: u16) -> Result<(), Refusal> {
        if self.window.insert(slot) {
            Ok(())
        } else {
            Err(Refusal::new(Rule::WindowSlotOccupied, slot.into()))
        }
    }

    fn pci(&mut self, request: pci::Request, through: Option<u16>) -> Result<Message, Refusal> {
        use pci::Request as R;
        Ok(match request {
            R::Hello { .. } => pci::HelloReply {
                version: ipc_proto::VERSION,
                shard: 0,
                segment: 0,
                first_bus: 0,
                last_bus: 255,
            }
            .encode(),
            R::Assign { slot, .. } => {
                if self.device.is_some() {
                    return Err(Rule::AlreadyHeld.into());
                }
                self.place(slot)?;
                self.device = Some(slot);
                let properties = Properties {
                    dma_isolated: true,
                    interrupts_isolated: true,
                    faults_reported: true,
                    translation_cached: false,
                    reset: None,
                    vectors: 0,
                };
                pci::AssignReply {
                    properties,
                    context: 0,
                }
                .encode()
            }
            _ if through.is_none() || through != self.device => {
                return Err(Refusal::new(Rule::NoCapability, 2));
            }
            R::Release {} => {
                // What is revoked is gone from the window.
                self.window.remove(&self.device.take().unwrap());
                self.messages = false;
                pci::ReleaseReply {}.encode()
            }
            R::Bar { .. } => pci::BarReply {
                kind: BarKind::Memory32,
                bytes: 2 * 4096,
                withheld_first: 0,
                withheld_count: 0,
            }
            .encode(),
            // One at a time: so there are several requests.
            R::BarFrames { slot, .. } => {
                self.place(slot)?;
                pci::BarFramesReply { placed: 1 }.encode()
            }
            R::BusMaster { .. } => pci::BusMasterReply {}.encode(),
            R::MsiEnable { count, slot, .. } => {
                if self.messages {
                    return Err(Rule::InterruptsEnabled.into());
                }
                self.place(slot)?;
                self.messages = true;
                pci::MsiEnableReply {
                    count,
                    delivery: Delivery::Direct,
                }
                .encode()
            }
            R::MsiDisable {} => {
                if !std::mem::take(&mut self.messages) {
                    return Err(Rule::InterruptsDisabled.into());
                }
                pci::MsiDisableReply {}.encode()
            }
            R::ConfigRead { .. } => pci::ConfigReadReply { value: IDS }.encode(),
            _ => return Err(Rule::UnknownOperation.into()),
        })
    }

    fn iommu(&mut self, request: iommu::Request, through: Option<u16>) -> Result<Message, Refusal> {
        use iommu::Request as R;
        Ok(match request {
            R::Hello { .. } => iommu::HelloReply {
                version: ipc_proto::VERSION,
                quota: 4096,
                used: 0,
            }
            .encode(),
            R::Alloc { slot, .. } => {
                if self.buffer.is_some() {
                    return Err(Rule::DmaQuota.into());
                }
                self.place(slot)?;
                self.buffer = Some(slot);
                iommu::AllocReply {
                    page_bits: 12,
                    pages: 1,
                }
                .encode()
            }
            R::AllocPrivate {
                bytes,
                slot,
                frames,
            } => {
                if self.buffer.is_some() {
                    return Err(Rule::DmaQuota.into());
                }
                let pages = (bytes >> 12) as u16;
                self.place(slot)?;
                for frame in frames..frames + pages {
                    self.place(frame)?;
                    self.frames.insert(frame);
                }
                self.buffer = Some(slot);
                let pages = pages.into();
                iommu::AllocPrivateReply { pages }.encode()
            }
            _ if through.is_none() || through != self.buffer => {
                return Err(Refusal::new(Rule::NoCapability, 2));
            }
            R::Frames { slot, .. } => {
                self.place(slot)?;
                self.frames.insert(slot);
                iommu::FramesReply { placed: 1 }.encode()
            }
            R::Map { iova, .. } => {
                assert_eq!(iova, ANY_IOVA);
                if std::mem::replace(&mut self.mapped, true) {
                    return Err(Rule::AlreadyMapped.into());
                }
                iommu::MapReply { iova: IOVA }.encode()
            }
            R::Unmap {} => {
                if !std::mem::take(&mut self.mapped) {
                    return Err(Rule::NotMapped.into());
                }
                iommu::UnmapReply {}.encode()
            }
            R::Free {} => {
                self.mapped = false;
                self.window.remove(&self.buffer.take().unwrap());
                for frame in std::mem::take(&mut self.frames) {
                    self.window.remove(&frame);
                }
                iommu::FreeReply {}.encode()
            }
            _ => return Err(Rule::UnknownOperation.into()),
        })
    }

    fn serve(&mut self, request: &Message, through: Option<u16>) -> Result<Message, Refusal> {
        let word = |kind| Badge::plain(kind, 0).to_word();
        let kinds = [BadgeKind::Client, BadgeKind::Device, BadgeKind::Buffer];
        if let Ok((_, request)) = timer::Request::decode(word(BadgeKind::Pd), request) {
            return Ok(self.clock.serve(request));
        }
        for kind in kinds {
            if let Ok((_, request)) = pci::Request::decode(word(kind), request) {
                return self.pci(request, through);
            }
            if let Ok((_, request)) = iommu::Request::decode(word(kind), request) {
                return self.iommu(request, through);
            }
        }
        Err(Rule::UnknownOperation.into())
    }
}

impl Transport for Way {
    fn call(&self, request: &Message) -> Message {
        let mut state = self.kernel.0.borrow_mut();
        let number = state.requests;
        state.requests += 1;
        let through = self.to.err();
        let dies = match &mut state.death {
            Some((first, left, done)) if number >= *first && *left > 0 => {
                *left -= 1;
                Some(*done)
            }
            _ => None,
        };
        let answer = match dies {
            Some(Done::Nothing) => Err(Rule::Restarted.into()),
            Some(Done::All) => {
                // Whatever came of it: nobody is told.
                let _ = state.serve(request, through);
                Err(Rule::Restarted.into())
            }
            None => state.serve(request, through),
        };
        answer.unwrap_or_else(Refusal::to_message)
    }
}

pub struct Nothing;

impl Mmio for Nothing {
    fn len(&self) -> usize {
        0
    }
    fn read32(&self, _: usize) -> u32 {
        u32::MAX
    }
    fn read64(&self, _: usize) -> u64 {
        u64::MAX
    }
    fn write32(&mut self, _: usize, _: u32) {}
    fn write64(&mut self, _: usize, _: u64) {}
}

impl Memory for Nothing {
    fn len(&self) -> usize {
        0
    }
    fn read(&self, _: usize, _: &mut [u8]) -> bool {
        false
    }
    fn write(&self, _: usize, _: &[u8]) -> bool {
        false
    }
    fn address(&self) -> usize {
        0
    }
}

impl Platform for Kernel {
    type Port = Way;
    type Registers = Nothing;
    type Memory = Nothing;

    fn slots_in_use(&self) -> &[AtomicU64] {
        self.0.borrow().slots.0
    }
    fn port(&self, slot: u64) -> Way {
        assert!((slot::PCI..slot::MSI).contains(&slot) || slot == slot::TIMER);
        Way {
            kernel: *self,
            to: Ok(slot),
        }
    }
    fn window_port(&self, slot: u16) -> Way {
        Way {
            kernel: *self,
            to: Err(slot),
        }
    }
    fn window_address(&self, slot: u16) -> u64 {
        slot.into()
    }
    fn map_registers(&self, _: u16, _: u16, _: u8) -> Result<Nothing, KernelError> {
        Ok(Nothing)
    }
    fn unmap_registers(&self, _: &mut Nothing, _: u16, _: u16, _: u8) {}
    fn map_memory(&self, _: u16, _: u16, _: u8) -> Result<Nothing, KernelError> {
        Ok(Nothing)
    }
    fn unmap_memory(&self, _: &mut Nothing, _: u16, _: u16, _: u8) {}
    fn forget_memory(&self, _: &mut Nothing, _: u16, _: u8) {}
    fn clear(&self, slot: u16) {
        self.0.borrow_mut().window.remove(&slot);
    }
    fn post(&self, _: u64, _: u16, _: u16) -> Result<(), KernelError> {
        Ok(())
    }
    fn fetch(&self, _: u64, _: u16, _: u16) -> Result<(), KernelError> {
        Ok(())
    }
    fn signal(&self, _: u64) {}
    fn bind_interrupt(&self, _: u16, _: u64) -> Result<(), KernelError> {
        Ok(())
    }
    fn wait(&self) -> u64 {
        self.0.borrow_mut().clock.wait()
    }
    fn poll(&self) -> u64 {
        self.0.borrow_mut().clock.take()
    }
    fn log(&self, _: fmt::Arguments<'_>) {}
}

pub fn info() -> ClientInfo {
    ClientInfo {
        inspect: false,
        admin: false,
        clients: Default::default(),
        client: 0,
        window_bits: 4,
        untyped_bits: 0,
        pci: [(0, 0, 0, 255)].into_iter().collect(),
        iommu: Some(0),
        channels: Default::default(),
        args: Default::default(),
        pds: Default::default(),
    }
}
