//! Hot-plug: [`Card`]s in slots of ports. A card's functions are in the machine
//! while the slot has power; the port says what happened, and sends a message for
//! the first event that nobody has taken (PCIe 5.0, 6.7.3).

use hw::Sbdf;

use super::Machine;
use super::space::Space;

/// Slot Control, Slot Status and link registers, from the start of the capability.
const LINK_CAPABILITIES: u16 = 0x0c;
const LINK_STATUS: u16 = 0x12;
const CONTROL: u16 = 0x18;
const STATUS: u16 = 0x1a;
/// Events of Slot Status that are enabled by the bit of the same place in Slot Control.
const PLAIN_EVENTS: u16 = 0x001f;
const LINK_CHANGED: u16 = 1 << 8;
const LINK_CHANGED_ENABLE: u16 = 1 << 12;
const INTERRUPT_ENABLE: u16 = 1 << 5;
const PRESENT: u16 = 1 << 6;
const POWER_OFF: u16 = 1 << 10;
const LINK_ACTIVE: u16 = 1 << 13;

/// What can be pressed, pulled or break at a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotEvent {
    /// The attention button.
    Button = 1 << 0,
    /// A power fault.
    PowerFault = 1 << 1,
}

/// A slot's state beyond its registers.
#[derive(Debug, Default)]
pub(super) struct SlotModel {
    /// Where the port's PCI Express capability starts.
    express: u16,
    card: Option<Vec<(Sbdf, Space)>>,
    /// The card's functions are in the machine.
    powered: bool,
    /// The link never comes up.
    dead_link: bool,
    /// Commands are never said to be completed.
    mute: bool,
    level: bool,
    messages: usize,
    /// Commands that were given.
    commands: usize,
}

impl Machine {
    /// Makes the hot-plug port at `port` (with its capability at `express`) work: empty, without power. What
    /// is behind it already is its card.
    pub fn add_slot(&mut self, port: Sbdf, express: u16) {
        let buses = self.buses_behind(port);
        let inside: Vec<Sbdf> = self
            .addresses()
            .filter(|at| at.segment() == port.segment() && buses.contains(&at.bus()))
            .collect();
        let card: Vec<_> = inside
            .into_iter()
            .filter_map(|at| Some((at, self.space(at)?)))
            .collect();
        let active = u32::from_le_bytes([0, 0, 0x10, 0]);
        self.poke(port, express + LINK_CAPABILITIES, &active.to_le_bytes());
        let has_card = !card.is_empty();
        let slot = SlotModel {
            express,
            powered: has_card,
            card: has_card.then_some(card),
            ..SlotModel::default()
        };
        self.set16(
            port,
            express + CONTROL,
            if has_card { 0 } else { POWER_OFF },
        );
        self.set16(port, express + STATUS, if has_card { PRESENT } else { 0 });
        self.set16(
            port,
            express + LINK_STATUS,
            if has_card { LINK_ACTIVE } else { 0 },
        );
        self.slots.insert(port, slot);
    }

    /// Puts a card into an empty slot.
    pub fn plug(&mut self, port: Sbdf, card: Vec<(Sbdf, Space)>) {
        let Some(slot) = self.slots.get_mut(&port) else {
            panic!("{port} has no slot");
        };
        assert!(slot.card.is_none(), "{port} holds a card");
        slot.card = Some(card);
        self.change_status(port, PRESENT, 0, 1 << 3);
        self.supply(port);
    }

    /// Pulls the card out, whatever state it is in; gives it.
    pub fn pull(&mut self, port: Sbdf) -> Vec<(Sbdf, Space)> {
        self.cut(port);
        let card = self.slots.get_mut(&port).and_then(|slot| slot.card.take());
        self.change_status(port, 0, PRESENT, 1 << 3);
        card.unwrap_or_default()
    }

    /// The card in a slot, as it was put there.
    #[must_use]
    pub fn card(&self, port: Sbdf) -> Option<&[(Sbdf, Space)]> {
        self.slots.get(&port)?.card.as_deref()
    }

    /// Something happens at a slot.
    pub fn at_slot(&mut self, port: Sbdf, event: SlotEvent) {
        self.change_status(port, 0, 0, event as u16);
    }

    /// The link of a slot never comes up from now on.
    pub fn break_link(&mut self, port: Sbdf) {
        if let Some(slot) = self.slots.get_mut(&port) {
            slot.dead_link = true;
        }
    }

    /// The slot does what it is told from now on, and never says that it has.
    pub fn mute_slot(&mut self, port: Sbdf) {
        if let Some(slot) = self.slots.get_mut(&port) {
            slot.mute = true;
        }
    }

    /// Has the slot power?
    #[must_use]
    pub fn has_power(&self, port: Sbdf) -> bool {
        self.slots.contains_key(&port)
            && self.get16(port, self.express(port) + CONTROL) & POWER_OFF == 0
    }

