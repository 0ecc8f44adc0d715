//! Narrowed capabilities: each right that was left away is refused, the others
//! work, and nothing is left when the device goes.

use client::{ConfigRight, Error, Mechanism, Refusal, Rights, Rule, Switch, Width};
use hw::header::{Command, register};

use crate::Probe;

fn refused<T>(result: Result<T, Refusal>, rule: Rule) -> bool {
    result.is_err_and(|refusal| refusal.rule == rule)
}

/// Narrows a capability in each direction.
pub fn narrow(probe: &Probe) -> Result<(), Error> {
    let client = &probe.client;
    let found = client.devices().next().ok_or(Error::NotFound)??;
    let device = client.assign(found.device)?;
    let window = client.window();
    let slots = window.take(4).ok_or(Error::WindowFull(4))?;
    let nothing = Rights {
        config: ConfigRight::None,
        bars: 0,
        messages: 0,
        control: Switch::Off,
    };

    let reader = device.narrow(Rights {
        config: ConfigRight::Read,
        ..nothing
    })?;
    let port = reader.port();
    let mut ok = port.config_read(0, Width::Dword).map(|reply| reply.value) == Ok(found.ids);
    let line = register::CACHE_LINE;
    ok &= refused(port.config_write(line, Width::Byte, 8), Rule::NotInRights);
    ok &= refused(port.bar_frames(0, 0, 1, slots.first), Rule::NotInRights);
    ok &= refused(
        port.msi_enable(Mechanism::Msi, 0, 1, slots.first),
        Rule::NotInRights,
    );
    ok &= refused(port.bus_master(Switch::On), Rule::NotInRights);
    ok &= refused(port.reset(), Rule::NotInRights);
    ok &= refused(port.release(), Rule::NotInRights);
    probe.check(
        "reads_and_nothing_else",
        ok,
        format_args!("{}", found.device),
    );

    let mapper = device.narrow(Rights { bars: 1, ..nothing })?;
    let port = mapper.port();
    let mut ok = refused(port.config_read(0, Width::Dword), Rule::NotInRights);
    ok &= port.bar_frames(0, 0, 1, slots.first).is_ok();
    ok &= port.bar(0).is_ok();
    probe.check("one_bar_and_nothing_else", ok, format_args!("BAR 0"));

    let wider = port.narrow(ConfigRight::Write, 0x3f, 32, Switch::On, slots.first + 1);
    let granted = match wider {
        // A server may refuse, or give no more than there is.
        Err(refusal) => refusal.rule == Rule::NotInRights,
        Ok(_) => false,
    };
    probe.check("never_wider", granted, format_args!("{wider:?}"));

    let signaller = device.narrow(Rights {
        messages: 1,
        ..nothing
    })?;
    let port = signaller.port();
    let mut ok = port
        .msi_enable(Mechanism::Msi, 0, 1, slots.first + 2)
        .is_ok();
    ok &= port.msi_disable().is_ok();
    probe.check("one_message", ok, format_args!("enabled and disabled"));

    let command = device.config_read(register::COMMAND, Width::Word)?;
    let mastering = command & u32::from(Command::BUS_MASTER.bits()) != 0;
    probe.check(
        "nothing_happened",
        !mastering,
        format_args!("command {command:#06x}"),
    );
    let readers = reader.port();
    device.release()?;
    let after = readers.config_read(0, Width::Dword);
    probe.check(
        "gone_with_the_device",
        refused(after, Rule::NoCapability),
        format_args!("{after:?}"),
    );
    Ok(())
}
