//! The pci-server's calls to the msi-server.

use hw::Sbdf;
use ipc_proto::{ClientId, Messages, Refusal, Rule};
use pci_core::again::{again, until_gone};
use pci_core::env::{Prospect, VectorBlock, Vectors};

use super::Surroundings;

impl Vectors for Surroundings<'_> {
    fn take(
        &mut self,
        device: Sbdf,
        client: ClientId,
        messages: Messages,
        slot: u16,
    ) -> Result<VectorBlock, Refusal> {
        let reply = self.msi.alloc(device, client, messages, slot)?;
        for vector in reply.first..reply.first + messages.count {
            let before = self.issued.borrow_mut().insert(vector, device);
            assert!(before.is_none(), "vector {vector} given out twice");
        }
        Ok(VectorBlock {
            address: reply.address,
            data: reply.data,
        })
    }
    fn give_back(&mut self, device: Sbdf) -> Result<(), Refusal> {
        again(|| self.msi.free(device))?;
        self.issued.borrow_mut().retain(|_, of| *of != device);
        Ok(())
    }
    fn retarget(&mut self, device: Sbdf, messages: Messages, core: u8) -> Result<u64, Refusal> {
        Ok(again(|| self.msi.retarget(device, messages, core))?.address)
    }
    fn join_line(&mut self, device: Sbdf, client: ClientId, line: u16) -> Result<(), Refusal> {
        self.msi.line_join(device, client, line).map(drop)
    }
    fn leave_line(&mut self, device: Sbdf) -> Result<(), Refusal> {
        until_gone(Rule::NotOnLine, || self.msi.line_leave(device))
    }
    fn line_trouble(&mut self) -> Result<(Sbdf, u32), Refusal> {
        let reply = again(|| self.msi.line_trouble())?;
        Ok((reply.device, reply.count))
    }
    fn bind(&mut self, device: Sbdf, message: u16, flags: u64) -> Result<(), Refusal> {
        again(|| self.msi.bind(device, message, flags)).map(drop)
    }
    fn resume(&mut self, device: Sbdf, messages: Messages) -> Result<u16, Refusal> {
        Ok(again(|| self.msi.resume(device, messages))?.left)
    }
    fn message_trouble(&mut self) -> Result<(Sbdf, u16, u32), Refusal> {
        let reply = again(|| self.msi.message_trouble())?;
        Ok((reply.device, reply.message, reply.count))
    }
    fn vectors_for(&mut self, client: ClientId) -> Result<Prospect, Refusal> {
        let reply = again(|| self.msi.promise(client))?;
        Ok(Prospect {
            kept: reply.kept,
            common: reply.common,
            left: reply.left,
        })
    }
}
