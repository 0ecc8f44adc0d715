//! The functions of a machine, as QEMU lists them (`query-pci`) and as a client
//! lists them that may look (`@function`), and what differs.

use crate::transcript::Bar;
use serde_json::Value;
use std::collections::BTreeMap;

/// A PCI function, as far as both lists tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Function {
    /// Vendor id << 16 | device id, as `vvvv:dddd`.
    pub ids: String,
    /// Class and subclass, four hexadecimal digits.
    pub class: String,
    /// Bus numbers of a bridge: secondary and subordinate.
    pub buses: Option<(u8, u8)>,
    /// BARs with an address: number to (base, bytes). 6 is the expansion ROM.
    pub bars: BTreeMap<u8, (u64, u64)>,
}

/// Functions by bus:device.function (QEMU's list knows one segment).
pub type Functions = BTreeMap<(u8, u8, u8), Function>;

/// What the client said of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// `ssss:bb:dd.f`.
    pub address: String,
    /// `vvvv:dddd`.
    pub ids: String,
    /// Six hexadecimal digits.
    pub class: String,
    /// Secondary and subordinate bus of a bridge.
    pub buses: Option<(u8, u8)>,
    /// BARs.
    pub bars: Vec<Bar>,
}

/// The functions in the answer to `query-pci`. `None`: it is not of QEMU's form.
#[must_use]
pub fn of_qemu(answer: &Value) -> Option<Functions> {
    let mut functions = Functions::new();
    // A bridge lists what is behind it again: each bus is walked once, from the list that is longest.
    for bus in answer.as_array()? {
        walk(bus.get("devices")?.as_array()?, &mut functions)?;
    }
    Some(functions)
}

fn number(value: &Value, key: &str) -> Option<u64> {
    value.get(key)?.as_u64()
}

fn walk(devices: &[Value], into: &mut Functions) -> Option<()> {
    for device in devices {
        let id = device.get("id")?;
        let mut function = Function {
            ids: format!(
                "{:04x}:{:04x}",
                number(id, "vendor")?,
                number(id, "device")?
            ),
            class: format!("{:04x}", number(device.get("class_info")?, "class")?),
            ..Function::default()
        };
        for region in device.get("regions")?.as_array()? {
            // QEMU says all ones for one that is not decoded.
            let (base, bytes) = (region.get("address")?.as_i64()?, number(region, "size")?);
            if base != -1 {
                let bar = number(region, "bar")? as u8;
                function.bars.insert(bar, (base as u64, bytes));
            }
        }
        if let Some(bridge) = device.get("pci_bridge") {
            let bus = bridge.get("bus")?;
            function.buses = Some((
                number(bus, "secondary")? as u8,
                number(bus, "subordinate")? as u8,
            ));
            if let Some(devices) = bridge.get("devices") {
                walk(devices.as_array()?, into)?;
            }
        }
        let address = (
            number(device, "bus")? as u8,
            number(device, "slot")? as u8,
            number(device, "function")? as u8,
        );
        into.insert(address, function);
    }
    Some(())
}

/// The functions that a client listed. `Err`: an address that is none.
pub fn of_client(listed: &[Listed]) -> Result<Functions, String> {
    listed
        .iter()
        .map(|listed| {
            let address = address(&listed.address).ok_or(listed.address.clone())?;
            let bars = listed
                .bars
                .iter()
                .filter_map(|bar| Some((bar.index.parse().ok()?, (bar.base, bar.bytes))))
                .collect();
            Ok((
                address,
                Function {
                    ids: listed.ids.clone(),
                    class: listed.class.chars().take(4).collect(),
                    buses: listed.buses,
                    bars,
                },
            ))
        })
        .collect()
}

