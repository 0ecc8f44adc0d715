//! Interrupt messages of a held device: vectors from the msi-server, then the
//! device; the other way round to take them back.

use heapless::Vec;
use hw::Sbdf;
use ipc_proto::pci::{MsiMaskReply, MsiPendingReply};
use ipc_proto::{Badge, ClientId, Delivery, EventKind, Mechanism, Messages, Refusal, Rule, Switch};

use super::storms;
use super::views::{Need, slot_of};
use super::{Parts, Shard, from_below};
use crate::Device;
use crate::assignment::Hold;
use crate::env::Env;
use crate::interrupts::{self, Bits, Block, MAX_BLOCKS, Setup};
use crate::notes::{self, Intent, State, setup};

impl<E: Env> Shard<'_, E> {
    /// Takes vectors, places their handlers and enables the messages; or nothing of it.
    pub(super) fn enable_messages(
        &mut self,
        badge: Badge,
        mechanism: Mechanism,
        first: u16,
        count: u16,
        slot: u16,
    ) -> Result<Delivery, Refusal> {
        let need = Need::Messages(count);
        let (hold, device) = self.held_for(badge, need)?;
        if hold.interrupts.is_some() || hold.vectors || hold.line {
            return Err(device.refusal(Rule::InterruptsEnabled));
        }
        check_messages(device, mechanism, first, count)?;
        let client = hold.client;
        let delivery = self.delivery(client);
        self.check_window(client, slot, count)?;
        let Parts {
            env,
            hold,
            device,
            masks,
        } = self.held_mut(badge, need)?;
        let at = slot_of(badge);
        hold.intend(env, at, Intent::Enabling);
        if let Some(msix) = device.msix {
            // Before anything else: the table may be mapped even where enabling fails. Noted for the next start is it
            // with the outcome only, so that frames of an attempt are not kept.
            hold.regions |= 1u8.checked_shl(u32::from(msix.table.bar)).unwrap_or(0);
        }
        let messages = Messages { first, count };
        let taken = take_vectors(env, device.at, client, messages, slot);
        // Where the IOMMU delivers any message as it is, there is nothing to ask it.
        let blocks = match taken {
            Ok(mut blocks) if hold.properties.interrupts_isolated => {
                hold.remapped = true;
                remap(env, device.at, &mut blocks).map(|()| blocks)
            }
            taken => taken,
        };
        let enabled = blocks.and_then(|blocks| {
            let setup = Setup {
                mechanism,
                first,
                blocks,
                cores: Vec::new(),
                bits: Bits::SET_UP,
            };
            interrupts::enable(env, device, at, &setup)?;
            Ok(setup)
        });
        match enabled {
            Ok(setup) => {
                masks.clear();
                setup::clear_masks(env, at);
                setup::note(env, at, &setup);
                hold.interrupts = Some(setup);
                hold.vectors = true;
                hold.intend(env, at, Intent::None);
                Ok(delivery)
            }
            Err(refusal) => {
                // What cannot be given back now is given back with the device.
                hold.vectors = true;
                let _ = give_back(env, hold, device.at);
                hold.intend(env, at, Intent::None);
                let address = device.at;
                if refusal.rule == Rule::VectorQuota {
                    self.tell(client, EventKind::Quota, address, refusal.about);
                }
                Err(refusal)
            }
        }
    }

    /// How messages come to a client.
    fn delivery(&self, client: ClientId) -> Delivery {
        match self.clients.get(usize::from(client.0)) {
            Some(entry) if entry.interrupt_rate != 0 => Delivery::Metered,
            _ => Delivery::Direct,
        }
    }

    /// Masks or unmasks messages that are enabled.
    pub(super) fn mask_messages(
        &mut self,
        badge: Badge,
        first: u16,
        count: u16,
        switch: Switch,
    ) -> Result<MsiMaskReply, Refusal> {
        let mut parts = self.held_mut(badge, Need::Messages(count))?;
        let enabled = parts.hold.interrupts.is_some();
        if parts.hold.silenced && enabled && switch == Switch::Off {
            storms::resume(&mut parts, Messages { first, count })?;
            if storms::switch_on(&mut parts, slot_of(badge))? {
                return Ok(MsiMaskReply {});
            }
        }
        let Parts {
            env,
            hold,
            device,
            masks,
        } = parts;
        let setup = (hold.interrupts.as_ref())
            .ok_or(Refusal::new(Rule::MessageNotEnabled, first.into()))?;
        let range = (first, count);
        interrupts::mask(env, device, slot_of(badge), setup, masks, range, switch)?;
        setup::note_masks(env, slot_of(badge), setup, masks);
        Ok(MsiMaskReply {})
    }

    /// Sends messages that are set up, or does not: what message control of a mechanism says.
    pub(super) fn switch_messages(
        &mut self,
        badge: Badge,
        mechanism: Mechanism,
        bits: Bits,
    ) -> Result<(), Refusal> {
        let mut parts = self.held_mut(badge, Need::Messages(1))?;
        if parts.hold.silenced && bits.enable == Switch::On {
            storms::resume_all(&mut parts)?;
        }
        let Parts {
            env, hold, device, ..
        } = parts;
        let setup = hold
            .interrupts
            .as_mut()
            .filter(|setup| setup.mechanism == mechanism)
            .ok_or_else(|| device.refusal(Rule::InterruptsDisabled))?;
        interrupts::switch(env, device, mechanism, bits)?;
        setup.bits = bits;
        setup::note_bits(env, slot_of(badge), setup);
        Ok(())
    }

    /// Sets mask bits of MSI. Those of messages that are not set up stay masked.
    pub(super) fn write_masks(
        &mut self,
        badge: Badge,
        changed: u32,
        value: u32,
    ) -> Result<(), Refusal> {
        let (hold, device) = self.held_for(badge, Need::Messages(1))?;
        let count = hold
            .interrupts
            .as_ref()
            .filter(|setup| setup.mechanism == Mechanism::Msi)
            .map(Setup::messages)
            .ok_or_else(|| device.refusal(Rule::InterruptsDisabled))?;
        for message in (0..count.min(32)).filter(|message| changed >> message & 1 != 0) {
            let switch = match value >> message & 1 {
                0 => Switch::Off,
                _ => Switch::On,
            };
            self.mask_messages(badge, message, 1, switch)?;
        }
        Ok(())
    }

    /// Pending bits: of the mechanism that is enabled, else of MSI-X where the device has it.
    pub(super) fn pending_messages(
        &mut self,
        badge: Badge,
        first: u16,
        count: u16,
    ) -> Result<MsiPendingReply, Refusal> {
        let Parts {
            env, hold, device, ..
        } = self.held_mut(badge, Need::Messages(count))?;
        let mechanism = match (&hold.interrupts, device.msix) {
            (Some(setup), _) => setup.mechanism,
            (None, Some(_)) => Mechanism::MsiX,
            (None, None) => Mechanism::Msi,
        };
        if let Some(msix) = device.msix {
            // Noted before: frames may exist even where mapping them fails.
            let regions = hold.regions | 1u8.checked_shl(u32::from(msix.pending.bar)).unwrap_or(0);
            if core::mem::replace(&mut hold.regions, regions) != regions {
                hold.note(env, slot_of(badge));
            }
        }
        let pending = interrupts::pending(env, device, slot_of(badge), mechanism, (first, count))?;
        Ok(MsiPendingReply { pending })
    }

    /// Disables the messages and gives their vectors back.
    pub(super) fn disable_messages(&mut self, badge: Badge) -> Result<(), Refusal> {
        let Parts {
            env, hold, device, ..
        } = self.held_mut(badge, Need::Messages(1))?;
        if hold.interrupts.is_none() && !hold.vectors {
            return Err(device.refusal(Rule::InterruptsDisabled));
        }
        let place = notes::Word::State.of(slot_of(badge));
        let (disabling, disabled) = State::disabling(State::of(hold));
        env.store(place, disabling);
        interrupts::silence(env, device.at, device.msi, device.msix);
        hold.interrupts = None;
        let given = give_back(env, hold, device.at).map_err(from_below);
        match given {
            Ok(()) => env.store(place, disabled),
            Err(_) => hold.note(env, slot_of(badge)),
        }
        given
    }
}

