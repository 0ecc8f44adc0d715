//! A buffer that several clients share, to its end: what the devices of each
//! reach, and what is left when a share is revoked, when one that shares is
//! killed, and when the owner is gone.

use client::{Error, Memory, Rule, Switch};
use edu_driver::{Completion, Edu, MOST};
use system::layout::slot;

use crate::scene::{PAGE, SETTLE_MICROS, Scene, fill, map, mark, touched, wrong};

/// Pages of a shared buffer: one to read, one that the peer's device writes, one that ours does.
const PAGES: usize = 3;

/// Owns buffers and shares them.
pub fn producer(scene: &Scene) -> Result<(), Error> {
    let channel = scene.channel("ring")?;
    let device = scene.edu()?;
    let mut edu = Edu(device.map_bar(0)?);
    device.bus_master(Switch::On)?;

    let shared = scene.shared_pages(PAGES)?;
    fill(&shared, 0, 1);
    channel.give(&shared)?;
    scene.hear(&channel)?;
    let bad = wrong(&shared, 1, 1);
    scene.holds(
        "peers_device_wrote",
        bad == 0,
        format_args!("{MOST} bytes moved by the other client's device, {bad} wrong"),
    );
    let iova = map(&shared)?;
    scene.copy(&mut edu, iova + PAGE as u64, iova + 2 * PAGE as u64)?;
    let bad = wrong(&shared, 2, 1);
    scene.holds(
        "own_device_reads_it",
        bad == 0,
        format_args!("{MOST} bytes moved on by the owner's device, {bad} wrong"),
    );

    // What is no buffer: the frame of one, and a device's capability.
    channel.give_slot(shared.frame_slots().first)?;
    scene.hear(&channel)?;
    channel.give_slot(device.slot())?;
    scene.hear(&channel)?;
    // And one that is for us alone.
    let own = scene.pages(1)?;
    channel.give(&own)?;
    scene.hear(&channel)?;
    own.free()?;
    revoke_in_mid_transfer(scene, shared)?;
    given_back(scene)?;
    touch(scene)?;
    peer_killed(scene, &mut edu)?;
    drop(edu);
    device.release()?;
    owner_dies(scene)
}

/// The other's device has a transfer to the buffer under way when it is freed; its memory is ours again at once.
fn revoke_in_mid_transfer(scene: &Scene, shared: crate::scene::OurBuffer<'_>) -> Result<(), Error> {
    let channel = scene.channel("ring")?;
    let before = scene.physical(&shared)?;
    channel.signal();
    scene.hear(&channel)?;
    shared.free()?;
    let next = scene.pages(PAGES)?;
    let after = scene.physical(&next)?;
    channel.signal();
    scene.wait(0, 3 * SETTLE_MICROS)?;
    let bytes = touched(&next);
    scene.holds(
        "revoked_share_untouched",
        bytes == 0 && before == after,
        format_args!("memory at {before:#x}, then at {after:#x}: {bytes} bytes touched"),
    );
    scene.hear(&channel)
}

/// The other gives its share back with a transfer to it under way; the buffer stays ours.
fn given_back(scene: &Scene) -> Result<(), Error> {
    let channel = scene.channel("ring")?;
    let shared = scene.shared_pages(PAGES)?;
    channel.give(&shared)?;
    scene.hear(&channel)?;
    scene.settle()?;
    let bytes = touched(&shared);
    scene.holds(
        "share_given_back_is_drained",
        bytes == 0,
        format_args!("{bytes} bytes touched by a transfer begun before"),
    );
    Ok(())
}

/// Another client keeps its mapping of the revoked buffer and writes through it.
fn touch(scene: &Scene) -> Result<(), Error> {
    let channel = scene.channel("touch")?;
    let shared = scene.shared_pages(1)?;
    channel.give(&shared)?;
    scene.hear(&channel)?;
    let seen = touched(&shared);
    let before = scene.physical(&shared)?;
    shared.free()?;
    let next = scene.pages(1)?;
    let after = scene.physical(&next)?;
    channel.signal();
    let survived = scene.wait(channel.flag(), SETTLE_MICROS)?;
    let bytes = touched(&next);
    scene.holds(
        "revoked_mapping_is_gone",
        seen == PAGE && before == after && bytes == 0 && !survived,
        format_args!(
            "the other wrote {seen} bytes while it could, and {bytes} of the next buffer's, at {before:#x} and {after:#x}"
        ),
    );
    Ok(())
}

