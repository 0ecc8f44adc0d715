//! [`Buffer`]: DMA memory, seen by the PD and, once mapped, by its devices.

use hw::Sbdf;
use ipc_proto::iommu::{FreeReply, UnmapReply};
use ipc_proto::{Access, PagePreference, Refusal, iommu, retry};

use crate::device::empty;
use crate::{Client, Error, Platform, Run, again};

/// A blocked DMA of a device of this PD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Requester.
    pub device: Sbdf,
    /// I/O virtual address.
    pub address: u64,
    /// What was tried.
    pub access: Access,
    /// The unit's reason code (VT-d specification, 7.1.3).
    pub reason: u8,
    /// Faults since the last record that could not be kept.
    pub lost: u32,
}

/// Small pages are of 2^this bytes.
const SMALL_BITS: u8 = 12;

/// DMA memory. Dropping it unmaps it everywhere and gives it back.
pub struct Buffer<'c, 'p, P: Platform> {
    client: &'c Client<'p, P>,
    memory: Option<P::Memory>,
    capability: Run,
    frames: Run,
    page_bits: u8,
    origin: Origin,
    held: bool,
}

/// Whose memory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// This PD's: freeing it takes every capability of it, and every mapping, everywhere.
    Own,
    /// Another's, who keeps it: the frames that lie here stay when the share is given back.
    Imported,
}

impl<'c, 'p, P: Platform> Buffer<'c, 'p, P> {
    /// Memory that can be shared.
    pub(crate) fn allocate(
        client: &'c Client<'p, P>,
        bytes: u64,
        pages: PagePreference,
    ) -> Result<Self, Error> {
        let server = client.iommu()?;
        let capability = client.window().take(1).ok_or(Error::WindowFull(1))?;
        let undo = || give_up(client, capability);
        match again::give(undo, || server.alloc(bytes, pages, capability.first)) {
            Ok(reply) => {
                let shape = (reply.page_bits, reply.pages);
                Self::from_capability(client, capability, Origin::Own, shape)
            }
            Err(refusal) => {
                client.window().give_back(capability);
                Err(refusal.into())
            }
        }
    }

    /// Memory of small pages for this PD alone: one request.
    pub(crate) fn allocate_private(client: &'c Client<'p, P>, bytes: u64) -> Result<Self, Error> {
        let server = client.iommu()?;
        let count = match u16::try_from(bytes >> SMALL_BITS) {
            Ok(count) if count > 0 => client.window().take(count.saturating_add(1)),
            _ => None,
        };
        let Some(run) = count else {
            // The server may have a better reason to refuse it.
            return Self::allocate(client, bytes, PagePreference::Small);
        };
        let capability = Run { count: 1, ..run };
        let frames = Run {
            first: run.first + 1,
            count: run.count - 1,
        };
        let undo = || {
            give_up(client, capability);
            empty(client, frames);
        };
        let ask = || server.alloc_private(bytes, capability.first, frames.first);
        if let Err(refusal) = again::give(undo, ask) {
            client.window().give_back(run);
            return Err(refusal.into());
        }
        // From here on dropping `buffer` undoes what was done.
        let mut buffer = Self {
            client,
            memory: None,
            capability,
            frames,
            page_bits: SMALL_BITS,
            origin: Origin::Own,
            held: true,
        };
        buffer.map_here()?;
        Ok(buffer)
    }

    /// Makes another PD's buffer usable here: `capability` is the address of its buffer capability in this CSpace.
    ///
    /// # Errors
    /// The rule that forbids it, no room in the window, or the kernel's error.
    pub fn import(client: &'c Client<'p, P>, capability: u64) -> Result<Self, Error> {
        let server = client.iommu()?;
        let own = client.window().take(1).ok_or(Error::WindowFull(1))?;
        let undo = || give_up(client, own);
        match again::give(undo, || server.import(own.first, capability)) {
            Ok(reply) => {
                let shape = (reply.page_bits, reply.pages);
                Self::from_capability(client, own, Origin::Imported, shape)
            }
            Err(refusal) => {
                client.window().give_back(own);
                Err(refusal.into())
            }
        }
    }

    fn from_capability(
        client: &'c Client<'p, P>,
        capability: Run,
        origin: Origin,
        (page_bits, pages): (u8, u32),
    ) -> Result<Self, Error> {
        // From here on dropping `buffer` undoes what was done.
        let mut buffer = Self {
            client,
            memory: None,
            capability,
            frames: Run { first: 0, count: 0 },
            page_bits,
            origin,
            held: true,
        };
        let count = u16::try_from(pages).map_err(|_| Error::WindowFull(pages))?;
        buffer.frames = client
            .window()
            .take(count)
            .ok_or(Error::WindowFull(pages))?;
        let frames = buffer.frames;
        again::give(
            || empty(client, frames),
            || buffer.port().frames(0, count, frames.first),
        )?;
        buffer.map_here()?;
        Ok(buffer)
    }

