//! [`Model`]: what the holder of a device may expect of its messages. No registers: who is enabled, who is masked, who waits.

use std::collections::BTreeSet;

use super::card::Shape;

/// What was asked and done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Nothing,
    Enabled {
        first: u16,
        count: u16,
    },
    Disabled,
    Masked {
        first: u16,
        count: u16,
        on: bool,
    },
    /// Message control: enable, function mask.
    Switched {
        enable: bool,
        mask: bool,
    },
    /// Mask bits of MSI.
    Written(u32),
    Moved {
        first: u16,
        count: u16,
        core: u8,
    },
    Reset,
}

/// The messages of a device.
#[derive(Clone, Debug)]
pub struct Model {
    shape: Shape,
    keeps: bool,
    /// Messages in use.
    used: Option<(u16, u16)>,
    enable: bool,
    all_masked: bool,
    masked: BTreeSet<u16>,
    pending: BTreeSet<u16>,
    /// Where those in use go that were moved.
    cores: Vec<(u16, u8)>,
}

impl Model {
    pub fn new(shape: Shape, keeps: bool) -> Self {
        Self {
            shape,
            keeps,
            used: None,
            enable: false,
            all_masked: false,
            masked: BTreeSet::new(),
            pending: BTreeSet::new(),
            cores: Vec::new(),
        }
    }

    pub fn first(&self) -> u16 {
        self.used.map_or(0, |(first, _)| first)
    }

    pub fn core(&self, message: u16) -> u8 {
        let moved = self.cores.iter().rev().find(|(moved, _)| *moved == message);
        moved.map_or(0, |(_, core)| *core)
    }

    /// One bit for each that waits.
    pub fn pending(&self) -> u32 {
        self.pending
            .iter()
            .fold(0, |bits, message| bits | 1 << message)
    }

    /// These wait, as each of them may.
    pub fn wait(&mut self, pending: u32) {
        let bits = 0..32u16;
        self.pending = bits.filter(|bit| pending >> bit & 1 != 0).collect();
    }

    fn is_used(&self, message: u16) -> bool {
        self.used
            .is_some_and(|(first, count)| (first..first + count).contains(&message))
    }

    fn free(&self, message: u16) -> bool {
        self.is_used(message) && self.enable && !self.all_masked && !self.masked.contains(&message)
    }

    /// The device has reason to send a message; whether it comes now.
    pub fn raise(&mut self, message: u16) -> Option<u16> {
        let has = match (self.shape, self.used) {
            // The number of messages in use is the number that the device was given.
            (Shape::Msi { .. }, Some((_, count))) => message < count,
            (shape, _) => message < shape.messages(),
        };
        if !has || !self.enable {
            return None;
        }
        if self.free(message) {
            return Some(message);
        }
        self.pending.insert(message);
        None
    }

    /// What comes because of a change.
    pub fn change(&mut self, change: Change) -> Vec<u16> {
        match change {
            Change::Nothing => {}
            Change::Enabled { first, count } => {
                self.used = Some((first, count));
                self.switch(true, false);
                self.masked.clear();
                self.cores.clear();
            }
            Change::Disabled => {
                self.switch(false, false);
                self.used = None;
                self.masked.clear();
            }
            Change::Masked { first, count, on } => {
                for message in first..first + count {
                    self.mask(message, on);
                }
            }
            Change::Switched { enable, mask } => self.switch(enable, mask),
            Change::Written(bits) => {
                let (_, count) = self.used.unwrap_or_default();
                for message in 0..count {
                    self.mask(message, bits >> message & 1 != 0);
                }
            }
            Change::Moved { first, count, core } => {
                (first..first + count).for_each(|message| self.cores.push((message, core)));
            }
            Change::Reset => self.pending.clear(),
        }
        let come: Vec<u16> = self.pending.iter().copied().collect();
        let come: Vec<u16> = come
            .into_iter()
            .filter(|message| self.free(*message))
            .collect();
        self.pending.retain(|message| !come.contains(message));
        come
    }

    fn switch(&mut self, enable: bool, mask: bool) {
        self.enable = enable;
        self.all_masked = mask;
        if !enable && !self.keeps {
            self.pending.clear();
        }
    }

    fn mask(&mut self, message: u16, on: bool) {
        if on {
            self.masked.insert(message);
        } else {
            self.masked.remove(&message);
        }
    }

    /// May the server refuse this?
    pub fn refuses(&self, change: Change) -> bool {
        let most = self.shape.messages();
        let msi = matches!(self.shape, Shape::Msi { .. });
        match change {
            Change::Enabled { first, count } => {
                let shaped = !msi || first == 0 && count.is_power_of_two();
                self.used.is_some() || !shaped || first + count > most
            }
            Change::Masked { first, count, .. } => {
                !self.shape.maskable()
                    || (first..first + count).any(|message| !self.is_used(message))
            }
            Change::Moved { first, count, .. } => {
                (first..first + count).any(|message| !self.is_used(message))
                    || msi && Some((first, count)) != self.used
            }
            Change::Disabled | Change::Switched { .. } | Change::Written(_) => self.used.is_none(),
            Change::Reset | Change::Nothing => false,
        }
    }
}
