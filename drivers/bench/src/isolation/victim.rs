//! A driver that works with its device until it is killed: others wait for the device.

use client::{ANY_IOVA, Access, Client, Error, Mechanism, PagePreference, Rule, Switch, Width};
use sel4_client::SeL4Platform;
use system::info::ClientInfo;
use system::layout::event;

use super::OurClient;

/// When the first driver begins, in microseconds since the timer service did: the phases before are over.
const BEGIN_MICROS: u64 = 10_000_000;
/// One driver's time: its device is reset at the end.
const SLOT_MICROS: u64 = 130_000;
/// Between two attempts to take the device: its last driver's end is not over.
const RETRY_MICROS: u64 = 200;

/// When the time of driver `number` begins.
pub const fn slot(number: u64) -> u64 {
    BEGIN_MICROS + number * SLOT_MICROS
}

/// Waits until a moment of the timer service's time.
///
/// # Errors
/// The timer service's refusal.
pub fn until(client: &OurClient, micros: u64) -> Result<(), Error> {
    let now = client.timer().now()?.micros;
    if let Some(left) = micros.checked_sub(now).filter(|left| *left > 0) {
        client.wait_for(0, left)?;
    }
    Ok(())
}

/// Driver `number`.
///
/// # Errors
/// A refusal.
pub fn run(
    platform: &'static SeL4Platform,
    info: &'static ClientInfo,
    number: &str,
) -> Result<(), Error> {
    let client = Client::connect(platform, info)?;
    until(&client, slot(number.parse().map_err(|_| Error::NotFound)?))?;
    let found = client.devices().next().ok_or(Error::NotFound)??;
    let device = loop {
        match client.assign(found.device) {
            Ok(device) => break device,
            Err(error) => match error.rule() {
                Some(Rule::DeviceBusy | Rule::HeldByAnother) => {
                    client.wait_for(0, RETRY_MICROS)?;
                }
                _ => return Err(error),
            },
        }
    };
    let buffer = client.buffer(4096, PagePreference::Small)?;
    buffer.map(ANY_IOVA, Access::ReadWrite)?;
    let _messages = device.enable_interrupts(Mechanism::MsiX, 0, 1, event::OWN)?;
    device.bus_master(Switch::On)?;
    loop {
        device.config_read(0, Width::Dword)?;
    }
}
