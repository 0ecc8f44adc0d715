//! [`Bank`]: device memory from untypeds to frames, over the few kernel
//! operations of [`Objects`].
//!
//! Nothing is made before it is wanted. An untyped is split top down, into parts
//! of the next lower of a few fixed sizes, all of them at once, so that any page
//! can be had whatever was asked for before. BARs that lie side by side share the
//! splits above them. When a BAR's frames are taken back, every split that no
//! other BAR uses goes with them: the untypeds are then as they came, whatever
//! BARs come, go and change their sizes meanwhile.
//!
//! What is split is noted in the shard's ledger, and known again after a restart: [`recovery`].

pub mod recovery;
mod revoke;
mod shares;

use core::cmp::Reverse;

use heapless::Vec;
use ipc_proto::{ClientId, Refusal, Rule};
use ledger::Words;

use crate::env::RegionId;
use crate::notes::PLACING_AT;
use recovery::{Notes, Placing};
use shares::{Known, Shares};

/// Most untypeds that the shard is given.
pub const MAX_PIECES: usize = system::info::MAX_UNTYPED;
/// Most BARs of which frames exist at a time.
pub const MAX_REGIONS: usize = 6 * crate::MAX_ASSIGNMENTS;
/// Most untypeds that are split at a time, over all BARs.
pub const MAX_NODES: usize = 1024;

/// Bits of a page.
const PAGE_BITS: u8 = 12;
/// Bits of a large page.
pub const LARGE_BITS: u8 = 21;
/// Sizes of parts, in bits: both page sizes, and at most 32 parts from one to the next.
const SIZES: [u8; 9] = [47, 43, 39, 35, 30, 26, LARGE_BITS, 17, PAGE_BITS];

/// What the bank needs of the kernel and of the shard's slots. A call that fails has changed nothing. [`Words`] is the
/// shard's ledger.
pub trait Objects: Words {
    /// Makes `count` untypeds of 2^`bits` bytes from the untyped in slot `untyped`, in new slots in a
    /// row; gives the first.
    ///
    /// # Errors
    /// `SlotsExhausted`, `KernelRefused`.
    fn split(&mut self, untyped: u32, bits: u8, count: u32) -> Result<u32, Refusal>;
    /// Makes `count` frames of 2^`bits` bytes (12 or 21), likewise.
    ///
    /// # Errors
    /// `SlotsExhausted`, `KernelRefused`.
    fn frames(&mut self, untyped: u32, bits: u8, count: u32) -> Result<u32, Refusal>;
    /// Deletes everything derived from the capability in a slot.
    ///
    /// # Errors
    /// `KernelRefused`.
    fn revoke(&mut self, slot: u32) -> Result<(), Refusal>;
    /// Takes back slots in which capabilities may be that are good for nothing more.
    fn forget(&mut self, first: u32, count: u32);
    /// Copies a frame into a client's window.
    ///
    /// # Errors
    /// `WindowSlotOccupied`, `WindowSlotOutOfRange`, `NoWindow`, `KernelRefused`.
    fn place(&mut self, frame: u32, client: ClientId, slot: u16) -> Result<(), Refusal>;
    /// Empties a slot of a client's window.
    fn clear(&mut self, client: ClientId, slot: u16);
    /// After a restart: takes slots in which an earlier life's capabilities are. `false`: they are none of the bank's, or
    /// taken.
    fn adopt(&mut self, first: u32, count: u32) -> bool;
    /// After a restart: unmaps a frame of 2^`bits` bytes that an earlier life may have mapped for itself.
    fn unmap(&mut self, frame: u32, bits: u8);
}

/// Which frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageSize {
    /// 4 KiB.
    Small,
    /// 2 MiB.
    Large,
}

impl PageSize {
    /// Size: 2^bits bytes.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Small => PAGE_BITS,
            Self::Large => LARGE_BITS,
        }
    }
}

/// A naturally aligned block of device memory and its untyped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Block {
    base: u64,
    bits: u8,
    slot: u32,
}

impl Block {
    const fn last(&self) -> u64 {
        // No untyped passes 2^64.
        self.base | ((1 << self.bits) - 1)
    }

    const fn contains(&self, address: u64) -> bool {
        self.base <= address && address <= self.last()
    }
}

/// What an untyped has been made into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Parts {
    Untypeds,
    Frames,
}

/// An untyped that has been split.
#[derive(Clone, Copy, Debug)]
struct Node {
    base: u64,
    /// First slot of its parts.
    first: u32,
    bits: u8,
    /// Size of each part: 2^part_bits bytes.
    part_bits: u8,
    parts: Parts,
    /// Where it is noted.
    note: u16,
}

impl Node {
    const fn count(&self) -> u32 {
        1 << (self.bits - self.part_bits)
    }

