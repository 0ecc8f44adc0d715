//! The table as [`crate::groups`] sees it: functions in order, and a node each.

use super::{Index, Table};
use crate::groups::{Functions, Node};

impl Functions for Table<'_> {
    fn node(&self, place: u32) -> Option<&Node> {
        self.get(Index(place)).map(|device| &device.node)
    }

    fn node_mut(&mut self, place: u32) -> Option<&mut Node> {
        self.get_mut(Index(place)).map(|device| &mut device.node)
    }

    fn first(&self) -> Option<u32> {
        self.after(None).map(Index::number)
    }

    fn next(&self, place: u32) -> Option<u32> {
        self.next(Index::new(place)).map(Index::number)
    }

    fn count(&self) -> u32 {
        self.len()
    }
}
