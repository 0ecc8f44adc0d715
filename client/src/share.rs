//! What a holder does with its device besides using it: [`Device::narrow`] for
//! another PD, [`Device::virtual_functions`], resets of a whole bus, registers
//! on withheld pages, and masks of single messages.

use hw::Sbdf;
use ipc_proto::{ConfigRight, Switch, Width, pci, retry};

use crate::device::clear;
use crate::{Client, Device, Error, Interrupts, Platform, Run};

/// What a narrowed capability allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// What of configuration space.
    pub config: ConfigRight,
    /// Which BARs: one bit each.
    pub bars: u8,
    /// How many messages it may enable.
    pub messages: u16,
    /// Bus mastering, reset and release?
    pub control: Switch,
}

/// A narrowed capability of a device, in this PD's window. Dropping it empties the slot; copies elsewhere stay
/// until the device is released.
pub struct Narrowed<'c, 'p, P: Platform> {
    client: &'c Client<'p, P>,
    run: Run,
}

impl<'c, 'p, P: Platform> Narrowed<'c, 'p, P> {
    /// One that another client handed on.
    pub(crate) fn received(client: &'c Client<'p, P>, run: Run) -> Self {
        Self { client, run }
    }
}

impl<P: Platform> Narrowed<'_, '_, P> {
    /// Its window slot.
    pub fn slot(&self) -> u16 {
        self.run.first
    }

    /// The capability, as a stub.
    pub fn port(&self) -> pci::Stub<P::Port> {
        pci::Stub(self.client.platform().window_port(self.run.first))
    }
}

impl<P: Platform> Drop for Narrowed<'_, '_, P> {
    fn drop(&mut self) {
        clear(self.client, self.run);
    }
}

impl<'c, 'p, P: Platform> Device<'c, 'p, P> {
    /// Makes a narrower capability of the device, to be handed on.
    ///
    /// # Errors
    /// The server's refusal, or [`Error::WindowFull`].
    pub fn narrow(&self, rights: Rights) -> Result<Narrowed<'c, 'p, P>, Error> {
        let client = self.client();
        let run = client.window().take(1).ok_or(Error::WindowFull(1))?;
        let narrowed = Narrowed { client, run };
        self.port().narrow(
            rights.config,
            rights.bars,
            rights.messages,
            rights.control,
            run.first,
        )?;
        Ok(narrowed)
    }

    /// Enables `count` virtual functions (0: none); gives the address of the first and the distance between two.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn virtual_functions(&self, count: u16) -> Result<(Sbdf, u16), Error> {
        let reply = retry(|| self.port().virtual_functions(count))?;
        Ok((reply.first, reply.stride))
    }

    /// Agrees that the bus of the device is reset; gives how many functions on it still object.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn agree_bus_reset(&self) -> Result<u16, Error> {
        Ok(retry(|| self.port().agree_bus_reset())?.missing)
    }

    /// Resets the bus of the device and waits until all functions on it are back; gives their number.
    ///
    /// # Errors
    /// [`ipc_proto::Rule::NotAgreed`] while a holder of another function objects.
    pub fn bus_reset(&self) -> Result<u16, Error> {
        Ok(retry(|| self.port().bus_reset())?.functions)
    }

    /// Reads a register of a memory BAR on a withheld page.
    ///
    /// # Errors
    /// The server's refusal; the interrupt messages themselves are never read.
    pub fn bar_read(&self, bar: u8, offset: u64, width: Width) -> Result<u32, Error> {
        Ok(retry(|| self.port().bar_read(bar, offset, width))?.value)
    }

    /// Writes a register of a memory BAR on a withheld page.
    ///
    /// # Errors
    /// The server's refusal; the interrupt messages themselves are never written.
    pub fn bar_write(&self, bar: u8, offset: u64, width: Width, value: u32) -> Result<(), Error> {
        retry(|| self.port().bar_write(bar, offset, width, value))?;
        Ok(())
    }
}

impl<P: Platform> Interrupts<'_, '_, '_, P> {
    /// Masks (`Switch::On`) or unmasks `count` messages from `first`. One that was raised meanwhile arrives after the
    /// unmasking, once. Unmasking lets a message come again that was switched off because it came too often
    /// ([`crate::EventKind::MessageOff`]): its flag is signalled once then, whatever came meanwhile.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn mask(&self, first: u16, count: u16, switch: Switch) -> Result<(), Error> {
        retry(|| self.device().port().msi_mask(first, count, switch))?;
        Ok(())
    }

    /// Pending bits of up to 64 messages from `first`.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn pending(&self, first: u16, count: u16) -> Result<u64, Error> {
        Ok(retry(|| self.device().port().msi_pending(first, count))?.pending)
    }
}
