//! A client ends at some step of its life with a device: by itself, by a fault, killed by another, or while what it asked for
//! has not been answered. The device's next holder is [`crate::heir`], which looks at what is left.
//!
//! All victims start together; each has a slot of time to itself. The heir is told apart by nothing but the clock, so that
//! what it finds is what a death alone leaves.

use client::{Error, Mechanism, Platform, Sbdf, Switch};
use edu_driver::{DEVICE, Edu, VENDOR};
use system::layout::event;

use crate::sources::Source;
use crate::{Probe, usb};

/// Before the first slot: everybody has started.
const BEGIN_MICROS: u64 = 400_000;
/// A victim's slot, in microseconds since the timer service began. The controller is reset when it changes hands.
pub const SLOT_MICROS: u64 = 200_000;
/// Moments in a slot: the heir stops the server; the victim asks; the heir kills; it lets the server go on; it looks.
pub const STOP_MICROS: u64 = 1_500;
const ASK_MICROS: u64 = 2_000;
/// When a victim that does not end by itself is killed.
pub const KILL_MICROS: u64 = 3_000;
/// When the server goes on.
pub const RESUME_MICROS: u64 = 3_500;
/// When nothing of the victim may be left.
pub const LOOK_MICROS: u64 = 50_000;
/// Messages that a victim raises before it is bound to them, one by one.
const UNBOUND: u64 = 3;
/// A message of the controller that is masked when it is raised.
const MASKED: u16 = 5;

/// When the slot of victim `number` begins.
pub const fn slot(number: u64) -> u64 {
    BEGIN_MICROS + number * SLOT_MICROS
}

/// Waits until a moment of the timer service's time.
///
/// # Errors
/// The timer service's refusal.
pub fn until(probe: &Probe, micros: u64) -> Result<(), Error> {
    let now = probe.client.timer().now()?.micros;
    if let Some(left) = micros.checked_sub(now).filter(|left| *left > 0) {
        probe.client.wait_for(0, left)?;
    }
    Ok(())
}

/// How a victim ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It says that it is done, and holds on to what it has.
    Exit,
    /// It touches memory that is not there.
    Fault,
    /// It works on until it is killed.
    Kill,
    /// It is killed while a server that is stopped has not taken its request.
    Ask,
}

impl Way {
    /// The way of this name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "exit" => Self::Exit,
            "fault" => Self::Fault,
            "kill" => Self::Kill,
            "ask" => Self::Ask,
            _ => return None,
        })
    }

    /// Does the heir kill it?
    pub fn is_killed(self) -> bool {
        matches!(self, Self::Kill | Self::Ask)
    }
}

/// A victim: `<step>-<way>` is its PD's name, and its arguments are its number, its step and its way.
pub fn run(probe: &Probe, arguments: &str) -> Result<(), Error> {
    let mut words = arguments.split_whitespace();
    let number = words.next().and_then(|word| word.parse().ok());
    let step = words.next().ok_or(Error::NotFound)?;
    let way = words.next().and_then(Way::named).ok_or(Error::NotFound)?;
    until(probe, slot(number.ok_or(Error::NotFound)?))?;
    match (step, way) {
        ("masked", _) => masked(probe, way),
        (_, Way::Ask) => asks(probe, step, number.unwrap_or(0)),
        _ => holds(probe, step, way),
    }
}

/// The message's handler is in the first window slot that is free.
fn enable(probe: &Probe, device: &crate::sources::Card<'_>) -> Result<u16, Error> {
    let run = probe.client.window().take(1).ok_or(Error::WindowFull(1))?;
    device.port().msi_enable(Mechanism::Msi, 0, 1, run.first)?;
    Ok(run.first)
}

