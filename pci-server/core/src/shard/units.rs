//! Remapping units that are PCI functions themselves (AMD's): their registers in configuration space are this shard's, so
//! the message of their own interrupt is set up here. All else about them is the iommu-server's.

use hw::Sbdf;
use hw::capability::CapabilityList;
use hw::header::Layout;

use super::Shard;
use crate::env::{Env, VectorBlock};
use crate::ports::message;

impl<E: Env> Shard<'_, E> {
    /// Lets each unit among the shard's functions send its message. It is the unit's own and not looked up in its
    /// tables (I/O Virtualization Technology 3.05, 2.5.1).
    pub(super) fn program_units(&mut self) {
        for unit in &self.info.unit_messages {
            let at = Sbdf::from_bits(unit.device);
            let vector = VectorBlock {
                address: unit.address,
                data: unit.data,
            };
            let list = CapabilityList::read(&self.env, at, Layout::Endpoint);
            match message::program(&mut self.env, at, &list, vector) {
                Ok(()) => self.env.log(format_args!(
                    "{at} is a remapping unit: its events interrupt"
                )),
                Err(refusal) => self.env.log(format_args!(
                    "{at} is a remapping unit and cannot interrupt: {refusal}"
                )),
            }
        }
    }
}
