//! Rules that join several tables: names that are spoken of exist, devices
//! are not granted twice, quotas fit.

use super::Parts;
use super::client::{Client, DeviceRule, VECTORS};
use super::demand::Expect;
use super::diagnostic::Findings;
use super::machine::QemuItem;
use super::rule::Rule;
use super::section::Placed;
use super::section::{list, nearest};
use super::values::bytes;
use hw::Sbdf;
use std::collections::HashMap;
use system::model::{DeviceMatch, End};

/// Name under which the root task speaks.
pub const ROOT: &str = "root";

/// Checks the whole; `programs` are the names of the programs that there are.
pub fn check(parts: &Parts, programs: &[String], findings: &mut Findings) {
    clients(parts, programs, findings);
    reserved_vectors(parts, findings);
    grants(parts, findings);
    disks(parts, findings);
    slots(parts, findings);
    expectations(parts, findings);
}

fn clients(parts: &Parts, programs: &[String], findings: &mut Findings) {
    let known: Vec<&str> = programs.iter().map(String::as_str).collect();
    for (index, client) in parts.clients.iter().enumerate() {
        let same = |other: &&Client| other.model.name == client.model.name;
        if parts.clients[..index].iter().any(|other| same(&other)) {
            findings.add(
                Rule::DuplicateName,
                client.name.clone(),
                format!("two clients are named `{}`", client.model.name),
            );
        }
        let program = client.program.value.as_str();
        if !known.contains(&program) {
            let help = match nearest(program, &known) {
                Some(known) => format!("did you mean \"{known}\"?"),
                None => format!("the programs are {}", list(&known)),
            };
            findings.add_with_help(
                Rule::UnknownProgram,
                client.program.span.clone(),
                format!("there is no program `{program}`"),
                help,
            );
        }
        if let Some(span) = &client.dma_quota
            && client.model.dma_quota > parts.system.dma_pool
        {
            findings.add(
                Rule::QuotaAbovePool,
                span.clone(),
                format!(
                    "the whole pool (`dma_pool` in [system]) has {}",
                    bytes(parts.system.dma_pool)
                ),
            );
        }
        if let Some(span) = &client.core
            && client.model.core >= parts.machine.cores
        {
            findings.add(
                Rule::NoSuchCore,
                span.clone(),
                format!(
                    "the machine's cores (`cores` in [machine]) are 0 to {}",
                    parts.machine.cores - 1
                ),
            );
        }
    }
    if let Some(span) = &parts.system.dma_pool_span
        && parts.system.dma_pool > parts.machine.memory / 2
    {
        findings.add(
            Rule::QuotaAbovePool,
            span.clone(),
            format!(
                "the pool takes at most half of the machine's memory, which has {}",
                bytes(parts.machine.memory)
            ),
        );
    }
    if let Some(span) = &parts.system.end_span
        && parts.system.end == End::Finished
        && !parts.clients.iter().any(|client| client.model.must_finish)
    {
        findings.add(
            Rule::NeverEnds,
            span.clone(),
            "no client has finish = true, so the system would never end",
        );
    }
}

/// What is kept for clients is there: each is kept an aligned block of a power of two, of every shard's vectors.
fn reserved_vectors(parts: &Parts, findings: &mut Findings) {
    let shards = u64::from(parts.system.shards.msi.max(1));
    let most = VECTORS / shards;
    let mut kept = 0;
    for client in &parts.clients {
        let (Some(span), count @ 1..) = (&client.reserved, client.model.reserved_vectors) else {
            continue;
        };
        kept += u64::from(count).next_power_of_two();
        if kept > most {
            findings.add(
                Rule::OutOfRange,
                span.clone(),
                format!("with those before it that makes {kept} vectors in whole powers of two, and there are at most {most}"),
            );
            return;
        }
    }
}

fn grants(parts: &Parts, findings: &mut Findings) {
    let mut holders: HashMap<u32, (&Client, &DeviceRule)> = HashMap::new();
    let on_bus_0: Vec<(u8, u8)> = parts
        .machine
        .devices
        .iter()
        .filter_map(|device| QemuItem::parse(&device.value).ok()?.slot())
        .collect();
    for client in &parts.clients {
        for rule in &client.devices {
            let DeviceMatch::Address(address) = rule.device else {
                continue;
            };
            let withheld = |other: &&DeviceRule| other.device == rule.device;
            if parts.system.withheld.iter().any(|other| withheld(&other)) {
                findings.add(
                    Rule::WithheldDevice,
                    rule.span.clone(),
                    format!("`{}` is withheld (`withheld` in [system])", rule.text),
                );
            }
            let at = Sbdf::from_bits(address);
            let here = (at.device(), at.function());
            if at.segment() == 0 && at.bus() == 0 && parts.has_machine && !on_bus_0.contains(&here)
            {
                findings.add(
                    Rule::AbsentDevice,
                    rule.span.clone(),
                    format!("no device of [machine] has addr={:02x}.{}", here.0, here.1),
                );
            }
            match holders.get(&address) {
                Some((holder, first)) if !(first.shared && rule.shared) => {
                    if holder.model.name != client.model.name {
                        findings.add_with_help(
                            Rule::SharedDevice,
                            rule.span.clone(),
                            format!(
                                "`{}` is granted to `{}` already",
                                rule.text, holder.model.name
                            ),
                            "if the first to ask shall have it, say shared = true in both rules",
                        );
                    }
                }
                _ => {
                    holders.insert(address, (client, rule));
                }
            }
        }
    }
}

