//! What the iommu-server reports of devices: too many faults, caches of translations that are not
//! given up.

use hw::header::{Command, register};
use ipc_proto::{EventKind, Rule, Trouble};

use super::revoke::Manner;
use super::{Parts, Shard};
use crate::env::Env;
use crate::notes::setup;
use crate::reset::Failure;

/// Reports that are looked at before other requests are served.
const REPORTS_A_TURN: usize = 16;

impl<E: Env> Shard<'_, E> {
    /// The iommu-server has signalled: takes its reports. What is left after a turn is taken in the next,
    /// which the timer starts.
    pub fn on_trouble(&mut self) {
        self.trouble = true;
        for _ in 0..REPORTS_A_TURN {
            let report = match self.env.trouble_next() {
                Ok(report) => report,
                Err(refusal) => {
                    self.trouble = false;
                    if refusal.rule != Rule::EndOfList {
                        self.env
                            .log(format_args!("no report of trouble: {refusal}"));
                    }
                    break;
                }
            };
            let index = self.devices.find(report.device);
            let held = index.and_then(|index| Some((index, self.devices.get(index)?.assignment?)));
            if let Some((index, at)) = held {
                match report.trouble {
                    Trouble::FaultStorm => self.calm(at, report.count),
                    Trouble::DeviceTlbTimeout => self.cut_off(at),
                    Trouble::Fault => {
                        if let Some((client, device)) = self.holding(index) {
                            self.tell(client, EventKind::Fault, device, report.count.into());
                        }
                    }
                }
            }
        }
        self.arm();
    }

    /// Stops a device that is blocked again and again. Its holder keeps it.
    fn calm(&mut self, at: u16, faults: u32) {
        let Some(Parts {
            env, hold, device, ..
        }) = self.parts(at)
        else {
            return;
        };
        let (client, address) = (hold.client, device.at);
        let command = env.read16(address, register::COMMAND);
        if command != u16::MAX {
            let mut command = Command::from_bits_retain(command);
            command.remove(Command::BUS_MASTER);
            env.write16(address, register::COMMAND, command.bits());
        }
        // What a reset that is under way brings back stays off, too.
        if let Some(job) = &mut hold.job {
            job.kept.command &= !Command::BUS_MASTER.bits();
            setup::note_kept(env, at, job.kept);
        }
        env.log(format_args!("{address} bus mastering off: {faults} faults"));
        self.tell(client, EventKind::Storm, address, faults.into());
    }

    /// Takes a device away that may still use translations which were taken from it.
    fn cut_off(&mut self, at: u16) {
        let Some(Parts { hold, device, .. }) = self.parts(at) else {
            return;
        };
        let (client, address) = (hold.client, device.at);
        if let Some(job) = self.take_back(at, Manner::Orderly) {
            job.trouble.get_or_insert(Failure::Cached);
            self.note(at);
        }
        let rule = Rule::DeviceTlbTimeout as u64;
        self.tell(client, EventKind::Broken, address, rule);
    }
}
