//! The crates.io package `virtio-drivers` on top of the client library: its
//! `Hal` ([`VirtioHal`]: DMA memory, BAR mappings, bounce buffers) and the
//! configuration access that its PCI transport wants ([`ConfigView`]).
//!
//! One virtio device a PD, set up by [`attach`]. The driver believes it sizes
//! BARs itself; [`ConfigView`] answers from what the pci-server says and
//! writes nothing.

use core::ptr::NonNull;

use client::{
    ANY_IOVA, Access, BarInfo, BarKind, Buffer, Client, Device, Error, Memory, PagePreference,
    Registers, Sbdf, Switch, Width,
};
use heapless::Vec;
use spin::{Mutex, Once};
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::pci::{PciTransport, VirtioPciError};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::SeL4Platform;

type OurClient = Client<'static, SeL4Platform>;
type OurDevice = Device<'static, 'static, SeL4Platform>;
type OurBuffer = Buffer<'static, 'static, SeL4Platform>;

const PAGE: u64 = PAGE_SIZE as u64;
/// Most DMA allocations that the driver may hold at once (queues).
const MAX_ALLOCATIONS: usize = 16;
/// Most mapped BAR parts.
const MAX_MAPPINGS: usize = 8;
/// Bytes through which requests bounce.
const BOUNCE_BYTES: usize = 256 * 1024;
/// Unit of bounce allocation.
const BOUNCE_UNIT: usize = 512;
const BOUNCE_UNITS: usize = BOUNCE_BYTES / BOUNCE_UNIT;

struct Held {
    client: &'static OurClient,
    device: &'static OurDevice,
    bars: [(BarInfo, u64); 6],
    bounce: OurBuffer,
    bounce_iova: u64,
    bounce_used: Mutex<[bool; BOUNCE_UNITS]>,
    allocations: Mutex<Vec<(PhysAddr, OurBuffer), MAX_ALLOCATIONS>>,
    mappings: Mutex<Vec<Registers<'static, 'static, SeL4Platform>, MAX_MAPPINGS>>,
}

// SAFETY: a PD has one thread, so nothing here is ever sent to or shared with another; the bounds are
// those of a static.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

static HELD: Once<Held> = Once::new();

/// Why the virtio device could not be set up.
#[derive(Debug)]
pub enum AttachError {
    /// The client library refused a step.
    Client(Error),
    /// The driver found the device unusable.
    Device(VirtioPciError),
}

impl From<Error> for AttachError {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl core::fmt::Display for AttachError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Device(error) => error.fmt(f),
        }
    }
}

/// A message in words, for drivers whose steps fail in different types.
pub type Reason = heapless::String<96>;

/// The reason in words, cut where it is longer than [`Reason`].
pub fn because(reason: impl core::fmt::Display) -> Reason {
    let mut text = Reason::new();
    // What does not fit is cut.
    let _ = core::fmt::write(&mut text, format_args!("{reason}"));
    text
}

/// Makes a held virtio device usable for `virtio-drivers`: bounce memory, bus mastering, transport.
/// To be called once; later calls use the first device.
///
/// # Errors
/// See [`AttachError`].
pub fn attach(
    client: &'static OurClient,
    device: &'static OurDevice,
) -> Result<PlatformTransport, AttachError> {
    let mut bars = [(
        BarInfo {
            kind: BarKind::None,
            bytes: 0,
            withheld_first: 0,
            withheld_count: 0,
        },
        0,
    ); 6];
    let mut index = 0;
    while index < 6 {
        let info = device.bar(index)?;
        let offset = 0x10 + 4 * u16::from(index);
        let low = device.config_read(offset, Width::Dword)?;
        let (base, slots) = match info.kind {
            BarKind::Memory64 => (
                u64::from(low & !0xf)
                    | u64::from(device.config_read(offset + 4, Width::Dword)?) << 32,
                2,
            ),
            BarKind::Memory32 => (u64::from(low & !0xf), 1),
            BarKind::Io | BarKind::None => (0, 1),
        };
        if let Some(bar) = bars.get_mut(usize::from(index)) {
            *bar = (info, base);
        }
        index += slots;
    }
    let bounce = client.buffer(BOUNCE_BYTES as u64, PagePreference::Small)?;
    let bounce_iova = bounce.map(ANY_IOVA, Access::ReadWrite)?;
    let held = HELD.call_once(|| Held {
        client,
        device,
        bars,
        bounce,
        bounce_iova,
        bounce_used: Mutex::new([false; BOUNCE_UNITS]),
        allocations: Mutex::new(Vec::new()),
        mappings: Mutex::new(Vec::new()),
    });
    device.bus_master(Switch::On)?;
    let address = held.device.address();
    let function = DeviceFunction {
        bus: address.bus(),
        device: address.device(),
        function: address.function(),
    };
    let mut root = PciRoot::new(ConfigView {
        device: held.device,
        bars: held.bars,
        sizing: [false; 6],
    });
    PciTransport::new::<VirtioHal, _>(&mut root, function)
        .map(PlatformTransport)
        .map_err(AttachError::Device)
}

