//! The pool after a restart: split as the ledger says, with every block used that is noted as used. Whose they are is
//! for the shard to find out.

use heapless::Vec;

use super::{Block, MAX_NODES, MIN_BITS, Node, Pool, Slots, State};
use crate::env::{Env, Slot};
use crate::notes;

/// Most blocks that wait to be looked at: each level of the tree leaves one.
const MAX_OPEN: usize = 64;

impl Pool {
    /// Brings the pieces, which were just added, into the state that the ledger says. What is noted as split, but cannot
    /// have been, and what was being split or merged, is made whole.
    pub fn recover<E: Env>(&mut self, env: &mut E, slots: &mut Slots) {
        for piece in 0..self.pieces {
            let mut open: Vec<Block, MAX_OPEN> = Vec::new();
            let _ = open.push(Block(piece * 2));
            while let Some(block) = open.pop() {
                match notes::Node::read(env.load(notes::NODES + usize::from(block.0))) {
                    notes::Node::Free => {}
                    notes::Node::Used { .. } | notes::Node::Lost => self.use_again(block),
                    notes::Node::Split { pair, slot } => {
                        // There is room: so deep is no tree.
                        let halves = (open.len() + 2 <= MAX_OPEN)
                            .then(|| self.halve(slots, block, Block(pair), slot))
                            .flatten();
                        match halves {
                            Some(halves) => {
                                let _ = open.extend_from_slice(&halves);
                            }
                            None => self.make_whole(env, block),
                        }
                    }
                    notes::Node::Unsure => self.make_whole(env, block),
                }
            }
        }
        self.chain_spare(env);
    }

    /// The first block in use at or after `from`.
    pub fn used_from(&self, from: u16) -> Option<Block> {
        (from..self.untouched)
            .map(Block)
            .find(|block| self.node(*block).state == State::Used)
    }

    /// The block in use that has a physical address.
    pub fn used_at(&self, physical: u64) -> Option<Block> {
        let holds = |node: &Node| {
            let offset = physical.checked_sub(node.base);
            offset.is_some_and(|offset| offset >> node.bits == 0)
        };
        let pieces = (0..self.pieces).map(|piece| Block(piece * 2));
        let mut block = pieces.into_iter().find(|block| holds(&self.node(*block)))?;
        // Each step is a level down: at most one a bit.
        for _ in 0..u64::BITS {
            let node = self.node(block);
            match (node.state, node.child) {
                (State::Used, _) => return Some(block),
                (State::Split, Some(pair)) => {
                    block = if holds(&self.node(pair)) {
                        pair
                    } else {
                        Self::buddy(pair)
                    };
                }
                _ => return None,
            }
        }
        None
    }

    fn use_again(&mut self, block: Block) {
        self.unlink(block);
        self.node_mut(block).state = State::Used;
        self.free_bytes = self.free_bytes.saturating_sub(1 << self.node(block).bits);
        self.live += 1;
        self.count(block, |live| live.saturating_add(1));
    }

    /// Halves a block that was split; `None` if it cannot have been so.
    fn halve(
        &mut self,
        slots: &mut Slots,
        block: Block,
        pair: Block,
        slot: Slot,
    ) -> Option<[Block; 2]> {
        let whole = self.node(block);
        let usable = pair.0.is_multiple_of(2)
            && pair.0 >= self.pieces * 2
            && usize::from(pair.0) + 2 <= MAX_NODES
            && self.node(pair).state == State::Spare
            && whole.bits > MIN_BITS;
        if !usable || !slots.claim_run(slot, 2) {
            return None;
        }
        self.untouched = self.untouched.max(pair.0 + 2);
        Some(self.hang_halves(block, pair, slot))
    }

    /// Takes everything that was made of a block, and notes that it is free.
    fn make_whole<E: Env>(&mut self, env: &mut E, block: Block) {
        let note = if env.revoke(self.slot(block)).is_ok() {
            notes::Node::Free
        } else {
            self.use_again(block);
            notes::Node::Lost
        };
        env.store(notes::NODES + usize::from(block.0), note.word());
    }

    /// Pairs that nothing leads to are spare again.
    fn chain_spare<E: Env>(&mut self, env: &mut E) {
        for pair in (self.pieces * 2..MAX_NODES as u16).step_by(2).rev() {
            let pair = Block(pair);
            if self.node(pair).state != State::Spare {
                continue;
            }
            for half in [pair, Self::buddy(pair)] {
                let word = notes::NODES + usize::from(half.0);
                if env.load(word) != 0 {
                    env.store(word, notes::Node::Free.word());
                }
            }
            if pair.0 < self.untouched {
                self.give_pair(pair);
            }
        }
    }
}