/// Lets the IOMMU deliver messages for this device alone; what comes back is programmed instead.
fn remap<E: Env>(
    env: &mut E,
    at: Sbdf,
    blocks: &mut Vec<Block, MAX_BLOCKS>,
) -> Result<(), Refusal> {
    for block in blocks {
        block.vectors = env
            .remap(at, block.vectors, block.count)
            .map_err(from_below)?;
    }
    Ok(())
}

/// Takes the messages and vectors of a silent device back. A vector may go to another device only when no
/// message of this one raises it any more.
pub(super) fn give_back<E: Env>(
    env: &mut E,
    hold: &mut Hold<E::Ticket>,
    at: Sbdf,
) -> Result<(), Refusal> {
    if hold.remapped {
        env.unremap(at)?;
        hold.remapped = false;
    }
    env.give_back(at)?;
    hold.vectors = false;
    hold.silenced = false;
    Ok(())
}

/// Refuses messages that the device does not have.
pub(super) fn check_messages(
    device: &Device,
    mechanism: Mechanism,
    first: u16,
    count: u16,
) -> Result<(), Refusal> {
    let most = match mechanism {
        Mechanism::Msi => device.msi.map(|msi| u16::from(msi.vectors)),
        Mechanism::MsiX => device.msix.map(|msix| msix.entries),
    };
    let most = most.ok_or_else(|| device.refusal(Rule::NoSuchMechanism))?;
    let end = u32::from(first) + u32::from(count);
    let fits = match mechanism {
        // MSI counts from its first message, in powers of two.
        Mechanism::Msi => first == 0 && count.is_power_of_two(),
        Mechanism::MsiX => count != 0,
    };
    if fits && end <= u32::from(most) {
        Ok(())
    } else {
        Err(Refusal::new(Rule::BadMessageCount, u64::from(most)))
    }
}

/// Takes vectors in powers of two, largest first. After a refusal some may be taken.
fn take_vectors<E: Env>(
    env: &mut E,
    at: Sbdf,
    client: ClientId,
    Messages { first, count }: Messages,
    slot: u16,
) -> Result<Vec<Block, MAX_BLOCKS>, Refusal> {
    let mut blocks = Vec::new();
    let mut left = count;
    // It becomes less in each round.
    while let Some(size) = setup::block_of(left) {
        // The window has been checked for all of them.
        let taken = count - left;
        let messages = Messages {
            first: first.saturating_add(taken),
            count: size,
        };
        let slot = slot.saturating_add(taken);
        let vectors = env.take(at, client, messages, slot).map_err(from_below)?;
        blocks
            .push(Block {
                vectors,
                count: size,
            })
            .map_err(|_| Refusal::new(Rule::BadMessageCount, u64::from(count)))?;
        left -= size;
    }
    Ok(blocks)
}