/// The other is killed while its device writes to our buffer.
fn peer_killed<M: client::Mmio>(scene: &Scene, edu: &mut Edu<M>) -> Result<(), Error> {
    let channel = scene.channel("ring")?;
    let shared = scene.shared_pages(PAGES)?;
    channel.give(&shared)?;
    scene.hear(&channel)?;
    scene.client.supervisor().kill(scene.pd("consumer")?)?;
    scene.settle()?;
    let bytes = touched(&shared);
    scene.holds(
        "killed_peer_is_drained",
        bytes == 0,
        format_args!("{bytes} bytes touched by the device of the dead"),
    );
    fill(&shared, 0, 2);
    let iova = map(&shared)?;
    scene.copy(edu, iova, iova + PAGE as u64)?;
    let bad = wrong(&shared, 1, 2);
    scene.holds(
        "owner_keeps_the_buffer",
        bad == 0,
        format_args!("{MOST} bytes moved by the owner's device afterwards, {bad} wrong"),
    );
    Ok(())
}

/// The owner of a buffer that we share goes, while our device writes to it.
fn owner_dies(scene: &Scene) -> Result<(), Error> {
    let channel = scene.channel("gift")?;
    let device = scene.edu()?;
    let mut edu = Edu(device.map_bar(0)?);
    device.bus_master(Switch::On)?;
    scene.faults(device.address(), 0)?;
    channel.signal();
    scene.hear(&channel)?;
    // Its own way to the pci-server: with it we are, to the server, the one who dies.
    let disguise = channel.take_narrowed()?.ok_or(Error::NotFound)?;
    let alive = disguise.port().device_at(0);
    let gift = match channel.take()? {
        Some(gift) => gift,
        None => scene.receive(&channel)?,
    };
    let iova = map(&gift)?;
    edu.store(0, iova, MOST, Completion::Poll);
    channel.signal();
    scene.settle()?;
    let capability = gift.port().info().map_err(|refusal| refusal.rule);
    let frame = scene.physical(&gift);
    let faults = scene.faults(device.address(), iova)?;
    scene.holds(
        "owner_died_share_is_gone",
        capability == Err(Rule::NoCapability) && frame.is_err() && faults.told,
        format_args!(
            "buffer: {capability:?}, frame: {frame:?}, {:?}",
            faults.newest
        ),
    );
    let dead = disguise.port().device_at(0);
    let gone = dead.map_err(|refusal| refusal.rule) == Err(Rule::NoCapability);
    scene.holds(
        "authority_dies_with_its_owner",
        alive.is_ok() && gone,
        format_args!("asked in the name of the one who died, before: {alive:?}, after: {dead:?}"),
    );
    Ok(())
}

