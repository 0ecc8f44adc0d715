//! A physical function that puts a virtual one online, and the virtual one's
//! holder, another client, which has it write where it may and where it may not.
//!
//! Arguments: `physical`, or `virtual`. The channel `online` joins the two.

#![no_std]
#![no_main]

use client::report::check;
use client::{
    ANY_IOVA, Access, Buffer, Channel, Client, Device, Error, Memory, PagePreference, Platform,
    ResetKind, Sbdf, Switch,
};
use nvme_driver::{
    Action, Command, Controller, IDENTIFY_BYTES, PAGES, QUEUE_BYTES, Resource, secondary,
};
use sel4_client::SeL4Platform;
use system::info::ClientInfo;

sel4_client::program!(main);

type OurClient = Client<'static, SeL4Platform>;
type OurBuffer<'c> = Buffer<'c, 'static, SeL4Platform>;
type OurDevice<'c> = Device<'c, 'static, SeL4Platform>;

/// Vendor that QEMU's controllers say they are of.
const VENDOR: u16 = 0x1b36;
const CONTROLLER: u16 = 0x0010;
/// Virtual functions that are enabled.
const FUNCTIONS: u16 = 2;
/// A look, and looks for one command: a quarter of a second.
const LOOK_MICROS: u64 = 500;
const LOOKS: u32 = 500;
/// After so long a command that was begun has ended.
const SETTLE_MICROS: u64 = 100_000;
const PATIENCE_MICROS: u64 = 20_000_000;
const MARK: u8 = 0xa5;

/// What can go wrong: the system's part, or the controller's.
enum Trouble {
    System(Error),
    Controller(nvme_driver::Error),
}

impl core::fmt::Display for Trouble {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::System(error) => error.fmt(f),
            Self::Controller(error) => write!(f, "the controller: {error:?}"),
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::System(error)
    }
}

impl From<nvme_driver::Error> for Trouble {
    fn from(error: nvme_driver::Error) -> Self {
        Self::Controller(error)
    }
}

fn main(platform: &'static SeL4Platform, info: &'static ClientInfo) -> u32 {
    let outcome = match Client::connect(platform, info) {
        Ok(client) => match info.args.as_str() {
            "physical" => physical(&client),
            "virtual" => virtual_function(&client),
            _ => Err(Error::NotFound.into()),
        },
        Err(error) => Err(error.into()),
    };
    match &outcome {
        Ok(()) => check(platform, "ran", true, format_args!("to its end")),
        Err(trouble) => check(platform, "ran", false, format_args!("{trouble}")),
    }
    u32::from(outcome.is_err())
}

/// Sleeps a little; false when there have been enough of them.
fn looks(client: &OurClient) -> impl FnMut() -> bool + '_ {
    let mut left = LOOKS;
    move || {
        left = left.saturating_sub(1);
        left > 0 && client.wait_for(0, LOOK_MICROS).is_ok()
    }
}

fn hear(client: &OurClient, channel: &Channel<'_, 'static, SeL4Platform>) -> Result<(), Error> {
    match client.wait_for(channel.flag(), PATIENCE_MICROS)? {
        0 => Err(Error::NotFound),
        _ => Ok(()),
    }
}

/// Bytes that are not as they were marked.
fn touched(buffer: &OurBuffer<'_>) -> usize {
    let mut bytes = [0; IDENTIFY_BYTES];
    match buffer.memory() {
        Some(memory) if memory.read(0, &mut bytes) => {
            bytes.iter().filter(|&&byte| byte != MARK).count()
        }
        _ => IDENTIFY_BYTES,
    }
}

fn marked(client: &OurClient) -> Result<OurBuffer<'_>, Error> {
    let buffer = client.buffer(IDENTIFY_BYTES as u64, PagePreference::Small)?;
    if let Some(memory) = buffer.memory() {
        memory.write(0, &[MARK; IDENTIFY_BYTES]);
    }
    Ok(buffer)
}

/// Gives the virtual functions what they need and puts the first online.
fn physical(client: &OurClient) -> Result<(), Trouble> {
    let platform = client.platform();
    let channel = client.channel("online").ok_or(Error::NotFound)?;
    let device = client.assign_ids(VENDOR, CONTROLLER)?;
    platform.log(format_args!("@assigned {}", device.address()));
    device.bus_master(Switch::On)?;
    let queues = client.buffer(QUEUE_BYTES, PagePreference::Small)?;
    let at = queues.map(ANY_IOVA, Access::ReadWrite)?;
    let data = marked(client)?;
    let data_at = data.map(ANY_IOVA, Access::ReadWrite)?;
    let memory = *queues.memory().ok_or(Error::NotFound)?;

    // What the primary controller does not keep can be given away, from its next reset on.
    let own = {
        let registers = device.map_bar_pages(0, 0, PAGES)?;
        let mut controller = Controller::enable(registers, memory, at, looks(client))?;
        controller.execute(Command::identify(data_at), looks(client))?;
        let mut told = [0; 80];
        let read = data
            .memory()
            .is_some_and(|memory| memory.read(0, &mut told));
        let vendor = u16::from_le_bytes([told[0], told[1]]);
        check(
            platform,
            "identified",
            read && vendor == VENDOR,
            format_args!("vendor {vendor:04x}, by DMA"),
        );
        // CNTLID (5.15.2.2).
        let own = u16::from_le_bytes([told[78], told[79]]);
        for resource in [Resource::Queues, Resource::Interrupts] {
            let keep = Command::virtualization(own, Action::Keep(resource, 0));
            controller.execute(keep, looks(client))?;
        }
        own
    };
    let reset = device.reset()?;
    let (first, stride) = device.virtual_functions(FUNCTIONS)?;
    device.bus_master(Switch::On)?;
    let registers = device.map_bar_pages(0, 0, PAGES)?;
    let mut controller = Controller::enable(registers, memory, at, looks(client))?;
    controller.execute(Command::list_secondary(data_at), looks(client))?;
    let list = data.memory().ok_or(Error::NotFound)?;
    let found = (0..usize::from(FUNCTIONS))
        .filter_map(|index| secondary(list, index))
        .find(|found| found.function == 1)
        .ok_or(Error::NotFound)?;
    for action in [
        Action::Assign(Resource::Queues, 2),
        Action::Assign(Resource::Interrupts, 1),
        Action::Online,
    ] {
        controller.execute(Command::virtualization(found.id, action), looks(client))?;
    }
    controller.execute(Command::list_secondary(data_at), looks(client))?;
    let online = (0..usize::from(FUNCTIONS))
        .filter_map(|index| secondary(list, index))
        .any(|now| now.id == found.id && now.online);
    check(
        platform,
        "virtual_function_online",
        online && reset == ResetKind::Flr,
        format_args!(
            "controller {} of {own}, function {first} and every {stride}, {found:?}",
            found.id
        ),
    );
    channel.signal();
    hear(client, &channel)?;
    // What the virtual one did wrong is not told to us, and we are not stopped.
    let fault = client.next_fault()?;
    controller.execute(Command::identify(data_at), looks(client))?;
    check(
        platform,
        "physical_function_is_left_alone",
        fault.is_none(),
        format_args!("faults told to its holder: {fault:?}"),
    );
    channel.signal();
    Ok(())
}

