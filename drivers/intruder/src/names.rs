//! Tricks with names: devices of others, capabilities of the past, too much
//! of something.

use client::{ContextChoice, Error, PagePreference, Refusal, Rule, Sbdf};
use ipc_proto::{Mechanism, pci};

use crate::Intruder;

pub fn run(intruder: &Intruder<'_>) -> Result<(), Error> {
    let client = intruder.client;
    intruder.refused(
        "assign_others_device",
        client.assign(intruder.victim),
        Rule::NotGranted,
    );
    // An absent device answers like a foreign one: existence is not told.
    let absent = Sbdf::from_bits(intruder.own.to_bits() | 0xf8);
    intruder.refused(
        "assign_absent_device",
        client.assign(absent),
        Rule::NotGranted,
    );
    let bridge = Sbdf::from_bits(0);
    intruder.refused(
        "assign_host_bridge",
        client.assign(bridge),
        Rule::NotGranted,
    );

    let pci = client.pci(client.shard_of(intruder.own)?);
    let outside = pci
        .assign(intruder.own, u16::MAX, ContextChoice::Shared)
        .map_err(Error::from);
    intruder.refused("window_slot_outside", outside, Rule::WindowSlotOutOfRange);

    let device = client.assign(intruder.own)?;
    intruder.refused(
        "assign_twice",
        client.assign(intruder.own),
        Rule::AlreadyHeld,
    );
    let occupied = device
        .port()
        .bar_frames(0, 0, 1, device.slot())
        .map_err(Error::from);
    intruder.refused("window_slot_occupied", occupied, Rule::WindowSlotOccupied);
    let past_the_end = device
        .port()
        .bar_frames(0, u32::MAX, 1, 1)
        .map_err(Error::from);
    intruder.refused("bar_page_outside", past_the_end, Rule::PageOutOfRange);
    intruder.refused("bar_that_is_not", device.bar(6), Rule::NoSuchBar);
    let vectors = client.info().window_bits;
    let too_many = device
        .port()
        .msi_enable(Mechanism::Msi, 0, 32, u16::from(vectors))
        .map_err(Error::from);
    intruder.refused("too_many_messages", too_many, Rule::BadMessageCount);

    // A copy made while the device was held must die with it.
    let copy = client.window().take(1).ok_or(Error::WindowFull(1))?;
    intruder.platform.duplicate(device.slot(), copy.first)?;
    let copied = pci::Stub(client::Platform::window_port(intruder.platform, copy.first));
    let works = copied.info().is_ok();
    let slot = device.slot();
    device.port().release()?;
    let gone = |result: Result<pci::InfoReply, Refusal>| {
        result.map_err(|refusal| refusal.rule) == Err(Rule::NoCapability)
    };
    let stale = pci::Stub(client::Platform::window_port(intruder.platform, slot));
    let (stale, copied) = (stale.info(), copied.info());
    intruder.holds(
        "stale_capability",
        gone(stale),
        format_args!("after release: {stale:?}"),
    );
    intruder.holds(
        "copied_capability",
        works && gone(copied),
        format_args!("worked: {works}, after release: {copied:?}"),
    );
    client::Platform::clear(intruder.platform, copy.first);
    client.window().give_back(copy);
    drop(device);

    let quota = client.iommu()?.hello(ipc_proto::VERSION)?.quota;
    let beyond = client.buffer(quota + 4096, PagePreference::Small);
    intruder.refused("dma_beyond_quota", beyond.map(drop), Rule::DmaQuota);
    // Others would wait for it: the description gives it buffers of a quarter of its memory.
    let half = client.buffer(quota / 2, PagePreference::Small);
    intruder.refused(
        "dma_in_one_large_buffer",
        half.map(drop),
        Rule::BufferTooLarge,
    );
    intruder.refused(
        "dma_of_no_bytes",
        client.buffer(0, PagePreference::Small).map(drop),
        Rule::BadBufferSize,
    );
    let used = client.iommu()?.hello(ipc_proto::VERSION)?.used;
    intruder.holds(
        "refusals_cost_nothing",
        used == 0,
        format_args!("{used} bytes of quota used after the refusals"),
    );
    Ok(())
}
