//! Two devices of one client, one of them in a context of its own: each reaches what is mapped for it, and nothing
//! of the other's.

use client::report::check;
use client::{ANY_IOVA, Access, Error, Switch};
use edu_driver::Edu;
use sel4_client::SeL4Platform;

use crate::OurClient;
use crate::mover::{BYTES, Mover, Page, Records};

const OWN: u8 = 4;
const COMMON: u8 = 5;
const SOURCE: u8 = 6;

pub fn run(platform: &'static SeL4Platform, client: &OurClient) -> Result<(), Error> {
    let mut found = client
        .devices()
        .filter_map(Result::ok)
        .map(|found| found.device);
    let first = client.assign_private(found.next().ok_or(Error::NotFound)?)?;
    let second = client.assign(found.next().ok_or(Error::NotFound)?)?;
    let mut alone = Mover::new(
        client,
        Edu(first.map_bar(0)?),
        first.address(),
        Records::OfTheDevice,
    );
    let mut shared = Mover::new(
        client,
        Edu(second.map_bar(0)?),
        second.address(),
        Records::OfTheDevice,
    );
    first.bus_master(Switch::On)?;
    second.bus_master(Switch::On)?;

    // The same address in both contexts, for different memory.
    let (own, common, source) = (
        Page::small(client, OWN)?,
        Page::small(client, COMMON)?,
        Page::small(client, SOURCE)?,
    );
    let from = source.buffer.map_for(&first, ANY_IOVA, Access::Read)?;
    alone.fetch(from, BYTES)?;
    source.buffer.unmap()?;
    let from = source.map(Access::Read)?;
    shared.fetch(from, BYTES)?;
    source.buffer.unmap()?;
    let at = own.buffer.map_for(&first, ANY_IOVA, Access::ReadWrite)?;
    common.buffer.map(at, Access::ReadWrite)?;
    alone.store(at, BYTES)?;
    let (there, beside) = (
        own.wrong(OWN, (0, BYTES), (SOURCE, 0)),
        common.touched(COMMON),
    );
    own.fill(OWN);
    shared.store(at, BYTES)?;
    let (here, astray) = (
        common.wrong(COMMON, (0, BYTES), (SOURCE, 0)),
        own.touched(OWN),
    );
    check(
        platform,
        "private_context",
        first.context() != second.context() && there + beside + here + astray == 0,
        format_args!(
            "contexts {} and {}, both at {at:#x}: {there} and {here} bytes wrong, {beside} and {astray} in the other's",
            first.context(),
            second.context()
        ),
    );
    own.buffer.unmap()?;
    own.fill(OWN);
    alone.drain()?;
    alone.store(at, BYTES)?;
    let (told, fault) = alone.told(at, Access::Write)?;
    let touched = own.touched(OWN);
    check(
        platform,
        "private_after_unmap",
        touched == 0 && told,
        format_args!("{touched} bytes touched, {fault:?}"),
    );
    // Registers go before their device.
    drop((alone, shared));
    first.release()?;
    second.release()
}
