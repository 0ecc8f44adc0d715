//! Devices behind a conventional bridge: their requests bear the bridge's
//! requester id, so they are one isolation group, and what is allowed or
//! blocked goes by that id.

use client::{Error, Rule, Sbdf, Switch};
use edu_driver::{Edu, MOST};

use crate::scene::{OurDevice, PAGE, Scene, fill, map, mark, touched, wrong};

/// Far from everything that is mapped.
const FAR: u64 = 0x100_0000;

fn address(words: &mut core::str::SplitWhitespace<'_>) -> Result<Sbdf, Error> {
    let word = words.next().ok_or(Error::NotFound)?;
    word.parse().map_err(|_| Error::NotFound)
}

/// `rest`: the requester id on the bus above, then the devices behind the bridge, one or two.
///
/// Channels whose names begin with `after` put clients in turn, the first named first: a unit of one fault record
/// tells of one fault at a time.
pub fn behind(scene: &Scene, rest: &str) -> Result<(), Error> {
    let turns = |side| {
        let ends = scene.client.info().channels.iter();
        ends.filter(move |end| end.side == side && end.name.starts_with("after"))
    };
    for end in turns(1) {
        scene.hear(&scene.channel(&end.name)?)?;
    }
    let outcome = try_all(scene, rest);
    for end in turns(0) {
        scene.channel(&end.name)?.signal();
    }
    outcome
}

fn try_all(scene: &Scene, rest: &str) -> Result<(), Error> {
    let mut words = rest.split_whitespace();
    let requester = address(&mut words)?;
    let first = scene.client.assign(address(&mut words)?)?;
    good_and_bad(scene, &first, requester, "first")?;
    let Ok(second) = address(&mut words) else {
        return after_release(scene, first, requester);
    };

    let mut members = 0;
    for member in scene.client.group(first.address()) {
        members += u32::from(member?.device == second);
    }
    scene.holds(
        "one_group",
        members == 1,
        format_args!("{second} is in the group of {}: {members}", first.address()),
    );
    let gate = scene.channel("gate")?;
    gate.signal();
    scene.hear(&gate)?;

    let second = scene.client.assign(second)?;
    good_and_bad(scene, &second, requester, "second")?;
    // They share an id: giving one back must not take it from the other.
    first.release()?;
    good_and_bad(scene, &second, requester, "left_alone")?;
    after_release(scene, second, requester)
}

/// Moves bytes where the device may, and aims where it may not.
fn good_and_bad(
    scene: &Scene,
    device: &OurDevice<'_>,
    requester: Sbdf,
    which: &str,
) -> Result<(), Error> {
    let named = |name: &str| {
        let mut text = heapless::String::<48>::new();
        // The names are short.
        let _ = core::fmt::write(&mut text, format_args!("{which}_{name}"));
        text
    };
    scene.note(device);
    let mut edu = Edu(device.map_bar(0)?);
    device.bus_master(Switch::On)?;
    let buffer = scene.pages(2)?;
    fill(&buffer, 0, 4);
    let iova = map(&buffer)?;
    scene.faults(requester, iova)?;
    scene.copy(&mut edu, iova, iova + PAGE as u64)?;
    let bad = wrong(&buffer, 1, 4);
    let faults = scene.faults(requester, iova)?;
    scene.holds(
        &named("moves"),
        bad == 0 && faults.count == 0,
        format_args!("{MOST} bytes out and back by {requester}, {bad} wrong, {faults:?}"),
    );

    mark(&buffer);
    let outside = scene.physical(&buffer)?.max(iova + FAR);
    scene.store(&mut edu, outside)?;
    let faults = scene.faults(requester, outside)?;
    let bytes = touched(&buffer);
    scene.holds(
        &named("is_blocked_outside"),
        bytes == 0 && faults.told,
        format_args!(
            "at {outside:#x}: {bytes} bytes touched, {:?}",
            faults.newest
        ),
    );

    buffer.unmap()?;
    scene.store(&mut edu, iova)?;
    let faults = scene.faults(requester, iova)?;
    let bytes = touched(&buffer);
    scene.holds(
        &named("is_blocked_after_unmap"),
        bytes == 0 && faults.told,
        format_args!("at {iova:#x}: {bytes} bytes touched, {:?}", faults.newest),
    );
    Ok(())
}

/// A transfer begun before the last device behind the bridge was given back.
fn after_release(scene: &Scene, device: OurDevice<'_>, requester: Sbdf) -> Result<(), Error> {
    let mut edu = Edu(device.map_bar(0)?);
    let buffer = scene.pages(1)?;
    let iova = map(&buffer)?;
    edu.store(0, iova, MOST, edu_driver::Completion::Poll);
    drop(edu);
    device.release()?;
    scene.settle()?;
    let bytes = touched(&buffer);
    scene.holds(
        "is_blocked_after_release",
        bytes == 0,
        format_args!("at {iova:#x} by {requester}: {bytes} bytes touched"),
    );
    Ok(())
}

/// May have the devices as well, but not while another has one of the group. `rest`: the devices.
pub fn outsider(scene: &Scene, rest: &str) -> Result<(), Error> {
    let mut words = rest.split_whitespace();
    let (held, free) = (address(&mut words)?, address(&mut words)?);
    let gate = scene.channel("gate")?;
    scene.hear(&gate)?;
    let refusals = [held, free].map(|device| {
        let refused = scene.client.assign(device).map(drop);
        refused.map_err(|error| error.rule())
    });
    let wanted = [Rule::HeldByAnother, Rule::GroupHeld].map(|rule| Err(Some(rule)));
    scene.holds(
        "group_is_anothers",
        refusals == wanted,
        format_args!("{held}: {:?}, {free}: {:?}", refusals[0], refusals[1]),
    );
    gate.signal();
    Ok(())
}
