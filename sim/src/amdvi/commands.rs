//! Commands (2.4): fetched, carried out in the worst order that is allowed, and single ones left out on request.

use super::{ADDRESS, Ailment, State};
use crate::vtd::Dma;

/// What a driver has a unit do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A command, by its first word.
    Command(u64),
    /// A completion wait: what precedes it is done before what follows.
    Wait,
}

impl State {
    pub(super) fn run(&mut self) {
        // Nothing is fetched while translation is off.
        if !self.on(0) || !self.on(12) || self.ailment == Ailment::Stuck {
            return;
        }
        let base = self.register(0x08) & ADDRESS;
        while self.register(0x2000) != self.register(0x2008) {
            let head = self.register(0x2000);
            let command = (self.read(base + head), self.read(base + head + 8));
            self.registers.insert(0x2000, (head + 16) % 0x1000);
            self.commands += 1;
            let left_out = self.left_out == Some(self.steps.len());
            if command.0 >> 60 != 1 {
                self.steps.push(Step::Command(command.0));
                if !left_out {
                    self.group.push(command);
                }
                continue;
            }
            self.steps.push(Step::Wait);
            if !left_out {
                for (first, second) in std::mem::take(&mut self.group).into_iter().rev() {
                    if self.ailment != Ailment::Deaf {
                        self.carry_out(first, second);
                    }
                    self.attack();
                }
            }
            if command.0 & 1 == 1 {
                let at = command.0 & 0x000f_ffff_ffff_fff8;
                self.memory.unit_write32(at, command.1 as u32);
                self.memory.unit_write32(at + 4, (command.1 >> 32) as u32);
            }
        }
    }

    pub(super) fn attack(&mut self) {
        let Some(attack) = self.attack.clone() else {
            return;
        };
        // Nothing that is tried is to fill the log.
        let logging = self.register(0x18);
        self.registers.insert(0x18, logging & !(1 << 2));
        for requester in attack.requesters {
            for address in &attack.addresses {
                for direction in [Dma::Read, Dma::Write] {
                    let _ = self.dma(requester, *address, direction);
                }
            }
            for message in 0..attack.messages {
                let _ = self.message(requester, 0xfee0_0000, message.into());
            }
        }
        self.registers.insert(0x18, logging);
    }

    fn carry_out(&mut self, first: u64, second: u64) {
        match first >> 60 {
            2 => {
                self.entries.remove(&(first as u16));
            }
            3 => {
                let domain = (first >> 32) as u16;
                let (start, last) = range(second);
                let apart = |key: &(u16, u64, u32)| {
                    let begin = key.1 << key.2;
                    key.0 != domain || begin > last || begin + ((1 << key.2) - 1) < start
                };
                self.pages.retain(|key, _| apart(key));
                if second & 2 != 0 {
                    self.tables.retain(|key, _| apart(key));
                }
            }
            5 => self.interrupts.retain(|key, _| key.0 != first as u16),
            8 => {
                assert!(self.features >> 6 & 1 == 1, "not understood");
                self.entries.clear();
                self.pages.clear();
                self.tables.clear();
                self.interrupts.clear();
            }
            code => panic!("command {code} is not understood"),
        }
    }
}

/// Addresses that a command means: one page, or as many as the lowest zero from bit 12 up says.
fn range(word: u64) -> (u64, u64) {
    let page = word >> 12;
    if word & 1 == 0 {
        return (page << 12, (page << 12) + 0xfff);
    }
    let bits = page.trailing_ones() + 1;
    if bits >= 51 {
        return (0, u64::MAX);
    }
    let first = page >> bits << bits;
    (first << 12, ((first + (1 << bits)) << 12) - 1)
}
