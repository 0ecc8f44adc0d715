//! [`Inspector`]: a PD that may look at everything (`inspect` in its
//! description), and [`Administrator`]: one that may administer (`admin`).
//!
//! [`Inspector::dump`] is the device dump with holders; [`Inspector::dump_hex`]
//! the form that `lspci -F` reads.

use core::fmt::Write;

use hw::Sbdf;
use ipc_proto::{BarKind, DeviceState, Refusal, Rule, WithheldCode, iommu, msi, pci, retry, timer};
use system::info::ClientInfo;
use system::layout::slot;

use crate::{Error, Platform};

/// A device and its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its address.
    pub device: Sbdf,
    /// Device id << 16 | vendor id.
    pub ids: u32,
    /// Class << 16 | subclass << 8 | interface.
    pub class: u32,
    /// Where it is in its life.
    pub state: DeviceState,
    /// The client that holds it.
    pub holder: Option<u16>,
    /// Frames of its BARs that were handed out.
    pub frames: u32,
    /// Messages that are enabled.
    pub messages: u16,
}

/// Looks at every server, and changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Inspector<'p, P> {
    platform: &'p P,
    info: &'p ClientInfo,
}

/// Bytes of configuration space that one request reads.
const CHUNK: u16 = 64;
/// Bytes of a function's configuration space, where it has extended capabilities.
const EXTENDED: u16 = 4096;
/// Between two looks at a device that is being reset.
const PAUSE_MICROS: u64 = 100_000;
/// Looks at it.
const TRIES: u32 = 30;

impl<'p, P: Platform> Inspector<'p, P> {
    /// `None`: the description does not let this PD look.
    pub fn new(platform: &'p P, info: &'p ClientInfo) -> Option<Self> {
        info.inspect.then_some(Self { platform, info })
    }

