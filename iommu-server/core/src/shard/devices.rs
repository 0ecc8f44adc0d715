//! Devices: attached to their holders' contexts, under every requester id they
//! have, and blocked again; their interrupt messages.
//!
//! Attaching is one transaction: regions that firmware reserved are mapped
//! first, so that the device finds them, then each requester id is attached;
//! what was done is undone in the opposite order. Detaching goes on past what
//! fails.

use heapless::Vec;
use hw::Sbdf;
use ipc_proto::{ClientId, ContextChoice, Messages, Properties, Refusal, Rule};

use super::contexts::{domain_of, find_context};
use super::reserved::Region;
use super::storms::Standing;
use super::{Attached, Requester, Shard, backend_refusal};
use crate::backend::{Backend, BackendError, DeviceCache, Extent, InterruptMessage, MessagePart};
use crate::buffers::{Certainty, NO_FRAMES};
use crate::env::Env;
use crate::faults::Storm;
use crate::notes::{self, DeviceNote, Stage};

/// Most requester ids of a device besides its own.
pub const MAX_ALIASES: usize = 8;

impl<E: Env, B: Backend> Shard<'_, E, B> {
    /// Attaches a device to a context of the client; returns what that promises and the context's number.
    pub(super) fn attach_device(
        &mut self,
        device: Sbdf,
        client: ClientId,
        choice: ContextChoice,
        cache: DeviceCache,
    ) -> Result<(Properties, u16), Refusal> {
        let about = u64::from(device.to_bits());
        let mut properties = self
            .backend
            .properties(device, cache)
            .ok_or(Refusal::new(Rule::NoIommu, about))?;
        match self.attached(device).map(|attached| attached.certainty) {
            Some(Certainty::Mapped) => {
                return Err(Refusal::new(Rule::AlreadyAttached, about));
            }
            Some(Certainty::Unconfirmed) => {
                return Err(Refusal::new(Rule::InvalidationTimeout, about));
            }
            None if self.devices.is_full() => {
                return Err(Rule::TooManyAssignments.into());
            }
            None => {}
        }
        let forbidden = self.reserved_of(device).find(|region| !region.allowed);
        if let Some(region) = forbidden {
            return Err(Refusal::new(Rule::ReservedRegion, region.base));
        }
        // What it did until now was nobody's.
        if let Some(unit) = self.backend.unit_of(device) {
            self.drain(unit);
        }
        let context = self.choose_context(client, choice)?;
        let mut note = DeviceNote {
            stage: Stage::Begun,
            device,
            client,
            context,
            depth: cache.depth(),
        };
        let word = notes::DEVICES + self.devices.len();
        self.env.store(word, note.word());
        if let Err(refusal) = self.enter_reserved(device, client, context) {
            self.end_idle_context(client, context);
            self.env.store(word, 0);
            return Err(refusal);
        }
        let mut certainty = Certainty::Mapped;
        let mut outcome = Ok(());
        match self.attach_requesters(device, client, context, cache) {
            Ok(kept) => {
                properties.translation_cached = kept != DeviceCache::None;
                (note.stage, note.depth) = (Stage::Whole, kept.depth());
            }
            Err((refusal, Certainty::Unconfirmed)) => {
                certainty = Certainty::Unconfirmed;
                outcome = Err(refusal);
            }
            Err((refusal, Certainty::Mapped)) => {
                self.leave_reserved(device, client, context);
                self.end_idle_context(client, context);
                self.env.store(word, 0);
                return Err(refusal);
            }
        }
        // There is room: it was checked.
        let _ = self.devices.push(Attached {
            device,
            client,
            context,
            certainty,
            storm: Storm::new(),
            standing: Standing::Good,
            trouble: None,
            untold_faults: 0,
        });
        self.forget_stranger(device);
        let entry = self.context(client, context)?;
        entry.devices = entry.devices.saturating_add(1);
        // An attachment that is in doubt is taken back after a restart.
        self.env.store(word, note.word());
        outcome.map(|()| (properties, context))
    }

    /// Attaches all requester ids of a device, or none. The certainty with the refusal says whether some
    /// may be left in the domain.
    fn attach_requesters(
        &mut self,
        device: Sbdf,
        client: ClientId,
        context: u16,
        cache: DeviceCache,
    ) -> Result<DeviceCache, (Refusal, Certainty)> {
        let ids = self.requesters_of(device);
        // A cache is kept under one id; with several, whose it is would not be known.
        let cache = if ids.len() == 1 {
            cache
        } else {
            DeviceCache::None
        };
        let mut kept = DeviceCache::None;
        for (done, id) in ids.iter().enumerate() {
            match self.attach_requester(*id, client, context, cache) {
                Ok(this) => kept = this,
                Err((refusal, certainty)) => {
                    let mut left = certainty;
                    for undo in ids.iter().take(done) {
                        if self.detach_requester(*undo).is_err() {
                            left = Certainty::Unconfirmed;
                        }
                    }
                    return Err((refusal, left));
                }
            }
        }
        Ok(kept)
    }

    fn attach_requester(
        &mut self,
        id: Sbdf,
        client: ClientId,
        context: u16,
        cache: DeviceCache,
    ) -> Result<DeviceCache, (Refusal, Certainty)> {
        let nothing_done = |refusal| (refusal, Certainty::Mapped);
        if let Some(found) = self.requesters.iter_mut().find(|found| found.id == id) {
            // Devices behind one bridge use its id: they are one client's, in one context.
            if (found.client, found.context) != (client, context) {
                let refusal = Refusal::new(Rule::AlreadyAttached, id.to_bits().into());
                return Err(nothing_done(refusal));
            }
            found.users = found.users.saturating_add(1);
            return Ok(DeviceCache::None);
        }
        if self.requesters.is_full() {
            return Err(nothing_done(Rule::TooManyAssignments.into()));
        }
        let entry =
            find_context(self.clients, self.private, client, context).map_err(nothing_done)?;
        let attached = domain_of(entry, (client, context), &mut self.backend, &mut self.env)
            .and_then(|domain| self.backend.attach(id, domain, cache));
        let certainty = match attached {
            Ok(_) => Certainty::Mapped,
            Err(BackendError::Unconfirmed) => Certainty::Unconfirmed,
            Err(error) => return Err(nothing_done(backend_refusal(error))),
        };
        // There is room: it was checked.
        let _ = self.requesters.push(Requester {
            id,
            client,
            context,
            users: 1,
            certainty,
        });
        attached.map_err(|error| (backend_refusal(error), certainty))
    }

    fn detach_requester(&mut self, id: Sbdf) -> Result<(), Refusal> {
        let place = self.requesters.iter().position(|found| found.id == id);
        let Some((place, found)) =
            place.and_then(|place| Some((place, self.requesters.get_mut(place)?)))
        else {
            // Only after a restart: an earlier life has detached it.
            return Ok(());
        };
        if found.certainty == Certainty::Unconfirmed {
            return Err(Refusal::new(Rule::InvalidationTimeout, id.to_bits().into()));
        }
        if found.users > 1 {
            found.users -= 1;
            return Ok(());
        }
        let entry = find_context(self.clients, self.private, found.client, found.context)?;
        let domain = entry.domain.ok_or(Rule::NoContext)?;
        match self.backend.detach(id, domain) {
            Ok(()) => {
                self.requesters.swap_remove(place);
                Ok(())
            }
            Err(error) => {
                found.certainty = Certainty::Unconfirmed;
                Err(backend_refusal(error))
            }
        }
    }

    /// Blocks a device again, under all its requester ids, and takes its messages back.
    pub(super) fn detach_device(&mut self, device: Sbdf) -> Result<(), Refusal> {
        let about = u64::from(device.to_bits());
        let place = self
            .devices
            .iter()
            .position(|attached| attached.device == device)
            .ok_or(Refusal::new(Rule::NotAttached, about))?;
        let Some(attached) = self.devices.get(place).copied() else {
            return Err(Refusal::new(Rule::NotAttached, about));
        };
        if attached.certainty == Certainty::Unconfirmed {
            return Err(Refusal::new(Rule::InvalidationTimeout, about));
        }
        if let Some(unit) = self.backend.unit_of(device) {
            // What it did until now is its present holder's to hear.
            self.drain(unit);
        }
        self.note_device(place, Stage::Ending);
        let mut outcome = self.unremap_device(device);
        for id in &self.requesters_of(device) {
            outcome = outcome.and(self.detach_requester(*id));
        }
        self.hear_silent();
        if outcome.is_err() {
            if let Some(attached) = self.devices.get_mut(place) {
                attached.certainty = Certainty::Unconfirmed;
            }
            return outcome;
        }
        self.leave_reserved(device, attached.client, attached.context);
        let context = self.context(attached.client, attached.context)?;
        context.devices = context.devices.saturating_sub(1);
        self.end_idle_context(attached.client, attached.context);
        self.devices.swap_remove(place);
        self.note_removal(notes::DEVICES, place, self.devices.len());
        Ok(())
    }

    /// Says whether an attached device may keep translations from now on; whether it may then.
    pub(super) fn keep_device(
        &mut self,
        device: Sbdf,
        cache: DeviceCache,
    ) -> Result<bool, Refusal> {
        let about = u64::from(device.to_bits());
        let attached = self.attached(device).copied();
        let attached = attached.ok_or(Refusal::new(Rule::NotAttached, about))?;
        if attached.certainty == Certainty::Unconfirmed {
            return Err(Refusal::new(Rule::InvalidationTimeout, about));
        }
        if self.requesters_of(device).len() > 1 {
            // As when it was attached: a cache is kept under one id.
            return Ok(false);
        }
        let context = self.context(attached.client, attached.context)?;
        let domain = context.domain.ok_or(Rule::NoContext)?;
        if let DeviceCache::Depth(_) = cache {
            self.note_cache(device, cache);
        }
        let kept = self.backend.keep(device, domain, cache);
        if let Ok(kept) = kept {
            self.note_cache(device, kept);
        }
        self.hear_silent();
        kept.map(|kept| kept != DeviceCache::None)
            .map_err(backend_refusal)
    }

    pub(super) fn attached(&self, device: Sbdf) -> Option<&Attached> {
        self.devices
            .iter()
            .find(|attached| attached.device == device)
    }

    /// Gives a device one more requester id, kept until `alias` is the device itself, which takes all away.
    pub(super) fn add_alias(&mut self, device: Sbdf, alias: Sbdf) -> Result<(), Refusal> {
        let about = Refusal::new(Rule::AlreadyAttached, device.to_bits().into());
        if self.attached(device).is_some() {
            return Err(about);
        }
        if alias == device {
            self.aliases.retain(|(of, _)| *of != device);
            self.note_aliases();
            return Ok(());
        }
        if alias.segment() != device.segment() {
            return Err(Refusal::new(Rule::BadArgument, 1));
        }
        if self.aliases.contains(&(device, alias)) {
            return Ok(());
        }
        let known = self.aliases.iter().filter(|(of, _)| *of == device).count();
        if known >= MAX_ALIASES {
            return Err(Refusal::new(Rule::TooManyAssignments, MAX_ALIASES as u64));
        }
        let word = notes::ALIASES + self.aliases.len();
        self.aliases
            .push((device, alias))
            .map_err(|_| Rule::TooManyAssignments)?;
        self.env.store(word, notes::alias_word(device, alias));
        Ok(())
    }

    /// The requester ids of a device, its own first.
    pub(super) fn requesters_of(&self, device: Sbdf) -> Vec<Sbdf, { MAX_ALIASES + 1 }> {
        let aliases = self.aliases.iter().filter(|(of, _)| *of == device);
        let id = device.requester_id();
        let of_firmware = self.firmware_aliases.iter().filter(|range| {
            range.segment == device.segment()
                && (range.first..=range.last).contains(&id)
                && range.alias != id
        });
        let of_firmware =
            of_firmware.map(|range| Sbdf::from_requester_id(range.segment, range.alias));
        let mut ids: Vec<Sbdf, { MAX_ALIASES + 1 }> = Vec::new();
        // There are at most so many: more are not entered.
        for id in core::iter::once(device)
            .chain(of_firmware)
            .chain(aliases.map(|(_, alias)| *alias))
        {
            if !ids.contains(&id) {
                let _ = ids.push(id);
            }
        }
        ids
    }

    /// Makes messages deliverable by a device alone.
    pub(super) fn remap_device(
        &mut self,
        device: Sbdf,
        message: InterruptMessage,
        count: u16,
    ) -> Result<InterruptMessage, Refusal> {
        let ids = self.requesters_of(device);
        let aliases = ids.get(1..).unwrap_or_default();
        if self.messages.is_full() {
            return Err(Rule::RemapExhausted.into());
        }
        let remapped = self.backend.remap(device, aliases, message, count);
        if let Ok(sent) = remapped
            && sent != message
        {
            self.note_messages(device, sent, count);
        }
        remapped.map_err(|error| match error {
            BackendError::BadMessage(part) => Refusal::new(
                Rule::BadArgument,
                match part {
                    MessagePart::Address => 1,
                    MessagePart::Data => 2,
                    MessagePart::Count => 3,
                },
            ),
            error => backend_refusal(error),
        })
    }

    /// Sends messages of a device elsewhere.
    pub(super) fn reroute_device(
        &mut self,
        device: Sbdf,
        remapped: InterruptMessage,
        messages: Messages,
        address: u64,
    ) -> Result<(), Refusal> {
        let messages = (messages.first, messages.count);
        let outcome = self.backend.reroute(device, remapped, messages, address);
        outcome.map_err(|error| match error {
            BackendError::BadMessage(MessagePart::Address) => Refusal::new(Rule::BadArgument, 3),
            BackendError::BadMessage(_) => Refusal::new(Rule::BadArgument, 2),
            error => backend_refusal(error),
        })
    }

    pub(super) fn unremap_device(&mut self, device: Sbdf) -> Result<(), Refusal> {
        match self.backend.unremap(device) {
            // Where no unit is, nothing was remapped.
            Ok(()) | Err(BackendError::NoUnit) => {
                self.forget_messages(device);
                Ok(())
            }
            Err(error) => Err(backend_refusal(error)),
        }
    }

    /// Maps the regions that firmware reserved for a device where they are, in a context; all or none.
    fn enter_reserved(
        &mut self,
        device: Sbdf,
        client: ClientId,
        context: u16,
    ) -> Result<(), Refusal> {
        let mut entered = 0;
        // The device's regions are named by number, since entering one needs the shard.
        while let Ok(region) = self.reserved_at_index(device, entered) {
            if let Err(refusal) = self.enter_region(client, context, &region) {
                for number in 0..entered {
                    if let Ok(region) = self.reserved_at_index(device, number) {
                        self.leave_region(client, context, region.base);
                    }
                }
                return Err(refusal);
            }
            entered += 1;
        }
        Ok(())
    }

    fn leave_reserved(&mut self, device: Sbdf, client: ClientId, context: u16) {
        let mut number = 0;
        while let Ok(region) = self.reserved_at_index(device, number) {
            self.leave_region(client, context, region.base);
            number += 1;
        }
    }

    fn enter_region(
        &mut self,
        client: ClientId,
        context: u16,
        region: &Region,
    ) -> Result<(), Refusal> {
        let (base, bytes) = (region.base, region.bytes);
        let crate::Addressing::Translated { limit } = self.addressing else {
            // Nothing is translated: it is reachable as it is.
            return Ok(());
        };
        let refused = Refusal::new(Rule::ReservedRegion, base);
        let entry = find_context(self.clients, self.private, client, context)?;
        match entry.take_reserved(base, bytes, limit) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(_) => return Err(refused),
        }
        let extent = Extent {
            physical: base,
            bytes,
            frames: NO_FRAMES,
            page_bits: 12,
        };
        let mapped = domain_of(entry, (client, context), &mut self.backend, &mut self.env)
            .and_then(|domain| self.backend.map(domain, base, &[extent], region.access));
        if let Err(error) = mapped {
            if error != BackendError::Unconfirmed {
                entry.give_reserved(base);
            }
            return Err(backend_refusal(error));
        }
        Ok(())
    }

    fn leave_region(&mut self, client: ClientId, context: u16, base: u64) {
        let Ok(entry) = find_context(self.clients, self.private, client, context) else {
            return;
        };
        let Some((bytes, domain)) = entry.last_of_reserved(base).zip(entry.domain) else {
            return;
        };
        if self.backend.unmap(domain, base, bytes).is_ok() {
            entry.give_reserved(base);
        }
        // Else the addresses stay taken; the region is no memory of the pool.
        self.hear_silent();
    }
}