/// Bus, device and function of `ssss:bb:dd.f`.
#[must_use]
pub fn address(text: &str) -> Option<(u8, u8, u8)> {
    let (_segment, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let hex = |text| u8::from_str_radix(text, 16).ok();
    Some((hex(bus)?, hex(device)?, hex(function)?))
}

/// What differs between what the guest says and what QEMU says, in words; nothing when they agree.
///
/// A BAR that QEMU does not show is one that is not decoded at the moment: its address in the register need
/// not be QEMU's business, its absence is not the guest's fault.
#[must_use]
pub fn differences(guest: &Functions, qemu: &Functions) -> Vec<String> {
    let mut found = Vec::new();
    let name =
        |(bus, device, function): &(u8, u8, u8)| format!("{bus:02x}:{device:02x}.{function}");
    for address in qemu.keys().filter(|address| !guest.contains_key(address)) {
        found.push(format!("{} is missing", name(address)));
    }
    for (address, function) in guest {
        let Some(other) = qemu.get(address) else {
            found.push(format!("QEMU has no {}", name(address)));
            continue;
        };
        let mut differ = |what: &str, ours: String, theirs: String| {
            if ours != theirs {
                found.push(format!("{} {what}: {ours}, QEMU: {theirs}", name(address)));
            }
        };
        differ("ids", function.ids.clone(), other.ids.clone());
        differ("class", function.class.clone(), other.class.clone());
        differ(
            "buses",
            format!("{:x?}", function.buses),
            format!("{:x?}", other.buses),
        );
        for (bar, theirs) in &other.bars {
            // Of what the platform keeps, the guest does not ask for sizes (0).
            let ours = function.bars.get(bar).map(|&(base, bytes)| match bytes {
                0 => (base, theirs.1),
                bytes => (base, bytes),
            });
            differ(
                &format!("BAR {bar}"),
                ours.map_or("none".into(), |ours| format!("{ours:x?}")),
                format!("{theirs:x?}"),
            );
        }
    }
    found
}

/// What differs in addresses, ids and classes alone.
#[must_use]
pub fn names_differ(guest: &Functions, qemu: &Functions) -> Vec<String> {
    let names = |functions: &Functions| -> Functions {
        let name = |function: &Function| Function {
            ids: function.ids.clone(),
            class: function.class.clone(),
            ..Function::default()
        };
        functions
            .iter()
            .map(|(address, function)| (*address, name(function)))
            .collect()
    };
    differences(&names(guest), &names(qemu))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn qemu() -> Value {
        json!([{ "bus": 0, "devices": [
            { "bus": 0, "slot": 3, "function": 0, "id": { "vendor": 0x1234, "device": 0x11e8 },
              "class_info": { "class": 0x00ff }, "qdev_id": "", "irq_pin": 1,
              "regions": [{ "bar": 0, "type": "memory", "address": 0xfea0_0000_u64, "size": 0x10_0000, "mem_type_64": false, "prefetch": false },
                          { "bar": 6, "type": "memory", "address": -1, "size": 0x1000 }] },
            { "bus": 0, "slot": 4, "function": 0, "id": { "vendor": 0x1b36, "device": 0xc },
              "class_info": { "class": 0x0604 }, "regions": [],
              "pci_bridge": { "bus": { "number": 0, "secondary": 1, "subordinate": 2 },
                "devices": [{ "bus": 1, "slot": 0, "function": 0, "id": { "vendor": 0x1af4, "device": 0x1044 },
                  "class_info": { "class": 0x00ff }, "regions": [] }] } },
        ] }])
    }

    fn guest() -> Functions {
        let plain = |address: &str, ids: &str, class: &str, buses, bars| Listed {
            address: address.into(),
            ids: ids.into(),
            class: class.into(),
            buses,
            bars,
        };
        let bar = Bar {
            index: "0".into(),
            kind: "mem32".into(),
            base: 0xfea0_0000,
            bytes: 0x10_0000,
        };
        of_client(&[
            plain("0000:00:03.0", "1234:11e8", "00ff00", None, vec![bar]),
            plain("0000:00:04.0", "1b36:000c", "060400", Some((1, 2)), vec![]),
            plain("0000:01:00.0", "1af4:1044", "00ff00", None, vec![]),
        ])
        .unwrap()
    }

    #[test]
    fn the_same_machine_does_not_differ() {
        let qemu = of_qemu(&qemu()).unwrap();
        assert_eq!(qemu.len(), 3);
        assert_eq!(differences(&guest(), &qemu), Vec::<String>::new());
    }

    #[test]
    fn every_difference_is_named() {
        let qemu = of_qemu(&qemu()).unwrap();
        let mut other = guest();
        other.remove(&(1, 0, 0));
        other.insert((0, 5, 0), Function::default());
        let edu = other.get_mut(&(0, 3, 0)).unwrap();
        edu.bars.insert(0, (0xfea0_0000, 0x1000));
        edu.ids = "1234:11e9".into();
        other.get_mut(&(0, 4, 0)).unwrap().buses = None;
        let found = differences(&other, &qemu).join("\n");
        for words in [
            "01:00.0 is missing",
            "QEMU has no 00:05.0",
            "00:03.0 ids",
            "00:03.0 BAR 0: (fea00000, 1000), QEMU: (fea00000, 100000)",
            "00:04.0 buses: None",
        ] {
            assert!(found.contains(words), "{words}: {found}");
        }
        assert_eq!(of_qemu(&json!([{ "devices": [{}] }])), None);
    }
}