    pub(crate) fn info(&self) -> &'p ClientInfo {
        self.info
    }

    /// The stub of pci-server shard `shard`, to look at it.
    pub fn pci(&self, shard: u8) -> pci::Stub<P::Port> {
        pci::Stub(self.platform.port(slot::INSPECT_PCI + u64::from(shard)))
    }

    /// The stub of iommu-server shard `shard`, to look at it.
    pub fn iommu(&self, shard: u8) -> iommu::Stub<P::Port> {
        iommu::Stub(self.platform.port(slot::INSPECT_IOMMU + u64::from(shard)))
    }

    /// The stub of msi-server shard `shard`, to look at it.
    pub fn msi(&self, shard: u8) -> msi::Stub<P::Port> {
        msi::Stub(self.platform.port(slot::INSPECT_MSI + u64::from(shard)))
    }

    /// 64 bytes of configuration space from `offset`, as little-endian words. Waits for a device that is being reset,
    /// a few seconds at most.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn raw_config(&self, shard: u8, device: Sbdf, offset: u16) -> Result<[u64; 8], Refusal> {
        let mut tries = 0;
        loop {
            match self.pci(shard).raw_config(device, offset) {
                Ok(row) => {
                    return Ok([
                        row.w0, row.w1, row.w2, row.w3, row.w4, row.w5, row.w6, row.w7,
                    ]);
                }
                Err(refusal) if refusal.rule == Rule::DeviceBusy && tries < TRIES => {
                    tries += 1;
                    let timer = timer::Stub(self.platform.port(slot::TIMER));
                    timer.arm(PAUSE_MICROS)?;
                    self.platform.wait();
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// Every function of pci-server shard `shard`, in order of addresses, whoever holds it.
    pub fn functions(&self, shard: u8) -> impl Iterator<Item = Result<Held, Error>> + '_ {
        let mut index = Some(0u32);
        core::iter::from_fn(move || {
            let at = index?;
            let row = retry(|| self.pci(shard).holder(at));
            index = match &row {
                Ok(_) => index.and_then(|index| index.checked_add(1)),
                Err(_) => None,
            };
            match row {
                Ok(row) => Some(Ok(Held {
                    device: row.device,
                    ids: row.ids,
                    class: row.class,
                    state: row.state,
                    holder: row.holder.checked_sub(1),
                    frames: row.frames,
                    messages: row.messages,
                })),
                Err(refusal) if refusal.rule == Rule::EndOfList => None,
                Err(refusal) => Some(Err(refusal.into())),
            }
        })
    }

    /// Says each function with its holder, one line a function, to `line`; gives their number.
    ///
    /// # Errors
    /// A server's refusal.
    pub fn dump(&self, mut line: impl FnMut(&str)) -> Result<u32, Error> {
        let mut count = 0;
        for &(shard, ..) in &self.info.pci {
            for (index, held) in (0..).zip(self.functions(shard)) {
                let held = held?;
                count += 1;
                let mut text = heapless::String::<480>::new();
                // A line that is too long is cut.
                let _ = self.describe(&mut text, shard, index, &held);
                line(&text);
            }
        }
        Ok(count)
    }

    fn describe(
        &self,
        text: &mut impl Write,
        shard: u8,
        index: u32,
        held: &Held,
    ) -> core::fmt::Result {
        let (vendor, device) = (held.ids & 0xffff, held.ids >> 16);
        write!(
            text,
            "{} [{:06x}] {vendor:04x}:{device:04x} {:?}",
            held.device, held.class, held.state
        )?;
        if let Ok(why) = self.pci(shard).why(held.device)
            && why.code != WithheldCode::No
        {
            write!(text, " ({:?})", why.code)?;
        }
        for bar in 0..=6 {
            if let Ok(region) = self.pci(shard).holder_bar(index, bar)
                && region.kind != BarKind::None
            {
                write!(text, " {bar}:{:#x}+{:#x}", region.base, region.bytes)?;
            }
        }
        if let Some(holder) = held.holder {
            let name = self.info.clients.get(usize::from(holder));
            match name {
                Some(name) => write!(text, " held by {name}")?,
                None => write!(text, " held by client {holder}")?,
            }
            write!(text, ", {} pages, {} messages", held.frames, held.messages)?;
        }
        for at in 0..64 {
            let Ok(view) = self.pci(shard).view_at(at) else {
                break;
            };
            if view.device == held.device {
                write!(
                    text,
                    ", narrowed to config {:?} bars {:#04x} messages {} control {:?}",
                    view.config, view.bars, view.messages, view.control
                )?;
            }
        }
        Ok(())
    }

    /// Says configuration space of every function in the form that `lspci -F` reads, line by line.
    ///
    /// # Errors
    /// A server's refusal.
    pub fn dump_hex(&self, mut line: impl FnMut(&str)) -> Result<(), Error> {
        for &(shard, ..) in &self.info.pci {
            for held in self.functions(shard) {
                let held = held?;
                let mut text = heapless::String::<80>::new();
                let _ = write!(text, "{} function", held.device);
                line(&text);
                for offset in (0..EXTENDED).step_by(CHUNK.into()) {
                    let words = match self.raw_config(shard, held.device, offset) {
                        Ok(words) => words,
                        // A function with 256 bytes only.
                        Err(refusal) if refusal.rule == Rule::OutsideShard => break,
                        Err(refusal) => return Err(refusal.into()),
                    };
                    for (number, pair) in (0u16..).zip(words.chunks_exact(2)) {
                        let mut text = heapless::String::<80>::new();
                        let _ = write!(text, "{:02x}:", offset + 16 * number);
                        for byte in pair.iter().flat_map(|word| word.to_le_bytes()) {
                            let _ = write!(text, " {byte:02x}");
                        }
                        line(&text);
                    }
                }
                line("");
            }
        }
        Ok(())
    }
}

/// Administers the platform.
#[derive(Clone, Copy, Debug)]
pub struct Administrator<'p, P> {
    platform: &'p P,
}

impl<'p, P: Platform> Administrator<'p, P> {
    /// `None`: the description does not let this PD administer.
    pub fn new(platform: &'p P, info: &ClientInfo) -> Option<Self> {
        info.admin.then_some(Self { platform })
    }

    /// The stub of pci-server shard `shard`, to administer it.
    pub fn pci(&self, shard: u8) -> pci::Stub<P::Port> {
        pci::Stub(self.platform.port(slot::ADMIN_PCI + u64::from(shard)))
    }
}