    /// Maps its frames in this PD.
    fn map_here(&mut self) -> Result<(), Error> {
        let Run { first, count } = self.frames;
        let platform = self.client.platform();
        self.memory = Some(platform.map_memory(first, count, self.page_bits)?);
        Ok(())
    }

    /// The capability itself, as a stub.
    #[inline(always)]
    pub fn port(&self) -> iommu::Stub<P::Port> {
        iommu::Stub(self.client.platform().window_port(self.capability.first))
    }

    /// Window slot of the buffer capability.
    pub fn slot(&self) -> u16 {
        self.capability.first
    }

    /// Window slots of the frames.
    pub fn frame_slots(&self) -> Run {
        self.frames
    }

    /// The memory, mapped in this PD.
    pub fn memory(&self) -> Option<&P::Memory> {
        self.memory.as_ref()
    }

    /// Lets this PD's devices reach the buffer at `iova` (or [`ipc_proto::ANY_IOVA`]); the address it got.
    ///
    /// # Errors
    /// The rule that forbids it.
    #[inline(always)]
    pub fn map(&self, iova: u64, access: Access) -> Result<u64, Error> {
        self.map_in(iova, access, 0)
    }

    /// As [`Self::map`], in the context of one device ([`crate::Device::context`]).
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn map_for(
        &self,
        device: &crate::Device<'_, '_, P>,
        iova: u64,
        access: Access,
    ) -> Result<u64, Error> {
        self.map_in(iova, access, device.context())
    }

    #[inline(always)]
    fn map_in(&self, iova: u64, access: Access, context: u16) -> Result<u64, Error> {
        let undo = || {
            let _ = retry(|| self.port().unmap());
        };
        Ok(again::give(undo, || self.port().map(iova, access, context))?.iova)
    }

    /// Takes that away; when this returns no device reaches the buffer.
    ///
    /// # Errors
    /// The rule that forbids it.
    #[inline(always)]
    pub fn unmap(&self) -> Result<(), Error> {
        again::take(UnmapReply {}, || self.port().unmap())?;
        Ok(())
    }

    /// Gives the memory back.
    ///
    /// # Errors
    /// The server's refusal; the buffer is not held any more all the same.
    pub fn free(mut self) -> Result<(), Error> {
        self.release()
    }

    /// Forgets the buffer without freeing it: it stays with the PD until the PD's end.
    pub fn keep(mut self) {
        self.held = false;
    }

    fn release(&mut self) -> Result<(), Error> {
        self.held = false;
        let freed = self.port().free();
        if self.origin == Origin::Imported || freed.is_err() {
            return self.release_piecemeal(freed);
        }
        // The revocation has unmapped every frame and emptied every slot.
        if let Some(mut memory) = self.memory.take() {
            let platform = self.client.platform();
            platform.forget_memory(&mut memory, self.frames.count, self.page_bits);
        }
        self.give_slots_back();
        Ok(())
    }

    /// The rest of [`Self::release`], after the server's answer: of a share, and where freeing was refused or broken off.
    #[cold]
    fn release_piecemeal(&mut self, freed: Result<FreeReply, Refusal>) -> Result<(), Error> {
        let platform = self.client.platform();
        if let Some(mut memory) = self.memory.take() {
            platform.unmap_memory(
                &mut memory,
                self.frames.first,
                self.frames.count,
                self.page_bits,
            );
        }
        let mut answered = Some(freed);
        let freed = again::take(FreeReply {}, || {
            answered.take().unwrap_or_else(|| self.port().free())
        });
        empty(self.client, self.frames);
        empty(self.client, self.capability);
        self.give_slots_back();
        freed?;
        Ok(())
    }

    fn give_slots_back(&self) {
        self.client.window().give_back(self.frames);
        self.client.window().give_back(self.capability);
    }
}

impl<P: Platform> Drop for Buffer<'_, '_, P> {
    fn drop(&mut self) {
        if self.held {
            // A refusal here means that it was taken back already.
            let _ = self.release();
        }
    }
}

/// Takes back the buffer whose capability a request that was broken off may have placed.
fn give_up<P: Platform>(client: &Client<'_, P>, capability: Run) {
    let port = iommu::Stub(client.platform().window_port(capability.first));
    // A refusal: there is none.
    let _ = retry(|| port.free());
    empty(client, capability);
}
