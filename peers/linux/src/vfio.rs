//! [`Container`], [`Assigned`]: a device in the hands of this process by VFIO,
//! with the fewest calls that give it (Linux, `Documentation/driver-api/vfio.rst`).

use crate::sys::{Argument, Mapping, call};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, Result, pread, pwrite, read};
use rustix::ioctl::{Opcode, opcode};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_IRQ_SET_ACTION_TRIGGER,
    VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE, VFIO_PCI_BAR0_REGION_INDEX,
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSI_IRQ_INDEX, VFIO_TYPE, VFIO_TYPE1v2_IOMMU,
    vfio_iommu_type1_dma_map, vfio_region_info,
};

const fn number(function: u32) -> Opcode {
    opcode::none(VFIO_TYPE, (VFIO_BASE + function) as u8)
}

const SET_IOMMU: Opcode = number(2);
const GROUP_SET_CONTAINER: Opcode = number(4);
const GROUP_GET_DEVICE_FD: Opcode = number(6);
const DEVICE_GET_REGION_INFO: Opcode = number(8);
const DEVICE_SET_IRQS: Opcode = number(10);
const IOMMU_MAP_DMA: Opcode = number(13);
const IOMMU_UNMAP_DMA: Opcode = number(14);

/// Name of a function in sysfs and for VFIO, such as `0000:00:03.0`, and the number of its group.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Where its group is opened.
    pub group: String,
}

/// `vfio_iommu_type1_dma_unmap` without the bitmap that may follow.
#[repr(C)]
struct Unmap {
    argsz: u32,
    flags: u32,
    iova: u64,
    size: u64,
}

/// `vfio_irq_set` with room for one event.
#[repr(C)]
struct IrqSet {
    argsz: u32,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
    event: i32,
}

/// The bytes of a structure that begins with its length.
const fn length<T>() -> u32 {
    size_of::<T>() as u32
}

/// A device in this process's hands, with container and group of its own.
pub struct Assigned {
    // Closed in this order.
    device: OwnedFd,
    group: OwnedFd,
    container: OwnedFd,
}

