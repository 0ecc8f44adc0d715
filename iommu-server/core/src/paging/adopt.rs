//! Page tables that an earlier life of the shard has left, taken up as memory has them. What makes no sense is
//! taken out; the caller has every unit forget all it may have cached before a page is used for anything else.

use core::marker::PhantomData;

use ipc_proto::Access;

use super::leaves::{DIRECTORY, UPPER, child, index, leaf_bits};
use super::{AddressSpace, Format, Largest, Shape};
use crate::TableMemory;
use crate::tables::{ENTRIES, Page, Tables};

/// A translation as the tables have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// First I/O virtual address.
    pub iova: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Where they lead, and how; `None`: the entry is none that this shard writes.
    pub leads: Option<(u64, Access)>,
}

/// What may be done, of two permissions.
pub fn access(reads: bool, writes: bool) -> Option<Access> {
    match (reads, writes) {
        (true, true) => Some(Access::ReadWrite),
        (true, false) => Some(Access::Read),
        (false, true) => Some(Access::Write),
        (false, false) => None,
    }
}

impl<F: Format> AddressSpace<F> {
    /// Takes up the tables below `root`. `None` when that is in use for something else.
    pub fn adopt<T: TableMemory>(
        tables: &mut Tables<'_, T>,
        root: Page,
        shape: Shape,
    ) -> Option<Self> {
        if !tables.claim(root) {
            return None;
        }
        let mut space = Self {
            root,
            levels: shape.levels,
            leaf_level: match shape.largest {
                Largest::Small => 0,
                Largest::Large => DIRECTORY,
                Largest::Huge => UPPER,
            },
            tables: None,
            limbo: None,
            recent: None,
            recent_large: None,
            count: 1,
            limit: 0,
            format: PhantomData,
        };
        space.adopt_table(tables, root, shape.levels.saturating_sub(1));
        Some(space)
    }

    /// Takes up what a table of `level` holds. The levels bound the depth, and each page is claimed once.
    fn adopt_table<T: TableMemory>(&mut self, tables: &mut Tables<'_, T>, table: Page, level: u8) {
        for at in 0..ENTRIES {
            let entry = tables.get(table, at);
            if entry == 0 {
                continue;
            }
            let leaf = level == 0 || F::is_large(entry);
            let below = child::<F, T>(tables, entry).filter(|_| !leaf);
            let stays = match below {
                Some(page) => tables.claim(page),
                None => leaf && level <= self.leaf_level,
            };
            if !stays {
                tables.set(table, at, 0);
                tables.flush(table, at, 1);
                continue;
            }
            tables.meta_mut(table).live += 1;
            if let Some(page) = below {
                self.count += 1;
                let next = self.tables.replace(page);
                if let Some(next) = next {
                    tables.meta_mut(next).previous = Some(page);
                }
                let meta = tables.meta_mut(page);
                (meta.parent, meta.index, meta.next) = (Some(table), at, next);
                self.adopt_table(tables, page, level - 1);
            }
        }
    }

    /// The first translation at or after `from`, or in which `from` lies.
    pub fn leaf<T: TableMemory>(&self, tables: &Tables<'_, T>, from: u64) -> Option<Leaf> {
        let end = 1u64 << leaf_bits(self.levels);
        let mut at = from;
        // Each round passes an entry.
        'walk: while at < end {
            let mut page = self.root;
            for level in (0..self.levels).rev() {
                let entry = tables.get(page, index(at, level));
                let bytes = 1u64 << leaf_bits(level);
                let iova = at & !(bytes - 1);
                if entry != 0 && (level == 0 || F::is_large(entry)) {
                    return Some(Leaf {
                        iova,
                        bytes,
                        leads: F::read(entry, level),
                    });
                }
                match child::<F, T>(tables, entry) {
                    Some(table) => page = table,
                    None => {
                        at = iova + bytes;
                        continue 'walk;
                    }
                }
            }
            return None;
        }
        None
    }

    /// Takes away what is translated of a range, whole or in part.
    pub fn scrub<T: TableMemory>(&mut self, tables: &mut Tables<'_, T>, iova: u64, bytes: u64) {
        let end = iova.saturating_add(bytes);
        let mut at = iova;
        while let Some(leaf) = self.leaf(tables, at).filter(|leaf| leaf.iova < end) {
            let level = ((leaf.bytes.trailing_zeros().saturating_sub(12)) / 9) as u8;
            if let Some(table) = self.find(tables, leaf.iova, level) {
                super::clear_leaves(tables, table, index(leaf.iova, level), 1);
            }
            at = leaf.iova.saturating_add(leaf.bytes);
        }
    }
}
