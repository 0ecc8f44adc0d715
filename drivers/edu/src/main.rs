//! Driver of QEMU's teaching device: moves bytes out of a DMA buffer and back
//! through the IOMMU, with completion by MSI, and compares them.
//!
//! Arguments: nothing; `die` to fault in the middle of a transfer into memory
//! (for the test that a dead client's device is taken back whole); `refused`
//! on a machine without an IOMMU, where the device must be refused;
//! `unprotected` there, where the description gives it all the same.

#![no_std]
#![no_main]

use client::report::check;
use client::{
    ANY_IOVA, Access, Client, Error, Mechanism, Memory, PagePreference, Platform, Rule, Switch,
};
use edu_driver::{COMPLETED, Completion, DEVICE, Edu, IDENTIFICATION, MOST, VENDOR};
use sel4_client::SeL4Platform;
use system::info::ClientInfo;
use system::layout::event;

sel4_client::program!(main);

/// A transfer takes 100 ms of the device's time.
const TRANSFER_MICROS: u64 = 5_000_000;
const SENTINEL: u8 = 0x5a;

fn main(platform: &'static SeL4Platform, info: &'static ClientInfo) -> u32 {
    match drive(platform, info) {
        Ok(()) => 0,
        Err(error) if info.args == "refused" => {
            check(
                platform,
                "refused_without_iommu",
                error.rule() == Some(Rule::NoIommu),
                format_args!("{error}"),
            );
            0
        }
        Err(error) => {
            check(platform, "dma_round_trip", false, format_args!("{error}"));
            1
        }
    }
}

fn pattern(at: usize) -> u8 {
    (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ at as u8
}

fn drive(platform: &'static SeL4Platform, info: &'static ClientInfo) -> Result<(), Error> {
    let client = Client::connect(platform, info)?;
    let device = client.assign_ids(VENDOR, DEVICE)?;
    platform.log(format_args!("@assigned {}", device.address()));
    let promises = device.properties();
    let isolated = info.args != "unprotected";
    check(
        platform,
        "promise_is_true",
        promises.dma_isolated == isolated,
        format_args!("{promises:?}"),
    );
    let mut edu = Edu(device.map_bar(0)?);
    let identification = edu.identification();
    check(
        platform,
        "identified",
        identification == IDENTIFICATION,
        format_args!("{identification:#010x}"),
    );

    let buffer = client.buffer(2 * 4096, PagePreference::Small)?;
    let memory = buffer.memory().ok_or(Error::NotFound)?;
    let iova = buffer.map(ANY_IOVA, Access::ReadWrite)?;
    let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
    device.bus_master(Switch::On)?;

    let count = MOST as usize;
    let mut out = [0; 4096];
    out.iter_mut()
        .enumerate()
        .for_each(|(at, byte)| *byte = pattern(at));
    memory.write(0, &out);
    memory.write(4096, &[SENTINEL; 4096]);

    let mut completions = 0;
    edu.fetch(iova, 0, MOST, Completion::Interrupt);
    completions += u32::from(completed(&client, &mut edu)?);
    if info.args == "die" {
        platform.log(format_args!(
            "dying in the middle of a transfer to {:#x}",
            iova + 4096
        ));
        edu.store(0, iova + 4096, MOST, Completion::Interrupt);
        sel4_client::fault();
    }
    edu.store(0, iova + 4096, MOST, Completion::Interrupt);
    completions += u32::from(completed(&client, &mut edu)?);

    let mut back = [0; 4096];
    memory.read(4096, &mut back);
    let wrong = back
        .iter()
        .zip(&out)
        .take(count)
        .filter(|(got, sent)| got != sent)
        .count();
    let beyond = back.last() == Some(&SENTINEL);
    check(
        platform,
        "dma_round_trip",
        wrong == 0 && beyond,
        format_args!(
            "{count} bytes out and back through the IOMMU at {iova:#x}, {wrong} wrong, byte beyond untouched: {beyond}"
        ),
    );
    check(
        platform,
        "msi_completion",
        completions == 2,
        format_args!("{completions} of 2 transfers completed by MSI"),
    );
    // The device stays held: the supervisor lists it and takes it back.
    let (_, _) = (interrupts.keep(), buffer.keep());
    sel4_client::exit(platform, 0)
}

/// Waits for the completion interrupt of a transfer.
fn completed<M: client::Mmio>(
    client: &Client<'static, SeL4Platform>,
    edu: &mut Edu<M>,
) -> Result<bool, Error> {
    let came = client.wait_for(event::OWN, TRANSFER_MICROS)? != 0;
    let status = edu.raised();
    edu.acknowledge(status);
    Ok(came && status & COMPLETED != 0 && !edu.busy())
}