fn open_device(path: &str) -> Result<OwnedFd> {
    open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

impl Assigned {
    /// Opens container and group, joins them, chooses the IOMMU, opens the device.
    ///
    /// # Errors
    /// Linux's.
    pub fn new(function: &Function) -> Result<Self> {
        let name = CString::new(function.name.as_str()).map_err(|_| Errno::INVAL)?;
        let container = open_device("/dev/vfio/vfio")?;
        let group = open_device(&function.group)?;
        let mut number = container.as_raw_fd();
        call(&group, GROUP_SET_CONTAINER, Argument::Memory(&mut number))?;
        let kind = Argument::<()>::Number(VFIO_TYPE1v2_IOMMU as usize);
        call(&container, SET_IOMMU, kind)?;
        let device = crate::sys::open_by(&group, GROUP_GET_DEVICE_FD, &name)?;
        Ok(Self {
            device,
            group,
            container,
        })
    }

    /// Gives it back.
    pub fn release(self) {
        drop(self.device);
        drop(self.group);
        drop(self.container);
    }

    fn region(&self, index: u32) -> Result<vfio_region_info> {
        let mut info = vfio_region_info {
            argsz: length::<vfio_region_info>(),
            index,
            ..Default::default()
        };
        call(
            &self.device,
            DEVICE_GET_REGION_INFO,
            Argument::Memory(&mut info),
        )?;
        Ok(info)
    }

    /// Where configuration space is in the device's file.
    ///
    /// # Errors
    /// Linux's.
    pub fn configuration(&self) -> Result<u64> {
        Ok(self.region(VFIO_PCI_CONFIG_REGION_INDEX)?.offset)
    }

    /// Offset and bytes of BAR 0 in the device's file.
    ///
    /// # Errors
    /// Linux's.
    pub fn bar(&self) -> Result<(u64, usize)> {
        let info = self.region(VFIO_PCI_BAR0_REGION_INDEX)?;
        Ok((info.offset, info.size as usize))
    }

    /// Maps BAR 0, which [`Self::bar`] described.
    ///
    /// # Errors
    /// Linux's.
    pub fn map_bar(&self, (offset, bytes): (u64, usize)) -> Result<Mapping> {
        Mapping::of_file(&self.device, offset, bytes)
    }

    /// Reads 32 bits.
    ///
    /// # Errors
    /// Linux's.
    pub fn read32(&self, offset: u64) -> Result<u32> {
        let mut word = [0; 4];
        match pread(&self.device, &mut word, offset)? {
            4 => Ok(u32::from_le_bytes(word)),
            _ => Err(Errno::IO),
        }
    }

    /// Writes 32 bits.
    ///
    /// # Errors
    /// Linux's.
    pub fn write32(&self, offset: u64, value: u32) -> Result<()> {
        match pwrite(&self.device, &value.to_le_bytes(), offset)? {
            4 => Ok(()),
            _ => Err(Errno::IO),
        }
    }

    /// Lets the device reach memory at `iova`.
    ///
    /// # Errors
    /// Linux's.
    pub fn map(&self, memory: u64, bytes: u64, iova: u64) -> Result<()> {
        let mut request = vfio_iommu_type1_dma_map {
            argsz: length::<vfio_iommu_type1_dma_map>(),
            flags: VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
            vaddr: memory,
            iova,
            size: bytes,
        };
        call(
            &self.container,
            IOMMU_MAP_DMA,
            Argument::Memory(&mut request),
        )
        .map(drop)
    }

    /// Takes that away.
    ///
    /// # Errors
    /// Linux's, or not all was unmapped.
    pub fn unmap(&self, bytes: u64, iova: u64) -> Result<()> {
        let mut request = Unmap {
            argsz: length::<Unmap>(),
            flags: 0,
            iova,
            size: bytes,
        };
        call(
            &self.container,
            IOMMU_UNMAP_DMA,
            Argument::Memory(&mut request),
        )?;
        if request.size == bytes {
            Ok(())
        } else {
            Err(Errno::IO)
        }
    }

    /// Has MSI 0 signal `event`.
    ///
    /// # Errors
    /// Linux's.
    pub fn enable_msi(&self, event: BorrowedFd<'_>) -> Result<()> {
        self.set_irqs(VFIO_IRQ_SET_DATA_EVENTFD, 1, event.as_raw_fd())
    }

    /// Disables MSI.
    ///
    /// # Errors
    /// Linux's.
    pub fn disable_msi(&self) -> Result<()> {
        self.set_irqs(VFIO_IRQ_SET_DATA_NONE, 0, -1)
    }

    fn set_irqs(&self, data: u32, count: u32, event: i32) -> Result<()> {
        let mut request = IrqSet {
            argsz: length::<IrqSet>(),
            flags: data | VFIO_IRQ_SET_ACTION_TRIGGER,
            index: VFIO_PCI_MSI_IRQ_INDEX,
            start: 0,
            count,
            event,
        };
        call(
            &self.device,
            DEVICE_SET_IRQS,
            Argument::Memory(&mut request),
        )
        .map(drop)
    }
}

/// A counter that an interrupt signals and a thread waits for.
pub struct Event(OwnedFd);

impl Event {
    /// A counter at 0.
    ///
    /// # Errors
    /// Linux's.
    pub fn new() -> Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC)?))
    }

    /// Waits until it is signalled; how often it was.
    ///
    /// # Errors
    /// Linux's.
    pub fn wait(&self) -> Result<u64> {
        let mut count = [0; 8];
        read(&self.0, &mut count)?;
        Ok(u64::from_le_bytes(count))
    }

    /// Signals it.
    ///
    /// # Errors
    /// Linux's.
    pub fn signal(&self) -> Result<()> {
        rustix::io::write(&self.0, &1u64.to_le_bytes()).map(drop)
    }

    /// To hand to the driver.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
