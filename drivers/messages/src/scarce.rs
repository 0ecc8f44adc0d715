//! Vectors when there are few: quotas, what is kept for others, who has most, and the list of all.
//!
//! Needs two devices with many MSI-X messages, a quota of all vectors, and the right to look. What it may have is less than
//! all: some are kept for another client.

use client::{Error, Inspector, Interrupts, Mechanism, Platform, Rule, Sbdf};
use ipc_proto::{ClientId, Exhausted, VectorUse, Word};
use sel4_client::SeL4Platform;
use system::layout::event;

use crate::Probe;
use crate::sources::Card;

type Enabled<'d, 'c> = Interrupts<'d, 'c, 'static, SeL4Platform>;

fn enable<'d, 'c>(device: &'d Card<'c>, count: u16) -> Result<Enabled<'d, 'c>, Error> {
    device.enable_interrupts_with(Mechanism::MsiX, 0, count, |_| event::OWN)
}

/// Takes vectors until there are none.
pub fn run(probe: &Probe) -> Result<(), Error> {
    let client = &probe.client;
    let info = client.info();
    let inspector = Inspector::new(probe.platform, info).ok_or(Error::NotFound)?;
    let mut found = client.devices();
    let one = client.assign(found.next().ok_or(Error::NotFound)??.device)?;
    let other = client.assign(found.next().ok_or(Error::NotFound)??.device)?;
    let held = |device: Sbdf| -> Result<u16, Error> {
        let mut count = 0;
        for row in inspector.vectors(0) {
            let row = row?;
            let ours = row.purpose == VectorUse::Message && row.device == device;
            // In order of vectors, messages count up; each is where its number says.
            count += u16::from(ours && row.message < 64 && row.client.0 == info.client);
        }
        Ok(count)
    };
    let us = ClientId(info.client);
    let used = || Ok::<_, Error>(inspector.msi(0).share_at(us)?.used);
    let all = inspector.msi(0).figures()?.vectors;
    let first = enable(&one, 64)?;
    let second = enable(&other, 64);
    let refusal = match &second {
        Err(Error::Refused(refusal)) => Some(*refusal),
        _ => None,
    };
    let about = refusal.and_then(|refusal| Exhausted::from_word(refusal.about));
    let names = refusal.map(|refusal| refusal.rule) == Some(Rule::VectorsExhausted)
        && about.is_some_and(|about| about.holder.0 == info.client && about.held >= 64);
    probe.check(
        "exhaustion_names_the_holder",
        names,
        format_args!("{:?}", second.as_ref().err()),
    );
    drop(second);
    probe.check(
        "all_or_nothing",
        held(other.address())? == 0 && held(one.address())? == 64 && used()? == 64,
        format_args!(
            "{} and {} held, {} in all",
            held(one.address())?,
            held(other.address())?,
            used()?
        ),
    );
    let mut lines = 0;
    inspector.dump_interrupts(1, |line| {
        lines += 1;
        probe.platform.log(format_args!("{line}"));
    })?;
    probe.check("dump", lines > 64, format_args!("{lines} lines"));
    let kept = inspector.shares(0).map(|share| Ok(share?.reserved));
    let kept = kept.sum::<Result<u16, Error>>()?;
    // All that are left but those that are kept for somebody.
    let mut left = 0;
    let mut size = 32;
    let mut taken = heapless::Vec::<_, 1>::new();
    while size > 0 && taken.is_empty() {
        if let Ok(interrupts) = enable(&other, size) {
            left = size;
            let _ = taken.push(interrupts);
        }
        size -= 1;
    }
    probe.check(
        "what_is_kept_stays",
        left > 0 && kept > 0 && used()? == 64 + left && used()? + kept <= all,
        format_args!("64 and {left} more of {all}; {kept} are kept for others"),
    );
    taken.clear();
    first.disable()?;
    probe.check("given_back", used()? == 0, format_args!("{} left", used()?));
    Ok(())
}