/// Does what the description grants, and then what it does not.
fn virtual_function(client: &OurClient) -> Result<(), Trouble> {
    let platform = client.platform();
    let channel = client.channel("online").ok_or(Error::NotFound)?;
    hear(client, &channel)?;
    let found = client.devices().next().ok_or(Error::NotFound)??;
    let device = client.assign(found.device)?;
    device.bus_master(Switch::On)?;
    let queues = client.buffer(QUEUE_BYTES, PagePreference::Small)?;
    let at = queues.map(ANY_IOVA, Access::ReadWrite)?;
    let memory = *queues.memory().ok_or(Error::NotFound)?;
    let registers = device.map_bar_pages(0, 0, PAGES)?;
    let mut controller = Controller::enable(registers, memory, at, looks(client))?;

    let data = marked(client)?;
    let data_at = data.map(ANY_IOVA, Access::ReadWrite)?;
    controller.execute(Command::identify(data_at), looks(client))?;
    let mut told = [0; 2];
    let read = data
        .memory()
        .is_some_and(|memory| memory.read(0, &mut told));
    let vendor = u16::from_le_bytes(told);
    let early = client.next_fault()?;
    check(
        platform,
        "virtual_function_moves",
        read && vendor == VENDOR && early.is_none(),
        format_args!(
            "{} says vendor {vendor:04x} by DMA to {data_at:#x}, {early:?}",
            device.address()
        ),
    );

    let aim = marked(client)?;
    let physical = platform
        .physical_address(aim.frame_slots().first)
        .map_err(Error::from)?;
    blocked(client, &device, &mut controller, "outside", &aim, physical)?;
    let at = aim.map(ANY_IOVA, Access::Read)?;
    blocked(client, &device, &mut controller, "read_only", &aim, at)?;
    aim.unmap()?;
    let at = aim.map(ANY_IOVA, Access::ReadWrite)?;
    aim.unmap()?;
    blocked(client, &device, &mut controller, "after_unmap", &aim, at)?;

    // Given back with a command under way.
    let at = aim.map(ANY_IOVA, Access::ReadWrite)?;
    let outcome = controller.execute(Command::identify(at), looks(client));
    let reached = touched(&aim) > 0;
    controller.begin(Command::identify(at));
    drop(controller);
    device.release()?;
    if let Some(memory) = aim.memory() {
        memory.write(0, &[MARK; IDENTIFY_BYTES]);
    }
    client.wait_for(0, SETTLE_MICROS)?;
    let bytes = touched(&aim);
    check(
        platform,
        "virtual_function_released",
        outcome.is_ok() && reached && bytes == 0,
        format_args!(
            "{outcome:?}, reached what it might: {reached}, after the release {bytes} bytes touched"
        ),
    );
    channel.signal();
    hear(client, &channel)?;
    Ok(())
}

/// Has the controller write to where it must not: nothing arrives, and the fault bears the function's own address.
/// What the controller says of it is its own affair: QEMU's calls it done.
fn blocked<R: client::Mmio, M: Memory>(
    client: &OurClient,
    device: &OurDevice<'_>,
    controller: &mut Controller<R, M>,
    name: &str,
    aim: &OurBuffer<'_>,
    at: u64,
) -> Result<(), Trouble> {
    let outcome = controller.execute(Command::identify(at), looks(client));
    let fault = client.next_fault()?;
    let own = |requester: Sbdf| requester == device.address();
    let silent = !device.properties().faults_reported;
    let told =
        fault.is_some_and(|fault| own(fault.device) && fault.address & !0xfff == at & !0xfff);
    let bytes = touched(aim);
    let mut text = heapless::String::<48>::new();
    // The names are short.
    let _ = core::fmt::write(&mut text, format_args!("virtual_function_{name}"));
    check(
        client.platform(),
        &text,
        bytes == 0 && (told || silent),
        format_args!("at {at:#x}: {outcome:?}, {bytes} bytes touched, {fault:?}"),
    );
    Ok(())
}
