//! [`Pool`]: the memory DMA buffers are made of. A buddy allocator over the
//! untypeds that the shard was given; a block is an untyped capability.
//!
//! Splitting retypes an untyped into two halves; merging revokes it. Retyping
//! an untyped whose children are gone makes the kernel clear all of it, so
//! merging early would clear megabytes for each 4 KiB buffer: blocks stay
//! split until something larger is wanted, or descriptors run out, or
//! [`Pool::merge_idle`] finds pieces that nothing uses.
//!
//! Bounds: [`MAX_NODES`] blocks; every list walk ends within them.
//!
//! What is split is noted in the ledger, and so known again after a restart (`recover`).

mod recover;

use system::info::UntypedPiece;
use system::pool::NumberPool;

use crate::env::{EffectError, Env, Slot};
use crate::notes;

/// Most blocks, whole pieces and halves together.
pub const MAX_NODES: usize = 4096;
/// Pool of capability slots; any 16-bit number may be one.
pub type Slots = NumberPool<1024>;

/// Smallest block: 2^12 bytes.
pub const MIN_BITS: u8 = 12;
const ORDERS: usize = 48;

/// A block of the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block(u16);

/// Why no block was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PoolError {
    /// No block of this size is free, or can be made free by merging.
    Exhausted,
    /// No more descriptors of blocks.
    TooManyBlocks,
    /// No more capability slots.
    Slots,
    /// The kernel refused a step.
    Effect(EffectError),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Not a block.
    Spare,
    Free,
    Split,
    Used,
}

type Link = Option<Block>;

#[derive(Clone, Copy)]
struct Node {
    base: u64,
    slot: Slot,
    parent: Link,
    /// Left half; the right one is its neighbour (nodes are taken in pairs).
    child: Link,
    next: Link,
    previous: Link,
    /// Used blocks below.
    live: u16,
    bits: u8,
    state: State,
}

impl Node {
    const SPARE: Self = Self {
        base: 0,
        slot: 0,
        parent: None,
        child: None,
        next: None,
        previous: None,
        live: 0,
        bits: 0,
        state: State::Spare,
    };
}

