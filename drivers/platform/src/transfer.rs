//! A DMA transfer out of a buffer and back by an edu device, with completion
//! by MSI: the proof that a device works whole.

use client::{
    ANY_IOVA, Access, Device, Error, Mechanism, Memory, PagePreference, Registers, Switch,
};
use edu_driver::{COMPLETED, Completion, Edu, IDENTIFICATION, MOST};
use sel4_client::SeL4Platform;
use system::layout::event;

use crate::Probe;

/// A transfer takes 100 ms of the device's time.
const PATIENCE_MICROS: u64 = 5_000_000;

/// What came of it.
pub struct Outcome {
    /// Bytes that differ.
    pub wrong: usize,
    /// Transfers that were completed by an interrupt, of 2.
    pub completions: u32,
}

impl Outcome {
    /// Did everything work?
    pub fn is_whole(&self) -> bool {
        self.wrong == 0 && self.completions == 2
    }
}

/// Moves [`MOST`] bytes into the device and back.
pub fn round_trip(
    probe: &Probe,
    device: &Device<'_, 'static, SeL4Platform>,
) -> Result<Outcome, Error> {
    round_trip_over(probe, device, device.map_bar(0)?)
}

/// The same over registers that are mapped already; they are not afterwards.
pub fn round_trip_over(
    probe: &Probe,
    device: &Device<'_, 'static, SeL4Platform>,
    registers: Registers<'_, 'static, SeL4Platform>,
) -> Result<Outcome, Error> {
    let client = &probe.client;
    let mut edu = Edu(registers);
    if edu.identification() != IDENTIFICATION {
        return Err(Error::NotFound);
    }
    let buffer = client.buffer(2 * 4096, PagePreference::Small)?;
    let memory = buffer.memory().ok_or(Error::NotFound)?;
    let iova = buffer.map(ANY_IOVA, Access::ReadWrite)?;
    let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
    device.bus_master(Switch::On)?;
    let count = MOST as usize;
    let mut out = [0; 4096];
    out.iter_mut()
        .enumerate()
        .for_each(|(at, byte)| *byte = (at as u32).wrapping_mul(0x9e37_79b1).to_be_bytes()[0]);
    memory.write(0, &out);
    memory.write(4096, &[0; 4096]);
    let mut completions = 0;
    for transfer in 0..2 {
        match transfer {
            0 => edu.fetch(iova, 0, MOST, Completion::Interrupt),
            _ => edu.store(0, iova + 4096, MOST, Completion::Interrupt),
        }
        let came = client.wait_for(event::OWN, PATIENCE_MICROS)? != 0;
        let status = edu.raised();
        edu.acknowledge(status);
        completions += u32::from(came && status & COMPLETED != 0);
    }
    let mut back = [0; 4096];
    memory.read(4096, &mut back);
    let wrong = back
        .iter()
        .zip(&out)
        .take(count)
        .filter(|(got, sent)| got != sent)
        .count();
    interrupts.disable()?;
    device.bus_master(Switch::Off)?;
    Ok(Outcome { wrong, completions })
}