fn disks(parts: &Parts, findings: &mut Findings) {
    let known: Vec<&str> = parts.disk_ids.iter().map(|id| id.value.as_str()).collect();
    let mut used = Vec::new();
    for item in parts.machine.devices.iter().chain(&parts.machine.objects) {
        let Ok(device) = QemuItem::parse(&item.value) else {
            continue;
        };
        let placeholders = placeholders(&item.value);
        for disk in device.get("drive").into_iter().chain(placeholders) {
            used.push(disk);
            if !known.contains(&disk) {
                let help = match nearest(disk, &known) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("declare it: [[machine.disk]] id = \"{disk}\""),
                };
                findings.add_with_help(
                    Rule::UnknownDisk,
                    item.span.clone(),
                    format!("there is no disk `{disk}`"),
                    help,
                );
            }
        }
    }
    for (index, id) in parts.disk_ids.iter().enumerate() {
        if known[..index].contains(&id.value.as_str()) {
            findings.add(
                Rule::DuplicateName,
                id.span.clone(),
                format!("two disks are named `{}`", id.value),
            );
        }
        if !used.contains(&id.value.as_str()) {
            findings.add(
                Rule::UnusedDisk,
                id.span.clone(),
                format!(
                    "no device or object of [machine] uses the disk `{}`",
                    id.value
                ),
            );
        }
    }
}

/// The disks whose files a text names: `{disk:<id>}`.
pub fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split("{disk:")
        .skip(1)
        .filter_map(|rest| rest.split_once('}').map(|(id, _)| id))
}

fn slots(parts: &Parts, findings: &mut Findings) {
    let mut taken = HashMap::new();
    for device in &parts.machine.devices {
        let Ok(item) = QemuItem::parse(&device.value) else {
            continue;
        };
        let Some(slot) = item.slot() else {
            if let Some(text) = item.get("addr") {
                findings.add(
                    Rule::BadQemuDevice,
                    device.span.clone(),
                    format!("addr={text} is not of the form dd.f in hexadecimal"),
                );
            }
            continue;
        };
        let key = (item.get("bus").unwrap_or_default(), slot);
        if let Some(other) = taken.insert(key, item.driver) {
            findings.add(
                Rule::DuplicateSlot,
                device.span.clone(),
                format!(
                    "addr={:02x}.{} of this bus has the device `{other}` already",
                    slot.0, slot.1
                ),
            );
        }
    }
}

/// Notes a PD that does not exist.
pub fn known_client(pd: &Placed<String>, known: &[&str], findings: &mut Findings) {
    if known.contains(&pd.value.as_str()) {
        return;
    }
    let help = match nearest(&pd.value, known) {
        Some(known) => format!("did you mean \"{known}\"?"),
        None => format!("the names there are: {}", list(known)),
    };
    findings.add_with_help(
        Rule::UnknownClient,
        pd.span.clone(),
        format!("there is no client `{}`", pd.value),
        help,
    );
}

fn expectations(parts: &Parts, findings: &mut Findings) {
    let mut known: Vec<&str> = parts
        .clients
        .iter()
        .map(|client| client.model.name.as_str())
        .collect();
    known.push(ROOT);
    for step in &parts.steps {
        known_client(&step.pd, &known, findings);
    }
    let mut seen = Vec::new();
    for expect in &parts.expects {
        let Expect::Check(expect) = expect else {
            continue;
        };
        let pd = expect.pd.value.as_str();
        known_client(&expect.pd, &known, findings);
        let key = (pd, expect.check.value.as_str());
        if seen.contains(&key) {
            findings.add(
                Rule::DuplicateExpect,
                expect.check.span.clone(),
                format!("`{}` of `{pd}` is expected twice", key.1),
            );
        }
        seen.push(key);
        if let Some(digest) = &expect.equals
            && !parts
                .disk_ids
                .iter()
                .any(|id| id.value == digest.value.disk)
        {
            findings.add(
                Rule::UnknownDisk,
                digest.span.clone(),
                format!("there is no disk `{}`", digest.value.disk),
            );
        }
    }
}