/// The driver's PCI transport, with the one feature bit that the drivers leave out and a device behind an IOMMU
/// insists on (virtio 1.2, 6: a device may refuse to operate when `ACCESS_PLATFORM` is not accepted).
pub struct PlatformTransport(PciTransport);

/// `VIRTIO_F_ACCESS_PLATFORM` (virtio 1.2, 6.1).
const ACCESS_PLATFORM: u64 = 1 << 33;

impl Transport for PlatformTransport {
    fn device_type(&self) -> DeviceType {
        self.0.device_type()
    }
    fn read_device_features(&mut self) -> u64 {
        self.0.read_device_features()
    }
    fn write_driver_features(&mut self, driver_features: u64) {
        let offered = self.0.read_device_features();
        self.0
            .write_driver_features(driver_features | offered & ACCESS_PLATFORM);
    }
    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.0.max_queue_size(queue)
    }
    fn notify(&mut self, queue: u16) {
        self.0.notify(queue);
    }
    fn get_status(&self) -> DeviceStatus {
        self.0.get_status()
    }
    fn set_status(&mut self, status: DeviceStatus) {
        self.0.set_status(status);
    }
    fn set_guest_page_size(&mut self, guest_page_size: u32) {
        self.0.set_guest_page_size(guest_page_size);
    }
    fn requires_legacy_layout(&self) -> bool {
        self.0.requires_legacy_layout()
    }
    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        self.0
            .queue_set(queue, size, descriptors, driver_area, device_area);
    }
    fn queue_unset(&mut self, queue: u16) {
        self.0.queue_unset(queue);
    }
    fn queue_used(&mut self, queue: u16) -> bool {
        self.0.queue_used(queue)
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.0.ack_interrupt()
    }
    fn read_config_generation(&self) -> u32 {
        self.0.read_config_generation()
    }
    fn read_config_space<T: FromBytes + IntoBytes>(
        &self,
        offset: usize,
    ) -> virtio_drivers::Result<T> {
        self.0.read_config_space(offset)
    }
    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> virtio_drivers::Result<()> {
        self.0.write_config_space(offset, value)
    }
}

/// Configuration space as the driver sees it: reads are real, BAR sizing is answered from what the pci-server
/// says, everything else that the driver writes goes through the register policy.
pub struct ConfigView {
    device: &'static OurDevice,
    bars: [(BarInfo, u64); 6],
    sizing: [bool; 6],
}

const COMMAND: u8 = 0x04;

impl ConfigView {
    fn names_us(&self, function: DeviceFunction) -> bool {
        let address: Sbdf = self.device.address();
        (function.bus, function.device, function.function)
            == (address.bus(), address.device(), address.function())
    }

    fn bar_index(offset: u8) -> Option<usize> {
        (0x10..0x28)
            .contains(&offset)
            .then(|| usize::from(offset - 0x10) / 4)
    }

    fn size_mask(&self, index: usize) -> u32 {
        let own = self.bars.get(index).map_or(0, |(info, _)| match info.kind {
            BarKind::Memory32 => !(info.bytes.wrapping_sub(1) as u32),
            BarKind::Memory64 => !(info.bytes.wrapping_sub(1) as u32) & !0xf | 0x4,
            BarKind::Io | BarKind::None => 0,
        });
        let below = index.checked_sub(1).and_then(|below| self.bars.get(below));
        match below {
            Some((info, _)) if info.kind == BarKind::Memory64 => {
                (!(info.bytes.wrapping_sub(1)) >> 32) as u32
            }
            _ => own,
        }
    }
}

impl ConfigurationAccess for ConfigView {
    fn read_word(&self, function: DeviceFunction, offset: u8) -> u32 {
        if !self.names_us(function) {
            return u32::MAX;
        }
        if let Some(index) = Self::bar_index(offset)
            && self.sizing.get(index).copied().unwrap_or(false)
        {
            return self.size_mask(index);
        }
        self.device
            .config_read(u16::from(offset), Width::Dword)
            .unwrap_or(u32::MAX)
    }

    fn write_word(&mut self, function: DeviceFunction, offset: u8, data: u32) {
        if !self.names_us(function) {
            return;
        }
        if let Some(index) = Self::bar_index(offset) {
            if let Some(sizing) = self.sizing.get_mut(index) {
                *sizing = data == u32::MAX;
            }
        } else if offset != COMMAND {
            // The policy decides; a refused write has no effect, as on hardware.
            let _ = self
                .device
                .config_write(u16::from(offset), Width::Dword, data);
        }
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self {
            device: self.device,
            bars: self.bars,
            sizing: self.sizing,
        }
    }
}

