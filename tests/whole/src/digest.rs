//! [`World::digest`]: a state in one number, the same for all states that differ
//! in nothing a step can depend on: for a model checker, which then visits it once.
//!
//! Left out are ages: generations of badges, times that have passed, and the unit's
//! caches, which after [`crate::rules`] hold what the tables say.

use std::hash::{DefaultHasher, Hash, Hasher};

use hw::Clock;
use ipc_proto::Badge;

use crate::hardware::device;
use crate::kernel::Object;
use crate::world::World;

/// A badge without its generation.
fn ageless(badge: Badge) -> (u8, u16) {
    (badge.kind as u8, badge.index)
}

impl World<'_> {
    /// The state in a number.
    pub fn digest(&mut self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (place, object) in self.kernel.shape() {
            place.hash(&mut hasher);
            match object {
                Object::Endpoint { server, badge } => {
                    (server, Badge::from_word(badge).map(ageless)).hash(&mut hasher);
                }
                other => other.hash(&mut hasher),
            }
        }
        for client in &self.told.clients {
            client.life.hash(&mut hasher);
            client.waits.map(|(_, wait)| wait).hash(&mut hasher);
            for (number, held) in &client.devices {
                (number, held.context, held.registers, held.tense).hash(&mut hasher);
            }
            for (number, buffer) in &client.buffers {
                (number, &buffer.pages, buffer.mapping).hash(&mut hasher);
            }
        }
        for holder in self.holders() {
            let state = (holder.state as u64, holder.holder, holder.messages);
            (holder.device.to_bits(), state).hash(&mut hasher);
        }
        let machine = self.hardware.machine.borrow();
        for number in 0..self.setting.devices {
            machine.snapshot(device(number)).hash(&mut hasher);
        }
        self.told.messages.hash(&mut hasher);
        let now = self.hardware.clock.now_us();
        let alarm = self.pci.env().alarm.map(|alarm| alarm.saturating_sub(now));
        (alarm, &self.dying).hash(&mut hasher);
        hasher.finish()
    }
}