    /// The slot's power indicator: 1 on, 2 blinking, 3 off.
    #[must_use]
    pub fn power_indicator(&self, port: Sbdf) -> u16 {
        self.get16(port, self.express(port) + CONTROL) >> 8 & 3
    }

    /// The slot's attention indicator.
    #[must_use]
    pub fn attention_indicator(&self, port: Sbdf) -> u16 {
        self.get16(port, self.express(port) + CONTROL) >> 6 & 3
    }

    /// Commands that the slot was given.
    #[must_use]
    pub fn slot_commands(&self, port: Sbdf) -> usize {
        self.slots.get(&port).map_or(0, |slot| slot.commands)
    }

    /// Messages of ports since the last time.
    pub fn take_messages(&mut self) -> usize {
        let slots = self.slots.values_mut();
        slots.map(|slot| std::mem::take(&mut slot.messages)).sum()
    }

    /// Slot registers may have been written.
    pub(super) fn slot_written(&mut self, at: Sbdf, offset: u16, bytes: usize) {
        let Some(slot) = self.slots.get_mut(&at) else {
            return;
        };
        let control = slot.express + CONTROL;
        if (offset..offset + bytes as u16).any(|byte| byte == control || byte == control + 1) {
            slot.commands += 1;
            let completed = if slot.mute { 0 } else { 1 << 4 };
            if self.has_power(at) {
                self.supply(at);
            } else {
                self.cut(at);
            }
            self.change_status(at, 0, 0, completed);
        }
        self.update_level(at);
    }

    /// The card works if there is one and power.
    fn supply(&mut self, port: Sbdf) {
        if !self.has_power(port) {
            return;
        }
        let Some(slot) = self.slots.get_mut(&port) else {
            return;
        };
        if slot.powered || slot.dead_link {
            return;
        }
        let Some(card) = &slot.card else {
            return;
        };
        slot.powered = true;
        for (at, mut space) in card.clone() {
            space.reset();
            self.insert(at, space);
        }
        let link = self.express(port) + LINK_STATUS;
        self.set16(port, link, LINK_ACTIVE);
        self.change_status(port, 0, 0, LINK_CHANGED);
    }

    /// The card's functions are gone, and the link is down.
    fn cut(&mut self, port: Sbdf) {
        let Some(slot) = self.slots.get_mut(&port) else {
            return;
        };
        if !std::mem::take(&mut slot.powered) {
            return;
        }
        // Also functions that the card brought to life itself.
        let buses = self.buses_behind(port);
        let inside: Vec<Sbdf> = self
            .addresses()
            .filter(|at| at.segment() == port.segment() && buses.contains(&at.bus()))
            .collect();
        for at in inside {
            self.remove(at);
        }
        let link = self.express(port) + LINK_STATUS;
        self.set16(port, link, 0);
        self.change_status(port, 0, 0, LINK_CHANGED);
    }

    fn change_status(&mut self, port: Sbdf, set: u16, clear: u16, events: u16) {
        let status = self.express(port) + STATUS;
        let value = self.get16(port, status) & !clear | set | events;
        self.set16(port, status, value);
        self.update_level(port);
    }

    fn update_level(&mut self, port: Sbdf) {
        let express = self.express(port);
        let control = self.get16(port, express + CONTROL);
        let status = self.get16(port, express + STATUS);
        let link = status & LINK_CHANGED != 0 && control & LINK_CHANGED_ENABLE != 0;
        let level =
            control & INTERRUPT_ENABLE != 0 && (status & control & PLAIN_EVENTS != 0 || link);
        if let Some(slot) = self.slots.get_mut(&port) {
            slot.messages += usize::from(level && !slot.level);
            slot.level = level;
        }
    }

    fn express(&self, port: Sbdf) -> u16 {
        self.slots.get(&port).map_or(0, |slot| slot.express)
    }

    pub(super) fn buses_behind(&self, bridge: Sbdf) -> std::ops::RangeInclusive<u8> {
        let bytes = self.snapshot(bridge);
        match (bytes.get(0x19), bytes.get(0x1a)) {
            (Some(&first), Some(&last)) if first != 0 => first..=last,
            _ => std::ops::RangeInclusive::new(1, 0),
        }
    }

    pub(super) fn get16(&self, at: Sbdf, offset: u16) -> u16 {
        let bytes = self.snapshot(at);
        let byte = |offset: u16| bytes.get(usize::from(offset)).copied().unwrap_or(0xff);
        u16::from_le_bytes([byte(offset), byte(offset + 1)])
    }

    pub(super) fn set16(&mut self, at: Sbdf, offset: u16, value: u16) {
        self.poke(at, offset, &value.to_le_bytes());
    }
}
