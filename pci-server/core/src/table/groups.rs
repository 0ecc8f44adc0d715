//! The table as [`crate::groups`] sees it: functions in order, and a node each.

use hw::Sbdf;

use super::{Index, Table};
use crate::groups::{Functions, Node};

impl Functions for Table<'_> {
    fn node(&self, place: u32) -> Option<&Node> {
        self.get(Index(place)).map(|device| &device.node)
    }

    fn node_mut(&mut self, place: u32) -> Option<&mut Node> {
        self.get_mut(Index(place)).map(|device| &mut device.node)
    }

    fn beyond(&self, last: Option<Sbdf>) -> Option<u32> {
        self.after(last).map(Index::number)
    }

    fn count(&self) -> u32 {
        self.len()
    }
}