    /// The part that has an address of the node.
    const fn part(&self, address: u64) -> Block {
        let index = (address - self.base) >> self.part_bits;
        Block {
            base: self.base + (index << self.part_bits),
            bits: self.part_bits,
            // At most 2^5 parts.
            slot: self.first + index as u32,
        }
    }

    const fn frame_bytes(&self) -> u64 {
        match self.parts {
            Parts::Frames => 1 << self.bits,
            Parts::Untypeds => 0,
        }
    }
}

/// Frames of a block that are in a row: the first one's slot, and how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    slot: u32,
    count: u32,
}

/// What a request made, to be undone if it fails.
struct Made {
    /// Blocks that were whole before.
    blocks: Vec<Block, 16>,
    /// The region had no frames before.
    noted: bool,
    /// The request, as it is noted.
    placing: Option<Placing>,
    /// For whom.
    owner: Option<ClientId>,
}

impl Made {
    const fn new() -> Self {
        Self {
            blocks: Vec::new(),
            noted: false,
            placing: None,
            owner: None,
        }
    }
}

/// Device memory of a shard.
#[derive(Debug)]
pub struct Bank {
    /// By address.
    pieces: Vec<Block, MAX_PIECES>,
    /// BARs of which frames may exist, by address.
    regions: Vec<Known, MAX_REGIONS>,
    /// By address, of those at one address the largest first.
    nodes: Vec<Node, MAX_NODES>,
    split_bytes: u64,
    notes: Notes,
    shares: Shares,
}

