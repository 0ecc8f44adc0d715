//! A unit that an earlier life of the shard has left running: taken up without a moment in which it does not
//! translate, or remap.
//!
//! Its registers say which tables it uses; they have to be those that the first start gave it. Its queue may still hold
//! descriptors: the unit is let to finish them (6.5.2), and only where it does not is the queue set up anew.
//! Faults that were recorded stay, for whoever is told of them.

use hw::Mmio;

use super::{Compatibility, Remapping, Start, State, Switch, Unit, UnitError};
use crate::TableMemory;
use crate::tables::{Exhausted, Tables};
use crate::vtd::capability::Capabilities;
use crate::vtd::interrupt::{PAGES, SIZE_CODE};
use crate::vtd::queue::{Invalidate, Queue};
use crate::vtd::registers::{Register, Registers, fault_status, global};

impl<M: Mmio> Unit<M> {
    /// Takes a running unit up. One that is not as it was left is taken over with every device blocked, as at the
    /// first start; one that does not answer is in [`State::Failed`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn adopt<T: TableMemory>(
        registers: Registers<M>,
        capabilities: Capabilities,
        tables: &mut Tables<'_, T>,
        start: &Start,
    ) -> Result<Self, Exhausted> {
        let mut unit = Self::with_pages(registers, capabilities, tables, start)?;
        let mut outcome = unit.take_up(tables, start);
        if outcome == Err(UnitError::NotOurs) {
            tables.clear(unit.root);
            for page in 0..PAGES {
                if let Some(table) = start.interrupts {
                    tables.clear(tables.following(table, page));
                }
            }
            outcome = unit.take_over(tables, start);
        }
        if let Err(error) = outcome {
            unit.state = State::Failed(error);
        }
        Ok(unit)
    }

    fn take_up<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        start: &Start,
    ) -> Result<(), UnitError> {
        let status = self.registers.read32(Register::GlobalStatus);
        let on = global::TRANSLATION | global::ROOT_POINTER;
        let root = self.registers.read64(Register::RootTable);
        if status & on != on || root != tables.physical(self.root) {
            return Err(UnitError::NotOurs);
        }
        if let Some(table) = start.interrupts {
            let pointer = self.registers.read64(Register::InterruptTable);
            let ours = tables.physical(table) | SIZE_CODE;
            if status & global::INTERRUPT_REMAPPING == 0 || pointer != ours {
                return Err(UnitError::NotOurs);
            }
            self.remapping = Remapping::On {
                compatibility: if status & global::COMPATIBILITY == 0 {
                    Compatibility::Blocked
                } else {
                    Compatibility::Passes
                },
            };
        }
        self.take_up_queue(tables, status)?;
        self.registers.write32(Register::FaultControl, 0);
        Ok(())
    }

    fn take_up_queue<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
        status: u32,
    ) -> Result<(), UnitError> {
        let page = tables.physical(self.queue.page());
        let on = status & global::QUEUE != 0;
        let ours = on && self.registers.read64(Register::QueueAddress) == page;
        if ours && Queue::drain(&mut self.registers) {
            let tail = self.registers.read64(Register::QueueTail) >> 4;
            self.queue.go_on(tables, tail as u16);
            return Ok(());
        }
        if on {
            // Whatever it was to forget, it is told to forget everything.
            self.switch(global::QUEUE, Switch::Off)?;
        }
        let errors = fault_status::QUEUE_ERROR
            | fault_status::COMPLETION_ERROR
            | fault_status::TIMEOUT_ERROR;
        self.registers.write32(Register::FaultStatus, errors);
        self.queue.go_on(tables, 0);
        self.registers.write64(Register::QueueTail, 0);
        self.registers.write64(Register::QueueAddress, page);
        self.switch(global::QUEUE, Switch::On)
    }

    /// Has the unit forget everything that it may have cached, and waits. What an earlier life had begun to tell it
    /// is done then.
    ///
    /// # Errors
    /// The unit has failed, now or before.
    pub fn forget_everything<T: TableMemory>(
        &mut self,
        tables: &mut Tables<'_, T>,
    ) -> Result<(), UnitError> {
        self.flush_write_buffer()?;
        self.run(
            tables,
            &[
                Invalidate::AllContexts,
                Invalidate::Fence,
                Invalidate::AllTranslations,
            ],
        )?;
        if self.remapping == Remapping::Off {
            return Ok(());
        }
        self.run(tables, &[Invalidate::AllInterrupts])
    }
}
