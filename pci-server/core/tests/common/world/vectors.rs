//! The msi-server of the tests' world: vectors and lines.

use super::*;

/// Cores of the machine.
pub const CORES: u8 = 4;

impl Vectors for World {
    fn take(
        &mut self,
        device: Sbdf,
        client: ClientId,
        Messages { count, .. }: Messages,
        slot: u16,
    ) -> Result<VectorBlock, Refusal> {
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        assert!(count.is_power_of_two());
        if count > self.vector_quota {
            return Err(Refusal::new(Rule::VectorQuota, self.vector_quota.into()));
        }
        for n in 0..count {
            let place = Place::Window(client.0, slot + n);
            if self.kernel.object(place).is_some() {
                return Err(Refusal::new(Rule::WindowSlotOccupied, u64::from(slot + n)));
            }
        }
        let data = self.next_vector.next_multiple_of(count.into());
        if data + u32::from(count) > 0x9c {
            return Err(Rule::VectorsExhausted.into());
        }
        self.next_vector = data + u32::from(count);
        self.vectors.entry(device).or_default().push((data, count));
        self.did.push(Did::TookVectors(device, count));
        Ok(VectorBlock {
            address: 0xfee0_0000,
            data,
        })
    }
    fn give_back(&mut self, device: Sbdf) -> Result<(), Refusal> {
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        self.vectors.remove(&device);
        self.renumber();
        self.did.push(Did::GaveVectorsBack(device));
        Ok(())
    }
    fn retarget(&mut self, device: Sbdf, messages: Messages, core: u8) -> Result<u64, Refusal> {
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        if core >= CORES {
            return Err(Refusal::new(Rule::NoSuchCore, core.into()));
        }
        self.did.push(Did::Retargeted(device, messages, core));
        Ok(0xfee0_0000 | u64::from(core) << 12)
    }
    fn bind(&mut self, device: Sbdf, message: u16, flags: u64) -> Result<(), Refusal> {
        self.kernel.may_fail()?;
        self.did.push(Did::Bound(device, message, flags));
        Ok(())
    }
    fn resume(&mut self, device: Sbdf, messages: Messages) -> Result<u16, Refusal> {
        self.kernel.may_fail()?;
        self.did.push(Did::Resumed(device, messages));
        let wanted = u32::from(messages.first)..messages.end();
        self.silenced
            .retain(|&(of, message)| of != device || !wanted.contains(&message.into()));
        let left = self.silenced.iter().filter(|(of, _)| *of == device);
        Ok(left.count() as u16)
    }
    fn message_trouble(&mut self) -> Result<(Sbdf, u16, u32), Refusal> {
        let (device, message, count) = self.storms.pop_front().ok_or(Rule::EndOfList)?;
        self.silenced.insert((device, message));
        Ok((device, message, count))
    }
    fn vectors_for(&mut self, _: ClientId) -> Result<Prospect, Refusal> {
        self.kernel.may_fail()?;
        Ok(self.prospect)
    }
    fn join_line(&mut self, device: Sbdf, client: ClientId, line: u16) -> Result<(), Refusal> {
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        assert!(
            self.lines.insert(device, (client, line)).is_none(),
            "{device} is on its line twice"
        );
        Ok(())
    }
    fn leave_line(&mut self, device: Sbdf) -> Result<(), Refusal> {
        self.kernel.may_fail()?;
        self.kernel.try_effect()?;
        match self.lines.remove(&device) {
            Some(_) => Ok(()),
            None => Err(Refusal::new(Rule::NotOnLine, device.to_bits().into())),
        }
    }
    fn line_trouble(&mut self) -> Result<(Sbdf, u32), Refusal> {
        self.line_trouble.pop_front().ok_or(Rule::EndOfList.into())
    }
}
