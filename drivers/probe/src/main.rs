//! Shows bugs of the unpatched kernel, and that the patched one has them not.
//! Needs an edu device.
//!
//! Arguments: `b0`, ten thousand interrupts in real time (an unpatched kernel
//! crashes or hangs); `b1`, a mapping that outlives the revocation of its frame.

#![no_std]
#![no_main]

use client::report::check;
use client::{Client, Error, Mechanism, Memory, PagePreference, Platform, Switch};
use edu_driver::{DEVICE, Edu, IDENTIFICATION, VENDOR};
use sel4_client::SeL4Platform;
use system::info::ClientInfo;
use system::layout::event;

sel4_client::program!(main);

const INTERRUPTS: u32 = 10_000;

fn main(platform: &'static SeL4Platform, info: &'static ClientInfo) -> u32 {
    let outcome = match info.args.as_str() {
        "b0" => interrupt_loop(platform, info),
        "b1" => stale_mapping(platform, info),
        other => {
            check(
                platform,
                "probe",
                false,
                format_args!("unknown argument {other:?}"),
            );
            return 1;
        }
    };
    if let Err(error) = &outcome {
        check(platform, "probe", false, format_args!("{error}"));
    }
    u32::from(outcome.is_err())
}

fn interrupt_loop(platform: &'static SeL4Platform, info: &'static ClientInfo) -> Result<(), Error> {
    let client = Client::connect(platform, info)?;
    let device = client.assign_ids(VENDOR, DEVICE)?;
    let mut edu = Edu(device.map_bar(0)?);
    let interrupts = device.enable_interrupts(Mechanism::Msi, 0, 1, event::OWN)?;
    device.bus_master(Switch::On)?;
    let mut came = 0;
    for _ in 0..INTERRUPTS {
        edu.raise(1);
        came += u32::from(client.wait() & event::OWN != 0);
        edu.acknowledge(1);
    }
    check(
        platform,
        "interrupt_loop",
        came == INTERRUPTS,
        format_args!("{came} of {INTERRUPTS} interrupts"),
    );
    interrupts.disable()
}

fn stale_mapping(platform: &'static SeL4Platform, info: &'static ClientInfo) -> Result<(), Error> {
    let client = Client::connect(platform, info)?;
    let device = client.assign_ids(VENDOR, DEVICE)?;
    let edu = Edu(device.map_bar(0)?);
    let address = edu.0.address();
    let before = edu.identification();
    // The server revokes the frames; the mapping here is left to the kernel.
    device.port().release()?;

    let buffer = client.buffer(4096, PagePreference::Small)?;
    let memory = buffer.memory().ok_or(Error::NotFound)?;
    memory.write(0, &[0xee; 4]);
    let copy = client.window().take(1).ok_or(Error::WindowFull(1))?;
    platform.duplicate(buffer.frame_slots().first, copy.first)?;
    // The address of the old mapping must be free: then the copy can be mapped there.
    let mapped = platform.map_at(copy.first, address as u64);
    let free = mapped.is_ok();
    let seen = edu.identification();
    check(
        platform,
        "revocation_unmaps",
        before == IDENTIFICATION && free && seen == 0xeeee_eeee,
        format_args!(
            "before {before:#x}, mapping something else there: {mapped:?}, then it reads {seen:#x}"
        ),
    );
    Ok(())
}
