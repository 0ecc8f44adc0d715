//! Device memory back: frames of a region, and every split that nothing else needs.

use ipc_proto::Refusal;

use super::{Bank, Block, Objects, Parts, recovery};
use crate::env::RegionId;

impl Bank {
    /// Takes every frame of a region away, and every split that no other region needs.
    ///
    /// # Errors
    /// `KernelRefused`: frames may be left, and their slots stay taken.
    pub fn revoke<O: Objects>(&mut self, objects: &mut O, region: RegionId) -> Result<(), Refusal> {
        let Ok(place) = self.find_region(region) else {
            return Ok(());
        };
        let known = self.regions.remove(place);
        let mut next = Some(region.base);
        // Each round leaves a block behind.
        while let Some(address) = next.filter(|address| *address <= region.last()) {
            match self.revoke_block(objects, address) {
                Ok(last) => next = last.checked_add(1),
                Err(refusal) => {
                    // It was in there a moment ago.
                    let _ = self.regions.insert(place, known);
                    return Err(refusal);
                }
            }
        }
        Ok(())
    }

    /// Takes the largest block back that has `address` and is no other region's; gives its last byte.
    fn revoke_block<O: Objects>(&mut self, objects: &mut O, address: u64) -> Result<u64, Refusal> {
        let Ok(mut block) = self.piece(address) else {
            // Not the shard's: go on behind the page.
            return Ok(address | 0xfff);
        };
        loop {
            let Some(node) = self.node(block) else {
                return Ok(block.last());
            };
            if !self.is_used(block) {
                self.revoke_whole(objects, block)?;
                return Ok(block.last());
            }
            block = node.part(address);
            if node.parts == Parts::Frames {
                objects.revoke(block.slot)?;
                return Ok(block.last());
            }
        }
    }

    /// Does any region reach into a block? Regions do not overlap: of those that begin before its
    /// end, the last one reaches farthest.
    pub(super) fn is_used(&self, block: Block) -> bool {
        let after = self
            .regions
            .partition_point(|known| known.region.base <= block.last());
        after
            .checked_sub(1)
            .and_then(|at| self.regions.get(at))
            .is_some_and(|known| known.region.last() >= block.base)
    }

    /// Takes everything back that a block was made into.
    pub(super) fn revoke_whole<O: Objects>(
        &mut self,
        objects: &mut O,
        block: Block,
    ) -> Result<(), Refusal> {
        let node = self.node(block);
        // Not noted any more before it is gone: whatever is not noted goes at the next start.
        if let Some(node) = &node {
            recovery::forget(objects, node);
        }
        if let Err(refusal) = objects.revoke(block.slot) {
            if let Some(node) = &node {
                recovery::note(objects, node);
            }
            return Err(refusal);
        }
        self.drop_nodes(objects, block);
        Ok(())
    }

    /// Forgets the parts of a block that was revoked, and their parts.
    pub(super) fn drop_nodes<O: Objects>(&mut self, objects: &mut O, block: Block) {
        let (Ok(first) | Err(first)) = self.find_node(block.base, block.bits);
        let end = self.nodes.partition_point(|node| node.base <= block.last());
        for node in self.nodes.iter().take(end).skip(first) {
            recovery::forget(objects, node);
            self.notes.give(node.note);
            objects.forget(node.first, node.count());
            self.split_bytes = self.split_bytes.saturating_sub(node.frame_bytes());
        }
        self.nodes.drain(first..end);
    }
}
