//! Contexts, devices and messages: what the ledger says, as the tables have it.

use heapless::Vec;
use hw::Sbdf;
use ipc_proto::Trouble;
use system::model::MAX_CLIENTS;

use crate::adopt::{Adopt, Found};
use crate::backend::{DeviceCache, DomainId};
use crate::buffers::Certainty;
use crate::env::Env;
use crate::faults::Storm;
use crate::notes::{self, ContextNote, DeviceNote, MessageNote, Stage};
use crate::shard::contexts::{SHARED, context_word};
use crate::shard::devices::MAX_ALIASES;
use crate::shard::storms::Standing;
use crate::shard::{Attached, MAX_ATTACHED, MAX_MESSAGE_BLOCKS, MAX_PRIVATE, Requester, Shard};

impl<E: Env, B: Adopt> Shard<'_, E, B> {
    pub(super) fn restore_contexts(&mut self) {
        for place in 0..MAX_CLIENTS + MAX_PRIVATE {
            let word = notes::CONTEXTS + place;
            let Some(note) = ContextNote::read(self.env.load(word)) else {
                self.clear_word(word);
                continue;
            };
            let (owner, domain) = (note.owner, DomainId(note.domain));
            let number = match place.checked_sub(MAX_CLIENTS) {
                None => SHARED,
                Some(private) => private as u16 + 1,
            };
            let sensible = self.known(owner).is_ok() && context_word(owner, number) == word;
            if !sensible || self.backend.adopt_domain(domain, owner, note.mark).is_err() {
                self.clear_word(word);
                continue;
            }
            if let Some(private) = place.checked_sub(MAX_CLIENTS)
                && let Some(found) = self.private.get_mut(private)
            {
                found.owner = owner.0 + 1;
            }
            if let Ok(context) = self.context(owner, number) {
                context.domain = Some(domain);
            }
        }
    }

    fn clear_word(&mut self, word: usize) {
        if self.env.load(word) != 0 {
            self.env.store(word, 0);
        }
    }

    /// Enters the devices that are noted. The list is made anew in the same places, as far as it has no holes.
    pub(super) fn restore_devices(&mut self) {
        for place in 0..MAX_ATTACHED {
            let word = self.env.load(notes::DEVICES + place);
            let listed = self.devices.len();
            let note = DeviceNote::read(word).filter(|note| {
                self.known(note.client).is_ok() && self.attached(note.device).is_none()
            });
            if let Some(note) = note {
                self.restore_device(&note, word);
            }
            if self.devices.len() == listed || place != listed {
                self.clear_word(notes::DEVICES + place);
            }
        }
    }

    fn restore_device(&mut self, note: &DeviceNote, word: u64) {
        let (device, client, number) = (note.device, note.client, note.context);
        let domain = self
            .context(client, number)
            .ok()
            .and_then(|found| found.domain);
        let Some(domain) = domain else {
            // One that was only begun, or was almost out, had nothing yet, or nothing more.
            if note.stage == Stage::Whole {
                self.report_lost(device);
            }
            return;
        };
        let place = self.devices.len();
        self.env.store(notes::DEVICES + place, word);
        let mut attached = Attached {
            device,
            client,
            context: number,
            certainty: Certainty::Mapped,
            storm: Storm::new(),
            standing: Standing::Good,
            trouble: None,
            untold_faults: 0,
        };
        let ids = self.requesters_of(device);
        let cache = match ids.len() {
            1 => DeviceCache::from_depth(note.depth),
            _ => DeviceCache::None,
        };
        for id in &ids {
            match self.restore_requester(*id, note, domain, cache) {
                Some(Found::Within) => {}
                Some(Found::Silenced) => attached.standing = Standing::Silenced,
                Some(Found::Blocked | Found::Released) if note.stage == Stage::Whole => {
                    attached.trouble = Some((Trouble::FaultStorm, 1));
                }
                Some(Found::Blocked | Found::Released) => {}
                None => self.note_device(place, Stage::Ending),
            }
        }
        // As many as words of the ledger.
        let _ = self.devices.push(attached);
        if let Ok(context) = self.context(client, number) {
            context.devices = context.devices.saturating_add(1);
        }
    }

    /// Enters a requester id of a device. `None`: it is another's.
    fn restore_requester(
        &mut self,
        id: Sbdf,
        note: &DeviceNote,
        domain: DomainId,
        cache: DeviceCache,
    ) -> Option<Found> {
        if let Some(known) = self.requesters.iter_mut().find(|known| known.id == id) {
            if (known.client, known.context) != (note.client, note.context) {
                return None;
            }
            known.users = known.users.saturating_add(1);
            return Some(Found::Within);
        }
        if self.requesters.is_full() {
            return None;
        }
        let found = self.backend.adopt_requester(id, domain, cache);
        if found != Found::Released {
            // There is room: it was checked.
            let _ = self.requesters.push(Requester {
                id,
                client: note.client,
                context: note.context,
                users: 1,
                certainty: Certainty::Mapped,
            });
        }
        Some(found)
    }

    pub(super) fn restore_messages(&mut self) {
        for place in 0..MAX_MESSAGE_BLOCKS {
            let word = self.env.load(notes::MESSAGES + place);
            let listed = self.messages.len();
            if let Some(note) = MessageNote::read(word) {
                self.restore_message(&note, word);
            }
            if self.messages.len() == listed || place != listed {
                self.clear_word(notes::MESSAGES + place);
            }
        }
    }

    fn restore_message(&mut self, note: &MessageNote, word: u64) {
        if self.messages.contains(note) {
            return;
        }
        let ids: Vec<Sbdf, { MAX_ALIASES + 1 }> = self.requesters_of(note.device);
        let aliases = ids.get(1..).unwrap_or_default();
        let (device, sent, count) = (note.device, note.sent, note.count);
        if self.backend.adopt_messages(device, aliases, sent, count) {
            self.env.store(notes::MESSAGES + self.messages.len(), word);
            // As many as words of the ledger.
            let _ = self.messages.push(*note);
        }
    }
}