impl Bank {
    /// A bank without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            pieces: Vec::new(),
            regions: Vec::new(),
            nodes: Vec::new(),
            split_bytes: 0,
            notes: Notes::new(),
            shares: Shares::NONE,
        }
    }

    /// Takes an untyped of 2^`bits` bytes of device memory in.
    ///
    /// # Errors
    /// `SlotsExhausted` with the bound when there are too many; `PageOutOfRange` when it is smaller
    /// than a page, larger than an address space, or not naturally aligned.
    pub fn add(&mut self, slot: u32, base: u64, bits: u8) -> Result<(), Refusal> {
        if !(PAGE_BITS..=48).contains(&bits) || base & ((1 << bits) - 1) != 0 {
            return Err(Refusal::new(Rule::PageOutOfRange, base));
        }
        let place = self.pieces.partition_point(|piece| piece.base < base);
        self.pieces
            .insert(place, Block { base, bits, slot })
            .map_err(|_| Refusal::new(Rule::SlotsExhausted, MAX_PIECES as u64))
    }

    /// Bytes of device memory that are frames (at boot: none).
    #[must_use]
    pub const fn split_bytes(&self) -> u64 {
        self.split_bytes
    }

    /// Places frames of `count` pages of a region from page `first` (in pages of `size`) in a
    /// client's window from `slot` on: all or none.
    ///
    /// # Errors
    /// `PageOutOfRange`, `SlotsExhausted`, `KernelRefused`, and what the window refuses;
    /// `PageWithheld` when there are frames of the other size.
    #[expect(clippy::too_many_arguments, reason = "the request has them all")]
    pub fn place<O: Objects>(
        &mut self,
        objects: &mut O,
        region: RegionId,
        size: PageSize,
        first: u32,
        count: u16,
        client: ClientId,
        slot: u16,
    ) -> Result<(), Refusal> {
        let (mut placed, mut made) = (0, Made::new());
        made.placing = Some(Placing::begin(objects, client, slot));
        made.owner = Some(client);
        while placed < count {
            let page = first.saturating_add(u32::from(placed));
            let run = self.frames(objects, region, size, page, &mut made);
            let result = run.and_then(|run| {
                for n in 0..run.count.min(u32::from(count - placed)) {
                    objects.place(run.slot + n, client, slot.saturating_add(placed))?;
                    placed += 1;
                    if let Some(placing) = &mut made.placing {
                        placing.placed(objects);
                    }
                }
                Ok(())
            });
            if let Err(refusal) = result {
                (0..placed).for_each(|n| objects.clear(client, slot.saturating_add(n)));
                objects.store(PLACING_AT, 0);
                self.undo(objects, region, &made);
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// Slot of the frame of a small page, made if need be.
    ///
    /// # Errors
    /// As for [`Self::place`].
    pub fn frame<O: Objects>(
        &mut self,
        objects: &mut O,
        region: RegionId,
        page: u32,
    ) -> Result<u32, Refusal> {
        let mut made = Made::new();
        match self.frames(objects, region, PageSize::Small, page, &mut made) {
            Ok(run) => Ok(run.slot),
            Err(refusal) => {
                self.undo(objects, region, &made);
                Err(refusal)
            }
        }
    }

    /// Takes back what was split for nothing.
    fn undo<O: Objects>(&mut self, objects: &mut O, region: RegionId, made: &Made) {
        let mut undone = !made.blocks.is_full();
        for block in made.blocks.iter().rev() {
            // Where it fails it goes with the region.
            undone &= self.revoke_whole(objects, *block).is_ok();
        }
        if made.noted
            && undone
            && let Ok(place) = self.find_region(region)
        {
            self.regions.remove(place);
        }
    }

    /// The frame of a page and those after it that were made together with it.
    fn frames<O: Objects>(
        &mut self,
        objects: &mut O,
        region: RegionId,
        size: PageSize,
        page: u32,
        made: &mut Made,
    ) -> Result<Run, Refusal> {
        let outside = Refusal::new(Rule::PageOutOfRange, u64::from(page));
        let address = u64::from(page)
            .checked_mul(1 << size.bits())
            .and_then(|offset| region.base.checked_add(offset))
            .filter(|address| address | ((1 << size.bits()) - 1) <= region.last())
            .filter(|address| address & ((1 << size.bits()) - 1) == 0)
            .ok_or(outside)?;
        made.noted |= self.know(region, made.owner)?;
        self.descend(objects, address, size, made)
    }

    fn find_region(&self, region: RegionId) -> Result<usize, usize> {
        self.regions
            .binary_search_by_key(&(region.base, region.bytes), |known| {
                (known.region.base, known.region.bytes)
            })
    }

    /// Goes down to the frame at `address`, splitting what is whole.
    fn descend<O: Objects>(
        &mut self,
        objects: &mut O,
        address: u64,
        size: PageSize,
        made: &mut Made,
    ) -> Result<Run, Refusal> {
        let mut block = self.piece(address)?;
        let mut whole = false;
        // Each round goes to a smaller size: there are few.
        loop {
            if !whole && self.node(block).is_none() {
                whole = true;
                // Beyond the bound it goes with the region.
                let _ = made.blocks.push(block);
            }
            let node = self.split(objects, block, size, made)?;
            let part = node.part(address);
            match node.parts {
                Parts::Frames if part.bits == size.bits() => {
                    return Ok(Run {
                        slot: part.slot,
                        count: node.first + node.count() - part.slot,
                    });
                }
                Parts::Frames => return Err(Refusal::new(Rule::PageWithheld, address)),
                // Split for smaller pages.
                Parts::Untypeds if part.bits < size.bits() => {
                    return Err(Refusal::new(Rule::PageWithheld, address));
                }
                Parts::Untypeds => block = part,
            }
        }
    }

    fn piece(&self, address: u64) -> Result<Block, Refusal> {
        let after = self.pieces.partition_point(|piece| piece.base <= address);
        after
            .checked_sub(1)
            .and_then(|at| self.pieces.get(at).copied())
            .filter(|piece| piece.contains(address))
            .ok_or(Refusal::new(Rule::PageOutOfRange, address))
    }

    fn find_node(&self, base: u64, bits: u8) -> Result<usize, usize> {
        self.nodes
            .binary_search_by_key(&(base, Reverse(bits)), |node| {
                (node.base, Reverse(node.bits))
            })
    }

    fn node(&self, block: Block) -> Option<Node> {
        let at = self.find_node(block.base, block.bits).ok()?;
        self.nodes.get(at).copied()
    }

    /// What a block has been made into; if it is whole, it is split.
    fn split<O: Objects>(
        &mut self,
        objects: &mut O,
        block: Block,
        size: PageSize,
        made: &mut Made,
    ) -> Result<Node, Refusal> {
        let full = Refusal::new(Rule::SlotsExhausted, MAX_NODES as u64);
        let place = match self.find_node(block.base, block.bits) {
            Ok(at) => return self.nodes.get(at).copied().ok_or(full),
            Err(place) => place,
        };
        if self.nodes.is_full() {
            return Err(full);
        }
        let smaller = SIZES.iter().copied().find(|bits| *bits < block.bits);
        let (part_bits, parts) = match smaller {
            _ if block.bits == size.bits() => (block.bits, Parts::Frames),
            Some(bits) if bits == size.bits() && size == PageSize::Small => (bits, Parts::Frames),
            Some(bits) => (bits, Parts::Untypeds),
            None => (block.bits, Parts::Frames),
        };
        let count = 1 << (block.bits - part_bits);
        self.may_split(made.owner, count)?;
        let first = match parts {
            Parts::Untypeds => objects.split(block.slot, part_bits, count)?,
            Parts::Frames => objects.frames(block.slot, part_bits, count)?,
        };
        let node = Node {
            base: block.base,
            first,
            bits: block.bits,
            part_bits,
            parts,
            note: self.notes.take(),
        };
        self.nodes.insert(place, node).map_err(|_| full)?;
        if let Some(placing) = &mut made.placing {
            placing.made(objects, node.note);
        }
        recovery::note(objects, &node);
        self.split_bytes = self.split_bytes.saturating_add(node.frame_bytes());
        Ok(node)
    }
}

impl Default for Bank {
    fn default() -> Self {
        Self::new()
    }
}