/// Goes as far as `step` with the teaching device, and ends there.
fn holds(probe: &Probe, step: &str, way: Way) -> Result<(), Error> {
    let device = probe.client.assign_ids(VENDOR, DEVICE)?;
    if step == "assigned" {
        end(probe, way, || ());
    }
    let mut edu = Edu(device.map_bar_pages(0, 0, 1)?);
    device.bus_master(Switch::On)?;
    let handler = enable(probe, &device)?;
    match step {
        "enabled" => end(probe, way, || ()),
        // The server absorbs each: it has the higher priority.
        "unbound" => end(probe, way, || (0..UNBOUND).for_each(|_| edu.raise(1))),
        _ => probe.platform.bind_interrupt(handler, event::OWN)?,
    }
    match step {
        "bound" => end(probe, way, || ()),
        // Its flag is there, and nobody takes it.
        "raised" => end(probe, way, || edu.raise(1)),
        _ => device.port().msi_disable()?,
    };
    match step {
        "disabled" => end(probe, way, || ()),
        _ => drop(edu),
    }
    device.release()?;
    match step {
        "released" => end(probe, way, || ()),
        _ => Err(Error::NotFound),
    }
}

/// A message of the controller is masked, and raised meanwhile: it is pending in the device.
fn masked(probe: &Probe, way: Way) -> Result<(), Error> {
    usb::with(probe, |device, controller| {
        let interrupts = device.enable_interrupts(Mechanism::MsiX, 0, usb::MESSAGES, event::OWN)?;
        usb::ready(controller);
        interrupts.mask(MASKED, 1, Switch::On)?;
        controller.raise(MASKED);
        let pending = interrupts.pending(0, usb::MESSAGES)?;
        probe.check(
            "pending",
            pending == 1 << MASKED,
            format_args!("{pending:#x}"),
        );
        end(probe, way, || ())
    })
}

/// Asks for something that the server, which is stopped, cannot do any more before the death.
fn asks(probe: &Probe, step: &str, number: u64) -> Result<(), Error> {
    let device = probe.client.assign_ids(VENDOR, DEVICE)?;
    let mut edu = Edu(device.map_bar_pages(0, 0, 1)?);
    device.bus_master(Switch::On)?;
    let say = || {
        until(probe, slot(number) + ASK_MICROS)?;
        probe.check("there", true, format_args!("asks"));
        Ok::<_, Error>(())
    };
    match step {
        "enabling" => {
            say()?;
            enable(probe, &device)?;
        }
        "disabling" | "releasing" => {
            let handler = enable(probe, &device)?;
            probe.platform.bind_interrupt(handler, event::OWN)?;
            say()?;
            edu.raise(1);
            drop(edu);
            match step {
                "disabling" => drop(device.port().msi_disable()),
                _ => device.release()?,
            }
        }
        _ => return Err(Error::NotFound),
    }
    probe.check("was_not_served", false, format_args!("it was, or refused"));
    Ok(())
}

/// Says that the step has been reached, does the last thing, and ends.
fn end(probe: &Probe, way: Way, last: impl FnOnce()) -> ! {
    probe.check("there", true, format_args!("{way:?}"));
    last();
    match way {
        Way::Exit => sel4_client::exit(probe.platform, 0),
        Way::Fault => sel4_client::fault(),
        // Waiting would take the flags that have come.
        Way::Kill | Way::Ask => loop {
            core::hint::black_box(());
        },
    }
}

/// The device that a victim of this step has.
pub fn ids(step: &str) -> u32 {
    let (vendor, device) = match step {
        "masked" => (usb::VENDOR, usb::DEVICE),
        _ => (VENDOR, DEVICE),
    };
    u32::from(device) << 16 | u32::from(vendor)
}

/// Messages that it has enabled when it ends.
pub fn messages(step: &str) -> u16 {
    match step {
        "assigned" | "disabled" | "enabling" => 0,
        "masked" => usb::MESSAGES,
        _ => 1,
    }
}

/// Does it hold its device when it ends?
pub fn is_holder(step: &str) -> bool {
    step != "released"
}

/// Messages that reach nobody: before the victim's end, and when the next holder enables them. QEMU's controller keeps a
/// message pending over a change of hands.
pub fn absorbed(step: &str) -> (u64, u64) {
    match step {
        "unbound" => (UNBOUND, 0),
        "masked" => (0, 1),
        _ => (0, 0),
    }
}

/// Address of the device that a victim of this step has.
pub fn device(probe: &Probe, step: &str) -> Result<Sbdf, Error> {
    let ids = ids(step);
    let mut found = probe.client.devices().filter_map(Result::ok);
    let found = found.find(|found| found.ids == ids);
    Ok(found.ok_or(Error::NotFound)?.device)
}
