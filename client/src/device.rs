//! [`Device`]: a held device, and what is reached through it:
//! [`Registers`] (a mapped part of a BAR).

use core::ops::Deref;

use hw::Sbdf;
use ipc_proto::pci::ReleaseReply;
use ipc_proto::{
    BarKind, ContextChoice, DeviceState, Properties, Refusal, ResetKind, Rule, Switch, Width, pci,
    retry,
};

use crate::{Client, Error, Platform, Run, again};

/// Bits of a page, and of a large one.
const SMALL_BITS: u8 = 12;
const LARGE_BITS: u8 = 21;

/// A device that the description grants this PD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its address.
    pub device: Sbdf,
    /// Device id << 16 | vendor id.
    pub ids: u32,
    /// Class << 16 | subclass << 8 | interface.
    pub class: u32,
    /// Where it is in its life.
    pub state: DeviceState,
}

/// What a BAR is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarInfo {
    /// Kind.
    pub kind: BarKind,
    /// Size in bytes, 0 for none.
    pub bytes: u64,
    /// First page of 4 KiB that is withheld (interrupt messages).
    pub withheld_first: u32,
    /// How many are.
    pub withheld_count: u32,
}

/// A held device. Dropping it releases it.
pub struct Device<'c, 'p, P: Platform> {
    client: &'c Client<'p, P>,
    address: Sbdf,
    properties: Properties,
    context: u16,
    run: Run,
    held: bool,
}

impl<'c, 'p, P: Platform> Device<'c, 'p, P> {
    pub(crate) fn assign(
        client: &'c Client<'p, P>,
        address: Sbdf,
        context: ContextChoice,
    ) -> Result<Self, Error> {
        let shard = client.shard_of(address)?;
        let run = client.window().take(1).ok_or(Error::WindowFull(1))?;
        let undo = || {
            let port = pci::Stub(client.platform().window_port(run.first));
            // A refusal: there is no device.
            let _ = retry(|| port.release());
            empty(client, run);
        };
        let shard = client.pci(shard);
        match again::give(undo, || shard.assign(address, run.first, context)) {
            Ok(reply) => Ok(Self {
                client,
                address,
                properties: reply.properties,
                context: reply.context,
                run,
                held: true,
            }),
            Err(refusal) => {
                client.window().give_back(run);
                Err(refusal.into())
            }
        }
    }

    /// The connection it was taken through.
    pub(crate) fn client(&self) -> &'c Client<'p, P> {
        self.client
    }

    /// The capability itself, as a stub.
    #[inline(always)]
    pub fn port(&self) -> pci::Stub<P::Port> {
        pci::Stub(self.client.platform().window_port(self.run.first))
    }

    /// Window slot of the device capability.
    pub fn slot(&self) -> u16 {
        self.run.first
    }

    /// Its address.
    pub fn address(&self) -> Sbdf {
        self.address
    }

    /// What the assignment promises.
    pub fn properties(&self) -> Properties {
        self.properties
    }

    /// Number of the context that its DMA goes through: 0, the one that all devices of this PD share, or one of
    /// its own. [`crate::Buffer::map_for`] wants it.
    pub fn context(&self) -> u16 {
        self.context
    }

    /// Reads configuration space; `offset` in bytes, aligned to the width.
    ///
    /// # Errors
    /// The rule that forbids it.
    #[inline(always)]
    pub fn config_read(&self, offset: u16, width: Width) -> Result<u32, Error> {
        Ok(retry(|| self.port().config_read(offset, width))?.value)
    }

