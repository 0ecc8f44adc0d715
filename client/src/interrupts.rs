//! [`Interrupts`]: messages of a held device; and [`Line`]: the line that its interrupt pin is wired to.

use ipc_proto::pci::{IntxDisableReply, MsiDisableReply};
use ipc_proto::{Delivery, Mechanism, Refusal, Rule, retry};

use crate::device::{clear, empty};
use crate::{Device, Error, Platform, Run, again};

impl<'c, 'p, P: Platform> Device<'c, 'p, P> {
    /// Enables `count` messages (MSI-X: from table entry `first`). The n-th of them signals `flags << n` on the PD's
    /// event notification.
    ///
    /// # Errors
    /// The rule that forbids it, no room in the window, or the kernel's error.
    pub fn enable_interrupts(
        &self,
        mechanism: Mechanism,
        first: u16,
        count: u16,
        flags: u64,
    ) -> Result<Interrupts<'_, 'c, 'p, P>, Error> {
        self.enable_interrupts_with(mechanism, first, count, |n| {
            flags.checked_shl(n.into()).unwrap_or(0)
        })
    }

    /// As [`Self::enable_interrupts`]; the n-th message signals `flags(n)`. Several may signal the same flag.
    ///
    /// # Errors
    /// The same.
    pub fn enable_interrupts_with(
        &self,
        mechanism: Mechanism,
        first: u16,
        count: u16,
        flags: impl Fn(u16) -> u64,
    ) -> Result<Interrupts<'_, 'c, 'p, P>, Error> {
        let client = self.client();
        let run = client
            .window()
            .take(count)
            .ok_or(Error::WindowFull(u32::from(count)))?;
        let enabled = again::give(
            || {
                let _ = disable(self);
                empty(client, run);
            },
            || self.port().msi_enable(mechanism, first, count, run.first),
        );
        let delivery = enabled
            .inspect_err(|_| client.window().give_back(run))?
            .delivery;
        let interrupts = Interrupts {
            device: self,
            first,
            run,
            delivery,
        };
        (0..count).try_for_each(|n| interrupts.bind(n, flags(n)))?;
        Ok(interrupts)
    }

    /// Lets the device raise its interrupt pin, where it sends no messages. Each time `system::layout::event::LINE` is
    /// signalled: look at the device, then [`Line::acknowledge`].
    ///
    /// # Errors
    /// [`Rule::NoInterruptPin`]; [`Rule::NoInterruptRoute`] where the description does not say how the pin is wired.
    pub fn enable_line(&self) -> Result<Line<'_, 'c, 'p, P>, Error> {
        let enabled = again::give(
            || {
                let _ = retry(|| self.port().intx_disable());
            },
            || self.port().intx_enable(),
        );
        let number = enabled?.line;
        Ok(Line {
            device: self,
            number,
        })
    }
}

/// Enabled interrupts of a device. Dropping disables them and frees the vectors.
pub struct Interrupts<'d, 'c, 'p, P: Platform> {
    device: &'d Device<'c, 'p, P>,
    /// Number of the first message.
    first: u16,
    run: Run,
    delivery: Delivery,
}

impl<'d, 'c, 'p, P: Platform> Interrupts<'d, 'c, 'p, P> {
    /// Their device.
    pub(crate) fn device(&self) -> &'d Device<'c, 'p, P> {
        self.device
    }

    /// How they come: from the kernel, or counted and passed on by the msi-server, as the description wants it.
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// First window slot of the interrupt handlers. Nothing is there of messages that the msi-server passes on.
    pub fn first_slot(&self) -> u16 {
        self.run.first
    }

    /// Sends `count` messages from number `first` (as they were enabled: MSI-X counts table entries) to another core from
    /// now on. None is lost. Messages of MSI go together.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn move_to(&self, first: u16, count: u16, core: u8) -> Result<(), Error> {
        retry(|| self.device.port().msi_affinity(first, count, core))?;
        Ok(())
    }

    /// Lets the `n`-th message signal `flags` from now on: no message is lost, and no server is asked where none is on the
    /// way. It may be a flag that others signal, too.
    ///
    /// # Errors
    /// [`Rule::MessageNotEnabled`], or the kernel's error.
    pub fn bind(&self, n: u16, flags: u64) -> Result<(), Error> {
        if n >= self.run.count {
            return Err(Refusal::new(Rule::MessageNotEnabled, n.into()).into());
        }
        match self.delivery {
            Delivery::Direct => {
                let platform = self.device.client().platform();
                platform.bind_interrupt(self.run.first.saturating_add(n), flags)?;
            }
            Delivery::Metered => {
                let message = self.first.saturating_add(n);
                retry(|| self.device.port().msi_bind(message, flags))?;
            }
        }
        Ok(())
    }

    /// Disables them and frees the vectors.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn disable(self) -> Result<(), Error> {
        let disabled = disable(self.device);
        clear(self.device.client(), self.run);
        core::mem::forget(self);
        disabled?;
        Ok(())
    }

    /// Forgets them without disabling: they stay until the device goes.
    pub fn keep(self) {
        core::mem::forget(self);
    }
}

impl<P: Platform> Drop for Interrupts<'_, '_, '_, P> {
    fn drop(&mut self) {
        // A refusal here means that they are gone already.
        let _ = disable(self.device);
        clear(self.device.client(), self.run);
    }
}

/// Disables the messages of a device.
fn disable<P: Platform>(device: &Device<'_, '_, P>) -> Result<MsiDisableReply, Refusal> {
    again::take(MsiDisableReply {}, || device.port().msi_disable())
}

/// The interrupt line of a device, which others may share. Dropping it switches the device's pin off.
pub struct Line<'d, 'c, 'p, P: Platform> {
    device: &'d Device<'c, 'p, P>,
    number: u16,
}

impl<P: Platform> Line<'_, '_, '_, P> {
    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The device has been looked at and does not raise the line (any more): it may come again. To be said within half a
    /// second, also when it was another device: who does not is taken off the line ([`crate::EventKind::LineOff`]).
    ///
    /// # Errors
    /// [`Rule::NotOnLine`] after that.
    pub fn acknowledge(&self) -> Result<(), Error> {
        let lines = self.device.client().msi(0);
        retry(|| lines.line_ack(self.device.address()))?;
        Ok(())
    }

    /// Switches the device's pin off.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn disable(self) -> Result<(), Error> {
        let disabled = again::take(IntxDisableReply {}, || self.device.port().intx_disable());
        core::mem::forget(self);
        disabled?;
        Ok(())
    }
}

impl<P: Platform> Drop for Line<'_, '_, '_, P> {
    fn drop(&mut self) {
        // A refusal here means that it was taken off already.
        let _ = retry(|| self.device.port().intx_disable());
    }
}
