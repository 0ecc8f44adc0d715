//! After each action: what the pci-server has taken back by itself, and which messages devices were set up to send.

use crate::hardware::device;
use crate::told::{Life, Tense, Wait};
use crate::world::World;

impl World<'_> {
    /// The pci-server may take a device from its holder by itself: when it is pulled out, removed, or broken. Then
    /// nothing of it may be left, so its own word is taken for that, and for nothing else.
    pub(crate) fn reconcile(&mut self) {
        let holders = self.holders();
        for number in 0..self.setting.devices {
            let Some((client, held)) = self.told.holder(number) else {
                continue;
            };
            let at = device(number);
            let now = holders.iter().find(|holder| holder.device == at);
            match now {
                Some(holder) if holder.holder == client + 1 => {
                    let state = holder.state;
                    if state != ipc_proto::DeviceState::Assigned && held.tense == Tense::Given {
                        let held = self.told.of(client).devices.get_mut(&number);
                        held.expect("it was just found").tense = Tense::Leaving;
                    } else if state == ipc_proto::DeviceState::Assigned
                        && self.told.of(client).life == Life::Alive
                        && self
                            .told
                            .of(client)
                            .waits
                            .is_none_or(|(_, wait)| wait != Wait::Release(number))
                    {
                        let held = self.told.of(client).devices.get_mut(&number);
                        held.expect("it was just found").tense = Tense::Given;
                    }
                }
                Some(holder) if holder.holder != 0 => panic!(
                    "{at} is said to be client {}'s and is client {client}'s",
                    holder.holder - 1
                ),
                // Nobody's, or not there any more.
                _ => self.told.forget_device(number),
            }
        }
        for holder in holders.iter().filter(|holder| holder.holder != 0) {
            let client = holder.holder - 1;
            let mut devices = self.told.of(client).devices.keys();
            let known = devices.any(|number| device(*number) == holder.device);
            assert!(known, "client {client} is said to hold {}", holder.device);
        }
    }

    pub(crate) fn note_messages(&mut self) {
        for number in 0..self.setting.devices {
            if self.told.holder(number).is_some() {
                for (address, data) in self.hardware.messages(device(number)) {
                    self.told.messages.insert((number, address, data));
                }
            }
        }
    }
}