/// The allocator. All memory it knows is either free, or in a block that was given out, or lost.
pub struct Pool {
    nodes: [Node; MAX_NODES],
    /// Free blocks by size.
    free: [Link; ORDERS],
    /// Pairs that were given back, chained by `next` of their first node.
    spare: Link,
    /// Nodes from here on were never taken.
    untouched: u16,
    /// The first nodes are whole pieces, each wasting its neighbour.
    pieces: u16,
    total_bytes: u64,
    free_bytes: u64,
    live: u32,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            nodes: [Node::SPARE; MAX_NODES],
            free: [None; ORDERS],
            spare: None,
            untouched: 0,
            pieces: 0,
            total_bytes: 0,
            free_bytes: 0,
            live: 0,
        }
    }

    /// Adds a piece of memory. `false`, and nothing changes, when it is smaller than a page, not aligned
    /// to its size, or one too many; or when blocks were taken already.
    #[must_use]
    pub fn add(&mut self, piece: &UntypedPiece) -> bool {
        let order = usize::from(piece.bits);
        let aligned = order < ORDERS && piece.base & ((1 << piece.bits) - 1) == 0;
        if piece.bits < MIN_BITS || !aligned || self.untouched != self.pieces * 2 {
            return false;
        }
        let Some(block) = self.take_pair() else {
            return false;
        };
        self.pieces += 1;
        *self.node_mut(block) = Node {
            base: piece.base,
            slot: piece.slot,
            bits: piece.bits,
            ..Node::SPARE
        };
        self.total_bytes += 1 << piece.bits;
        self.free_bytes += 1 << piece.bits;
        self.push_free(block);
        true
    }

    /// All bytes the pool was given.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Bytes that are in no block given out.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// Blocks given out.
    #[must_use]
    pub fn used_blocks(&self) -> u32 {
        self.live
    }

    /// Physical address of a block.
    #[must_use]
    pub fn base(&self, block: Block) -> u64 {
        self.node(block).base
    }

    /// Its size: 2^this bytes.
    #[must_use]
    pub fn bits(&self, block: Block) -> u8 {
        self.node(block).bits
    }

    /// Word of the ledger that says what became of it.
    #[must_use]
    pub fn word(&self, block: Block) -> usize {
        notes::NODES + usize::from(block.0)
    }

    /// Number of the block, to go on from.
    #[must_use]
    pub fn number(&self, block: Block) -> u16 {
        block.0
    }

    /// Slot of its untyped.
    #[must_use]
    pub fn slot(&self, block: Block) -> Slot {
        self.node(block).slot
    }

    /// Takes a block of 2^`bits` bytes; its untyped has no children.
    ///
    /// # Errors
    /// See [`PoolError`]. No block is lost; a larger one may stay split.
    pub fn take<E: Env>(
        &mut self,
        env: &mut E,
        slots: &mut Slots,
        bits: u8,
    ) -> Result<Block, PoolError> {
        if bits < MIN_BITS || usize::from(bits) >= ORDERS {
            return Err(PoolError::Exhausted);
        }
        match self.try_take(env, slots, bits) {
            Err(PoolError::TooManyBlocks | PoolError::Slots) => {
                // Descriptors and slots may be tied up in blocks that are split for nothing.
                self.merge_where(env, slots, |pool, node| {
                    let above = node.parent.map(|parent| pool.node(parent).live);
                    above.is_none_or(|live| live > 0)
                });
                self.try_take(env, slots, bits)
            }
            outcome => outcome,
        }
    }

    fn try_take<E: Env>(
        &mut self,
        env: &mut E,
        slots: &mut Slots,
        bits: u8,
    ) -> Result<Block, PoolError> {
        let mut block = match self.smallest_free(bits) {
            Some(block) => block,
            None => {
                let block = self.smallest_idle(bits).ok_or(PoolError::Exhausted)?;
                self.merge(env, slots, block)?;
                block
            }
        };
        while self.bits(block) > bits {
            block = self.split(env, slots, block)?;
        }
        self.unlink(block);
        self.node_mut(block).state = State::Used;
        self.free_bytes -= 1 << bits;
        self.live += 1;
        self.count(block, |live| live + 1);
        Ok(block)
    }

    /// Takes a block back. Its untyped has no children any more.
    pub fn give(&mut self, block: Block) {
        if self.node(block).state != State::Used {
            return;
        }
        self.free_bytes += 1 << self.bits(block);
        self.live -= 1;
        self.count(block, |live| live.saturating_sub(1));
        self.push_free(block);
    }

    /// Merges every piece of which nothing is in use. A merge that the kernel refuses is left out:
    /// the piece just stays split.
    pub fn merge_idle<E: Env>(&mut self, env: &mut E, slots: &mut Slots) {
        self.merge_where(env, slots, |_, node| node.parent.is_none());
    }

    /// Merges every split block without use below that passes the test.
    fn merge_where<E: Env>(
        &mut self,
        env: &mut E,
        slots: &mut Slots,
        test: impl Fn(&Self, &Node) -> bool,
    ) {
        for index in 0..self.untouched {
            let node = self.node(Block(index));
            if node.state == State::Split && node.live == 0 && test(self, &node) {
                let _ = self.merge(env, slots, Block(index));
            }
        }
    }

    /// Halves a free block and returns its left half; both are free then.
    fn split<E: Env>(
        &mut self,
        env: &mut E,
        slots: &mut Slots,
        block: Block,
    ) -> Result<Block, PoolError> {
        let pair = self.take_pair().ok_or(PoolError::TooManyBlocks)?;
        let Some(slot) = slots.take_run(2, 1) else {
            self.give_pair(pair);
            return Err(PoolError::Slots);
        };
        let whole = self.node(block);
        let half_bits = whole.bits - 1;
        notes::note_slots(env, slot.saturating_add(2));
        env.store(self.word(block), notes::Node::Unsure.word());
        if let Err(error) = env.split(whole.slot, half_bits, slot) {
            env.store(self.word(block), notes::Node::Free.word());
            self.give_pair(pair);
            let _ = slots.give_run(slot, 2);
            return Err(PoolError::Effect(error));
        }
        let split = notes::Node::Split { pair: pair.0, slot };
        env.store(self.word(block), split.word());
        self.hang_halves(block, pair, slot);
        Ok(pair)
    }

    /// Hangs a pair, the untypeds of which are in `slot` and the one after, under a free block.
    fn hang_halves(&mut self, block: Block, pair: Block, slot: Slot) -> [Block; 2] {
        self.unlink(block);
        let whole = self.node(block);
        let half_bits = whole.bits - 1;
        let node = self.node_mut(block);
        node.state = State::Split;
        node.child = Some(pair);
        for (half, offset) in [(Self::buddy(pair), 1), (pair, 0)] {
            *self.node_mut(half) = Node {
                base: whole.base + (offset << half_bits),
                slot: slot.saturating_add(offset as Slot),
                parent: Some(block),
                bits: half_bits,
                ..Node::SPARE
            };
            self.push_free(half);
        }
        [pair, Self::buddy(pair)]
    }

    /// Makes a split block of which nothing is in use whole again.
    fn merge<E: Env>(
        &mut self,
        env: &mut E,
        slots: &mut Slots,
        block: Block,
    ) -> Result<(), PoolError> {
        let split = env.load(self.word(block));
        env.store(self.word(block), notes::Node::Unsure.word());
        // One revocation takes every untyped below, however deep.
        if let Err(error) = env.revoke(self.slot(block)) {
            env.store(self.word(block), split);
            return Err(PoolError::Effect(error));
        }
        // Down to a split block whose halves are both whole; merge it, and up again.
        let mut at = block;
        while let Some(pair) = self.node(at).child {
            let halves = [pair, Self::buddy(pair)];
            if let Some(&deeper) = halves
                .iter()
                .find(|half| self.node(**half).state == State::Split)
            {
                at = deeper;
                continue;
            }
            for half in halves {
                self.unlink(half);
            }
            let _ = slots.give_run(self.slot(pair), 2);
            self.give_pair(pair);
            self.node_mut(at).child = None;
            self.push_free(at);
            env.store(self.word(at), notes::Node::Free.word());
            match self.node(at).parent {
                Some(parent) if at != block => at = parent,
                _ => break,
            }
        }
        Ok(())
    }

    fn smallest_free(&self, bits: u8) -> Link {
        self.free.iter().skip(bits.into()).find_map(|head| *head)
    }

    /// The smallest split block of at least 2^`bits` bytes of which nothing is in use.
    fn smallest_idle(&self, bits: u8) -> Link {
        let touched = self.nodes.iter().take(self.untouched.into()).enumerate();
        touched
            .filter(|(_, node)| node.state == State::Split && node.live == 0 && node.bits >= bits)
            .min_by_key(|(_, node)| node.bits)
            .map(|(index, _)| Block(index as u16))
    }

    /// Changes the number of used blocks below of every block above `block`.
    fn count(&mut self, block: Block, change: fn(u16) -> u16) {
        let mut above = self.node(block).parent;
        while let Some(parent) = above {
            let node = self.node_mut(parent);
            node.live = change(node.live);
            above = node.parent;
        }
    }

    fn push_free(&mut self, block: Block) {
        let order = usize::from(self.bits(block));
        let head = self.free.get(order).copied().flatten();
        if let Some(head) = head {
            self.node_mut(head).previous = Some(block);
        }
        let node = self.node_mut(block);
        node.state = State::Free;
        node.next = head;
        node.previous = None;
        if let Some(slot) = self.free.get_mut(order) {
            *slot = Some(block);
        }
    }

    fn unlink(&mut self, block: Block) {
        let node = self.node(block);
        if let Some(next) = node.next {
            self.node_mut(next).previous = node.previous;
        }
        match node.previous {
            Some(previous) => self.node_mut(previous).next = node.next,
            None => {
                if let Some(head) = self.free.get_mut(usize::from(node.bits)) {
                    *head = node.next;
                }
            }
        }
        let node = self.node_mut(block);
        node.next = None;
        node.previous = None;
    }

    fn take_pair(&mut self) -> Link {
        if let Some(pair) = self.spare {
            self.spare = self.node(pair).next;
            return Some(pair);
        }
        let first = self.untouched;
        if usize::from(first) + 2 > MAX_NODES {
            return None;
        }
        self.untouched += 2;
        Some(Block(first))
    }

    fn give_pair(&mut self, pair: Block) {
        *self.node_mut(Self::buddy(pair)) = Node::SPARE;
        *self.node_mut(pair) = Node {
            next: self.spare,
            ..Node::SPARE
        };
        self.spare = Some(pair);
    }

    fn buddy(pair: Block) -> Block {
        Block(pair.0 | 1)
    }

    fn node(&self, block: Block) -> Node {
        self.nodes
            .get(usize::from(block.0))
            .copied()
            .unwrap_or(Node::SPARE)
    }

    fn node_mut(&mut self, block: Block) -> &mut Node {
        // `Block` is made here only, from indexes of nodes; the modulo keeps it total.
        &mut self.nodes[usize::from(block.0) % MAX_NODES]
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}