/// Uses what the producer shares, and goes on when it must not.
pub fn consumer(scene: &Scene) -> Result<(), Error> {
    let channel = scene.channel("ring")?;
    let device = scene.edu()?;
    let mut edu = Edu(device.map_bar(0)?);
    device.bus_master(Switch::On)?;

    let share = scene.receive(&channel)?;
    let bad = wrong(&share, 0, 1);
    scene.holds(
        "share_is_the_same_memory",
        bad == 0,
        format_args!("{MOST} bytes read by the processor, {bad} wrong"),
    );
    let used = scene.client.iommu()?.hello(ipc_proto::VERSION)?.used;
    scene.holds(
        "share_costs_no_quota",
        used == 0,
        format_args!("{used} bytes of quota used"),
    );
    let iova = map(&share)?;
    scene.copy(&mut edu, iova, iova + PAGE as u64)?;
    let bad = wrong(&share, 1, 1);
    scene.holds(
        "device_moves_the_share",
        bad == 0,
        format_args!("{MOST} bytes out and back at {iova:#x}, {bad} wrong"),
    );
    channel.signal();

    for (name, rules) in [
        (
            "frame_is_no_buffer",
            [Rule::UnexpectedCapability, Rule::MissingCapability],
        ),
        (
            "device_is_no_buffer",
            [Rule::UnexpectedCapability, Rule::MissingCapability],
        ),
        (
            "private_buffer_is_not_shared",
            [Rule::PrivateBuffer, Rule::PrivateBuffer],
        ),
    ] {
        let before = scene.client.window().in_use();
        scene.hear(&channel)?;
        let taken = channel.take().map(|taken| taken.is_some());
        let refused =
            taken.is_err_and(|error| error.rule().is_some_and(|rule| rules.contains(&rule)));
        let after = scene.client.window().in_use();
        scene.holds(
            name,
            refused && before == after,
            format_args!("{taken:?}, window slots in use: {before}, then {after}"),
        );
        channel.signal();
    }

    // The owner frees it while a transfer to it is under way.
    scene.hear(&channel)?;
    let early = scene.faults(device.address(), iova)?;
    edu.store(0, iova, MOST, Completion::Poll);
    channel.signal();
    scene.hear(&channel)?;
    let capability = share.port().info().map_err(|refusal| refusal.rule);
    let frame = scene.physical(&share);
    scene.holds(
        "revoked_share_is_gone",
        capability == Err(Rule::NoCapability) && frame.is_err() && early.count == 0,
        format_args!("buffer: {capability:?}, frame: {frame:?}"),
    );
    scene.settle()?;
    let first = scene.faults(device.address(), iova)?;
    scene.store(&mut edu, iova)?;
    let second = scene.faults(device.address(), iova)?;
    scene.holds(
        "revoked_share_is_blocked",
        first.told && second.told,
        format_args!(
            "in mid-transfer: {:?}, afterwards: {:?}",
            first.newest, second.newest
        ),
    );
    drop(share);
    channel.signal();

    // Given back, with a transfer to it under way.
    let share = scene.receive(&channel)?;
    let iova = map(&share)?;
    scene.faults(device.address(), iova)?;
    edu.store(0, iova, MOST, Completion::Poll);
    share.free()?;
    channel.signal();
    scene.settle()?;
    let faults = scene.faults(device.address(), iova)?;
    scene.holds(
        "share_given_back_is_blocked",
        faults.told,
        format_args!("{:?}", faults.newest),
    );

    // The last share: killed in the middle of a transfer to it.
    let share = scene.receive(&channel)?;
    let iova = map(&share)?;
    edu.store(0, iova, MOST, Completion::Poll);
    channel.signal();
    scene.hear(&channel)?;
    scene.holds("was_killed", false, format_args!("still alive"));
    Ok(())
}

/// Writes to a share by the processor, also after it is revoked.
pub fn toucher(scene: &Scene) -> Result<(), Error> {
    let channel = scene.channel("touch")?;
    let share = scene.receive(&channel)?;
    let memory = share.memory().ok_or(Error::NotFound)?;
    let written = memory.write(0, &[0x33; PAGE]);
    scene.holds("share_in_hand", written, format_args!("one page written"));
    channel.signal();
    scene.hear(&channel)?;
    memory.write(0, &[0x44; PAGE]);
    // Not reached where the mapping went with the buffer.
    channel.signal();
    Err(Error::NotFound)
}

/// Gives a buffer away and ends when it is in use.
pub fn mayfly(scene: &Scene) -> Result<(), Error> {
    let channel = scene.channel("gift")?;
    scene.hear(&channel)?;
    let gift = scene.shared_pages(1)?;
    mark(&gift);
    let shard = scene.client.info().pci.first().map_or(0, |first| first.0);
    let own = scene.client.window().take(1).ok_or(Error::NotFound)?;
    scene
        .platform
        .duplicate_private(slot::PCI + u64::from(shard), own.first)?;
    channel.give_slot(own.first)?;
    channel.give(&gift)?;
    scene.hear(&channel)?;
    gift.keep();
    Ok(())
}
