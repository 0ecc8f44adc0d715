//! Errors that ports collect (AER): the functions are asked, their holders told. A port that contained an
//! error (DPC) keeps its link off, and what is behind it is broken.

use hw::Sbdf;
use ipc_proto::{DeviceError, DeviceState, EventKind, Rule};

use super::Shard;
use super::revoke::Manner;
use crate::env::Env;
use crate::ports::{PortFault, State, errors};
use crate::reset::Failure;

/// Most functions that are asked for their errors at one interrupt.
const MAX_ERROR_SOURCES: u8 = 64;

impl<E: Env> Shard<'_, E> {
    /// Errors that were reported to a port: their functions are asked, and the holders told.
    pub(super) fn look_at_errors(&mut self, port: usize) {
        let now = self.env.now_us();
        let Some(place) = self.ports.get_mut(port) else {
            return;
        };
        let at = place.at;
        let Some(errors) = &mut place.errors else {
            return;
        };
        if errors.contained(&mut self.env, at) {
            self.contain(port);
            return;
        }
        let Some(collected) = errors.collect(&mut self.env, at, now) else {
            return;
        };
        if errors.is_silent() {
            self.env.log(format_args!(
                "{at} reports too many errors: not listened to for a second"
            ));
        }
        let sources = [collected.uncorrectable, collected.correctable];
        for id in sources.into_iter().flatten() {
            self.take_errors(Sbdf::from_requester_id(at.segment(), id));
        }
        if collected.more {
            let mut left = MAX_ERROR_SOURCES;
            self.each_behind(port, |shard, index| {
                let device = shard.devices.get(index);
                if let Some(at) = device
                    .filter(|device| device.error_reporting != 0 && left > 0)
                    .map(|device| device.at)
                {
                    left -= 1;
                    shard.take_errors(at);
                }
            });
        }
    }

    /// Takes the errors of a function, and tells its holder.
    fn take_errors(&mut self, at: Sbdf) {
        let Some(index) = self.devices.find(at) else {
            return;
        };
        let Some(offset) = self
            .devices
            .get(index)
            .filter(|device| !device.in_bus_reset && device.error_reporting != 0)
            .map(|device| device.error_reporting)
        else {
            return;
        };
        let status = errors::take(&mut self.env, at, offset);
        let details = [
            DeviceError::Fatal(status.fatal),
            DeviceError::NonFatal(status.non_fatal),
            DeviceError::Correctable(status.correctable),
        ];
        let holder = self.holding(index);
        for error in details.into_iter().filter(|error| error.status() != 0) {
            let detail = error.to_detail();
            match holder {
                Some((client, _)) => self.tell(client, EventKind::Error, at, detail),
                None => self.env.log(format_args!("{at} {error:x?}")),
            }
        }
    }

    /// The port contained an error: its link is off, and stays so. What is behind it is broken.
    fn contain(&mut self, port: usize) {
        let Some(place) = self.ports.get_mut(port) else {
            return;
        };
        let at = place.at;
        place.state = State::Failed(PortFault::Contained);
        self.env
            .log(format_args!("{at} slot failed: {}", PortFault::Contained));
        self.each_behind(port, |shard, index| {
            let holder = shard.holding(index);
            let Some(device) = shard.devices.get_mut(index) else {
                return;
            };
            let address = device.at;
            match device.assignment {
                Some(at) => {
                    if let Some(job) = shard.take_back(at, Manner::Removed) {
                        job.trouble.get_or_insert(Failure::Contained);
                        shard.note(at);
                    }
                }
                None if device.state == DeviceState::Quarantined => {
                    device.state = DeviceState::Broken;
                }
                None => {}
            }
            if let Some((client, _)) = holder {
                let rule = Rule::DeviceBroken as u64;
                shard.tell(client, EventKind::Broken, address, rule);
            }
        });
    }
}
