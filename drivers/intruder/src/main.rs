//! A hostile client: holds an edu device of its own and tries to get at what
//! is not its own, one named check a trick. A check passes when the trick was
//! refused with the right rule, or had no effect on the memory it aimed at.
//!
//! Argument: the address of a device that another client may have.

#![no_std]
#![no_main]

mod configuration;
mod dma;
mod messages;
mod names;
mod witness;

use client::report::check;
use client::{Client, Error, Platform, Rule, Sbdf};
use edu_driver::{DEVICE, VENDOR};
use sel4_client::SeL4Platform;
use system::info::ClientInfo;

sel4_client::program!(main);

type OurClient = Client<'static, SeL4Platform>;

/// What all tricks start from.
struct Intruder<'c> {
    client: &'c OurClient,
    platform: &'static SeL4Platform,
    /// The device that the description grants us.
    own: Sbdf,
    /// A device of somebody else.
    victim: Sbdf,
}

impl Intruder<'_> {
    /// The trick must be refused with this rule.
    fn refused<T>(&self, name: &str, result: Result<T, Error>, rule: Rule) {
        match result {
            Ok(_) => check(self.platform, name, false, format_args!("it was allowed")),
            Err(error) => check(
                self.platform,
                name,
                error.rule() == Some(rule),
                format_args!("{error}"),
            ),
        }
    }

    fn holds(&self, name: &str, ok: bool, detail: core::fmt::Arguments<'_>) {
        check(self.platform, name, ok, detail);
    }
}

fn main(platform: &'static SeL4Platform, info: &'static ClientInfo) -> u32 {
    match run(platform, info) {
        Ok(()) => {
            platform.log(format_args!("the last trick: a fault in its own code"));
            sel4_client::fault()
        }
        Err(error) => {
            check(platform, "intruder_ran", false, format_args!("{error}"));
            1
        }
    }
}

fn run(platform: &'static SeL4Platform, info: &'static ClientInfo) -> Result<(), Error> {
    let client = Client::connect(platform, info)?;
    let victim = info.args.parse().map_err(|_| Error::NotFound)?;
    let ids = u32::from(DEVICE) << 16 | u32::from(VENDOR);
    let own = client
        .devices()
        .filter_map(Result::ok)
        .find(|found| found.ids == ids)
        .ok_or(Error::NotFound)?
        .device;
    let intruder = Intruder {
        client: &client,
        platform,
        own,
        victim,
    };
    names::run(&intruder)?;
    configuration::run(&intruder)?;
    messages::run(&intruder)?;
    dma::run(&intruder)?;
    check(
        platform,
        "intruder_ran",
        true,
        format_args!("every trick was tried"),
    );
    Ok(())
}
