//! Entries of IVRS blocks, under the names and offsets that `iasl` uses.

use hw::acpi::{Declared, DeviceEntry, Record};
use portcullis_hw as hw;

use super::ours::Decoded;

const DEVICE: &str = "Device ID";
const SETTING: &str = "Data Setting";

impl Decoded {
    pub(super) fn entry(&mut self, record: &Record<DeviceEntry<'_>>) {
        let at = record.offset as usize;
        self.number(at, "Entry Type", record.kind);
        match record.body {
            DeviceEntry::Padding | DeviceEntry::Other { .. } => {
                self.pass_over(at + 1, &[DEVICE]);
                self.pass_over(at + 3, &[SETTING]);
                self.pass_over(at + 4, &["Extended Data"]);
            }
            DeviceEntry::All(declared) => {
                self.pass_over(at + 1, &[DEVICE]);
                self.number(at + 3, SETTING, declared.settings.bits());
            }
            DeviceEntry::Select { id, declared } | DeviceEntry::RangeStart { id, declared } => {
                self.number(at + 1, DEVICE, id);
                self.declared(at, record.length, &declared);
            }
            DeviceEntry::RangeEnd { id } => {
                self.number(at + 1, DEVICE, id);
                self.pass_over(at + 3, &[SETTING]);
            }
            DeviceEntry::IoApic {
                handle,
                id,
                settings,
            } => self.special(at, handle, id, settings.bits(), 1),
            DeviceEntry::Hpet {
                handle,
                id,
                settings,
            } => self.special(at, handle, id, settings.bits(), 2),
            // No version of iasl that Debian 12 has prints more.
            DeviceEntry::Acpi(device) => {
                self.number(at + 1, DEVICE, device.id);
                self.number(at + 3, SETTING, device.settings.bits());
            }
        }
    }

    fn declared(&mut self, at: usize, length: u32, declared: &Declared) {
        self.number(at + 3, SETTING, declared.settings.bits());
        match declared.alias {
            Some(alias) => self.number(at + 5, "Source Used Device ID", alias),
            None if length == 8 => {
                let disabled = u64::from(declared.ats_disabled) << 31;
                self.bits(at + 4, "Extended Data", disabled, 1 << 31);
            }
            None => {}
        }
    }

    fn special(&mut self, at: usize, handle: u8, id: u16, settings: u8, variety: u8) {
        self.pass_over(at + 1, &[DEVICE]);
        self.number(at + 3, SETTING, settings);
        self.number(at + 4, "Handle", handle);
        self.number(at + 5, "Source Used Device ID", id);
        self.number(at + 7, "Variety", variety);
    }
}