/// DMA memory, BAR mappings and bounce buffers for `virtio-drivers`.
pub struct VirtioHal;

/// Ends the driver where `Hal` leaves no way to say that something failed.
#[expect(
    clippy::panic,
    reason = "the trait has no error; the driver stops with the reason in its log"
)]
fn no_way_on(why: core::fmt::Arguments<'_>) -> ! {
    panic!("{why}")
}

fn held() -> Option<&'static Held> {
    HELD.get()
}

impl Held {
    fn allocate(&self, pages: usize) -> Option<(PhysAddr, NonNull<u8>)> {
        let buffer = self
            .client
            .buffer(pages as u64 * PAGE, PagePreference::Small)
            .ok()?;
        let iova = buffer.map(ANY_IOVA, Access::ReadWrite).ok()?;
        let address = NonNull::new(buffer.memory()?.address() as *mut u8)?;
        self.allocations.lock().push((iova, buffer)).ok()?;
        Some((iova, address))
    }

    fn map(&self, paddr: PhysAddr, size: usize) -> Option<NonNull<u8>> {
        let (bar, offset) = self
            .bars
            .iter()
            .enumerate()
            .find_map(|(bar, (info, base))| {
                let offset = paddr.checked_sub(*base)?;
                (*base != 0 && offset < info.bytes).then_some((bar as u8, offset))
            })?;
        let first = u32::try_from(offset / PAGE).ok()?;
        let count = u16::try_from((offset % PAGE + size as u64).div_ceil(PAGE)).ok()?;
        let registers = self.device.map_bar_pages(bar, first, count).ok()?;
        let address = NonNull::new((registers.address() + (offset % PAGE) as usize) as *mut u8)?;
        self.mappings.lock().push(registers).ok()?;
        Some(address)
    }

    fn take_bounce(&self, bytes: usize) -> Option<usize> {
        let units = bytes.div_ceil(BOUNCE_UNIT).max(1);
        let mut used = self.bounce_used.lock();
        let first = used
            .windows(units)
            .position(|run| run.iter().all(|&taken| !taken))?;
        used.get_mut(first..first + units)?.fill(true);
        Some(first * BOUNCE_UNIT)
    }

    fn free_bounce(&self, offset: usize, bytes: usize) {
        let first = offset / BOUNCE_UNIT;
        if let Some(run) = self
            .bounce_used
            .lock()
            .get_mut(first..first + bytes.div_ceil(BOUNCE_UNIT).max(1))
        {
            run.fill(false);
        }
    }
}

// SAFETY: `dma_alloc` returns zeroed memory of its own buffer, mapped read-write here and in the device's
// context, kept alive in `allocations` until `dma_dealloc`; its I/O virtual address is not 0 (the iommu-server
// never gives out the first MiB). `mmio_phys_to_virt` returns an uncached mapping of BAR pages that stays.
unsafe impl Hal for VirtioHal {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // Address 0 is this trait's way to say that there is none.
        held()
            .and_then(|held| held.allocate(pages))
            .unwrap_or((0, NonNull::dangling()))
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, _vaddr: NonNull<u8>, _pages: usize) -> i32 {
        let Some(held) = held() else { return -1 };
        let mut allocations = held.allocations.lock();
        let Some(at) = allocations.iter().position(|(iova, _)| *iova == paddr) else {
            return -1;
        };
        drop(allocations.swap_remove(at));
        0
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        match held().and_then(|held| held.map(paddr, size)) {
            Some(address) => address,
            // The trait has no error; the address is what the device's own capability claims.
            None => no_way_on(format_args!(
                "virtio: {size} bytes at {paddr:#x} are in no BAR that may be mapped"
            )),
        }
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let bounced = held().and_then(|held| {
            let offset = held.take_bounce(buffer.len())?;
            if direction != BufferDirection::DeviceToDriver {
                // SAFETY: the caller promises a valid buffer that is not changed meanwhile.
                let bytes = unsafe { buffer.as_ref() };
                held.bounce.memory()?.write(offset, bytes);
            }
            Some(held.bounce_iova + offset as u64)
        });
        match bounced {
            Some(iova) => iova,
            None => no_way_on(format_args!(
                "virtio: a request of {} bytes finds no bounce memory",
                buffer.len()
            )),
        }
    }

    unsafe fn unshare(paddr: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        let Some(held) = held() else { return };
        let Some(offset) = paddr
            .checked_sub(held.bounce_iova)
            .and_then(|offset| usize::try_from(offset).ok())
        else {
            return;
        };
        if direction != BufferDirection::DriverToDevice
            && let Some(memory) = held.bounce.memory()
        {
            // SAFETY: the caller promises a valid buffer that nobody else uses now.
            let bytes = unsafe { buffer.as_mut() };
            memory.read(offset, bytes);
        }
        held.free_bounce(offset, buffer.len());
    }
}
