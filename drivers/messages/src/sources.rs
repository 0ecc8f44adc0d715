//! [`Source`]: a device that sends a message when its driver says so; and the teaching device, which has one.

use client::{Device, Error, Mechanism, Mmio};
use edu_driver::{DEVICE, Edu, VENDOR};
use sel4_client::SeL4Platform;

use crate::{Probe, suite};

/// A device of this program.
pub type Card<'c> = Device<'c, 'static, SeL4Platform>;

/// A device whose messages are raised by writes to its registers.
pub trait Source {
    /// How long the device holds a second message back after it has sent one.
    const RECOVERY_MICROS: u64 = 0;

    /// Raises message `message`.
    fn raise(&mut self, message: u16);
    /// Does what the device wants before the message can be raised again.
    fn settle(&mut self, message: u16);
}

impl<M: Mmio> Source for Edu<M> {
    fn raise(&mut self, _message: u16) {
        Edu::raise(self, 1);
    }
    fn settle(&mut self, _message: u16) {
        let raised = self.raised();
        self.acknowledge(raised);
    }
}

/// The teaching device: one message, by MSI.
pub fn edu(probe: &Probe) -> Result<(), Error> {
    let device = probe.client.assign_ids(VENDOR, DEVICE)?;
    let mut edu = Edu(device.map_bar(0)?);
    device.bus_master(client::Switch::On)?;
    suite::run(probe, &device, Mechanism::Msi, 1, &mut edu)
}