    /// Writes configuration space through the register policy.
    ///
    /// # Errors
    /// The rule that forbids it.
    #[inline(always)]
    pub fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), Error> {
        retry(|| self.port().config_write(offset, width, value))?;
        Ok(())
    }

    /// Kind and size of a BAR (0..=5).
    ///
    /// # Errors
    /// [`ipc_proto::Rule::NoSuchBar`].
    pub fn bar(&self, bar: u8) -> Result<BarInfo, Error> {
        let reply = retry(|| self.port().bar(bar))?;
        Ok(BarInfo {
            kind: reply.kind,
            bytes: reply.bytes,
            withheld_first: reply.withheld_first,
            withheld_count: reply.withheld_count,
        })
    }

    /// Maps a whole memory BAR that has no withheld pages.
    ///
    /// # Errors
    /// The rule that forbids it, no room in the window, or the kernel's error.
    pub fn map_bar(&self, bar: u8) -> Result<Registers<'_, 'p, P>, Error> {
        let bytes = self.bar(bar)?.bytes;
        let pages = u16::try_from(bytes.div_ceil(4096)).map_err(|_| Error::BarSize(bytes))?;
        // For a BAR of no bytes the server has the refusal.
        let pages = pages.max(1);
        self.map_bar_pages(bar, 0, pages)
    }

    /// Maps `count` pages of 4 KiB of a memory BAR from page `first`.
    ///
    /// # Errors
    /// The rule that forbids it, no room in the window, or the kernel's error.
    pub fn map_bar_pages(
        &self,
        bar: u8,
        first: u32,
        count: u16,
    ) -> Result<Registers<'_, 'p, P>, Error> {
        self.map_frames(count, SMALL_BITS, |done, count, slot| {
            let first = first.saturating_add(done.into());
            let ask = || self.port().bar_frames(bar, first, count, slot);
            Ok(again::give(|| self.empty(slot, count), ask)?.placed)
        })
    }

    /// Maps a whole memory BAR by frames of 2 MiB, one window slot each. The system description must want it alone in
    /// large pages (`large_bars`): what is mapped may end behind the BAR, where nothing answers.
    ///
    /// # Errors
    /// The rule that forbids it ([`ipc_proto::Rule::NotLarge`]), no room in the window, or the kernel's error.
    pub fn map_bar_large(&self, bar: u8) -> Result<Registers<'_, 'p, P>, Error> {
        let bytes = self.bar(bar)?.bytes;
        let pages = u16::try_from(bytes.div_ceil(1 << LARGE_BITS));
        // For a BAR of no bytes the server has the refusal.
        let pages = pages.map_err(|_| Error::BarSize(bytes))?.max(1);
        self.map_frames(pages, LARGE_BITS, |done, count, slot| {
            let ask = || self.port().bar_large(bar, done, count, slot);
            Ok(again::give(|| self.empty(slot, count), ask)?.placed)
        })
    }

    /// Empties window slots that a request which was broken off may have filled.
    fn empty(&self, first: u16, count: u16) {
        empty(self.client, Run { first, count });
    }

    /// Maps frames that `place` puts in a run of window slots: (those that are there already, how many more, slot) to how
    /// many it placed.
    fn map_frames(
        &self,
        count: u16,
        page_bits: u8,
        place: impl Fn(u16, u16, u16) -> Result<u16, Refusal>,
    ) -> Result<Registers<'_, 'p, P>, Error> {
        let client = self.client;
        let run = client
            .window()
            .take(count)
            .ok_or(Error::WindowFull(u32::from(count)))?;
        let mapped = place_all(run, place).map_err(Error::from).and_then(|()| {
            Ok(client
                .platform()
                .map_registers(run.first, count, page_bits)?)
        });
        match mapped {
            Ok(registers) => Ok(Registers {
                client,
                registers,
                run,
                page_bits,
            }),
            Err(error) => {
                clear(client, run);
                Err(error)
            }
        }
    }

    /// Lets the device issue memory requests, or stops it.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn bus_master(&self, switch: Switch) -> Result<(), Error> {
        retry(|| self.port().bus_master(switch))?;
        Ok(())
    }

    /// Resets the device and waits until it is back.
    ///
    /// # Errors
    /// [`ipc_proto::Rule::NoReset`], [`ipc_proto::Rule::ResetTimeout`].
    pub fn reset(&self) -> Result<ResetKind, Error> {
        Ok(retry(|| self.port().reset())?.kind)
    }

    /// Gives the device back. When this returns, nothing of it is left with this PD.
    ///
    /// # Errors
    /// The server's refusal; the device is not held any more all the same.
    pub fn release(mut self) -> Result<(), Error> {
        self.held = false;
        let released = again::take(ReleaseReply {}, || self.port().release());
        clear(self.client, self.run);
        released?;
        Ok(())
    }

    /// Forgets the device without releasing it: it stays with the PD until the PD's end.
    pub fn keep(mut self) {
        self.held = false;
    }
}

impl<P: Platform> Drop for Device<'_, '_, P> {
    fn drop(&mut self) {
        if self.held {
            // A refusal here means that the device was taken back already.
            let _ = retry(|| self.port().release());
            clear(self.client, self.run);
        }
    }
}

/// Has frames placed in a whole run of window slots: one request places some of them.
fn place_all(
    run: Run,
    place: impl Fn(u16, u16, u16) -> Result<u16, Refusal>,
) -> Result<(), Refusal> {
    let mut done = 0;
    while done < run.count {
        let placed = place(done, run.count - done, run.first + done)?;
        // A server that places nothing and says so would keep us here.
        if placed == 0 || placed > run.count - done {
            return Err(Refusal::new(Rule::BadReply, placed.into()));
        }
        done += placed;
    }
    Ok(())
}

/// Empties window slots, which stay taken.
pub(crate) fn empty<P: Platform>(client: &Client<'_, P>, run: Run) {
    (run.first..run.first.saturating_add(run.count)).for_each(|slot| client.platform().clear(slot));
}

pub(crate) fn clear<P: Platform>(client: &Client<'_, P>, run: Run) {
    empty(client, run);
    client.window().give_back(run);
}

/// Mapped registers of a device. Dropping unmaps them. They cannot outlive the
/// [`Device`]: releasing it takes the frames away.
pub struct Registers<'c, 'p, P: Platform> {
    client: &'c Client<'p, P>,
    registers: P::Registers,
    run: Run,
    page_bits: u8,
}

impl<P: Platform> Registers<'_, '_, P> {
    /// First window slot of the frames.
    pub fn first_slot(&self) -> u16 {
        self.run.first
    }
}

impl<P: Platform> Deref for Registers<'_, '_, P> {
    type Target = P::Registers;
    fn deref(&self) -> &P::Registers {
        &self.registers
    }
}

impl<P: Platform> hw::Mmio for Registers<'_, '_, P> {
    fn len(&self) -> usize {
        self.registers.len()
    }
    #[inline(always)]
    fn read32(&self, offset: usize) -> u32 {
        self.registers.read32(offset)
    }
    #[inline(always)]
    fn read64(&self, offset: usize) -> u64 {
        self.registers.read64(offset)
    }
    #[inline(always)]
    fn write32(&mut self, offset: usize, value: u32) {
        self.registers.write32(offset, value);
    }
    #[inline(always)]
    fn write64(&mut self, offset: usize, value: u64) {
        self.registers.write64(offset, value);
    }
}

impl<P: Platform> Drop for Registers<'_, '_, P> {
    fn drop(&mut self) {
        self.client.platform().unmap_registers(
            &mut self.registers,
            self.run.first,
            self.run.count,
            self.page_bits,
        );
        clear(self.client, self.run);
    }
}
