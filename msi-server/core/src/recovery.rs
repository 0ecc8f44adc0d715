//! A start of the shard: what its ledger says is judged, and made true.
//!
//! A vector stays with a device only if its note makes sense in every respect, and its holder need not notice. Every other vector
//! is taken back from whoever may have it, so that what was being taken is undone, and what was being given back is
//! given back: also where the ledger is damaged, no vector can have two holders. Notes are forgotten last, since this, too, may
//! be cut short; then the next start does it again.
//!
//! Metered vectors are metered anew, by the description; what their clients have named is in the server's slots.
//!
//! Lines: a line that was raised may have told nobody, and its signal is gone with the server. So every line counts as raised:
//! every client on it is told, and it opens when all have looked.
//!
//! Neighbours: [`crate::notes`] says what there is to read.

use core::ops::Range;

use system::info::MAX_LINES;

use crate::notes::{NotedUser, Notes, Stage};
use crate::shard::{Block, Holder, MAX_MESSAGES, MAX_VECTORS};
use crate::{Env, Shard};

impl<E: Env> Shard<E> {
    /// Takes up what an earlier life of the shard has left. To be called once, when nothing is held.
    pub(crate) fn recover(&mut self) {
        self.absorbed = self.notes().absorbed_at();
        self.recover_lost();
        for first in 0..MAX_VECTORS as u16 {
            if let Some((block, stage)) = self.notes().block_at(first) {
                self.recover_block(&block, stage);
            }
        }
        self.reclaim_others();
        let all = self.all_cores();
        self.env.quiesce(all);
        self.recover_meters();
        for first in 0..MAX_VECTORS as u16 {
            let stays = self.blocks.iter().any(|block| block.first == first);
            if !stays && self.notes().has_block(first) {
                self.notes().clear_block(first);
            }
        }
        self.recover_lines();
    }

    fn recover_lost(&mut self) {
        for at in 0..MAX_VECTORS / 64 {
            let bits = self.notes().lost_at(at);
            if let Some(word) = self.lost.get_mut(at) {
                *word = bits;
            }
        }
    }

    /// Lets a block stay with its device, if it can have been given to it.
    fn recover_block(&mut self, block: &Block, stage: Stage) {
        if matches!(stage, Stage::Taking | Stage::Freeing) || !self.is_sound(block) {
            return;
        }
        let Block {
            client,
            first,
            messages,
            ..
        } = *block;
        if self.blocks.is_full() || !self.vectors.claim(client, first, messages.count) {
            return;
        }
        for vector in block.vectors() {
            let mut core = self.notes().core_at(vector);
            if usize::from(core) >= self.apics.len() {
                core = self.share(client).map_or(0, |share| share.core);
            }
            let all = self.all_cores();
            let at = usize::from(vector);
            if let (Some(place), Some(seen)) = (self.cores.get_mut(at), self.seen.get_mut(at)) {
                *place = core;
                // Where else its messages were sent is not known any more.
                *seen = all;
            }
        }
        // There is room: it was looked for.
        let _ = self.blocks.push(*block);
    }

    /// Could a block have been taken as it is, beside those that were found to be sound?
    fn is_sound(&self, block: &Block) -> bool {
        let Range { start, end } = self.range();
        let count = block.messages.count;
        let last = block.first.saturating_add(count);
        count.is_power_of_two()
            && count <= MAX_MESSAGES
            && block.messages.end() <= 1 << 16
            && block.first.is_multiple_of(count)
            && start <= block.first
            && last <= end
            && self.shard_of(block.device).is_some()
            && (self.blocks.iter())
                .all(|other| other.device != block.device || other.client == block.client)
            // Only what nobody holds can have been lost before it was given back.
            && (block.holder == Holder::Nobody || !block.vectors().any(|it| self.is_lost(it)))
    }

    /// Takes every vector back that no client holds: of those that are free copies may be left.
    fn reclaim_others(&mut self) {
        for vector in self.range() {
            let holder = self.used(vector).map(|used| used.holder);
            if holder == Some(Holder::Client) {
                continue;
            }
            let number = self.kernel_vector(vector);
            if self.env.reclaim(number).is_err() {
                self.lose(vector);
            }
            if holder.is_none() && self.is_lost(vector) {
                self.vectors.withdraw(vector);
            }
        }
    }

    fn recover_lines(&mut self) {
        for line in 0..MAX_LINES {
            for number in Notes::<E::Ledger>::numbers(line) {
                let Some(user) = self.notes().user_at(number) else {
                    continue;
                };
                if !(self.may_raise(&user) && self.rejoin(line, number, &user)) {
                    self.notes().clear_user(number);
                }
            }
        }
        self.raise_all();
    }

    /// Could the device be on a line?
    fn may_raise(&self, user: &NotedUser) -> bool {
        let NotedUser {
            device,
            client,
            shard,
            ..
        } = *user;
        self.is_of(shard, device) && self.share(client).is_ok() && !self.is_on_a_line(device)
    }
}
