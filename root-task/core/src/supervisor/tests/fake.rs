//! Hands that write down what they are told to do.

use super::*;

/// Writes down what it is told.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) log: List<Text>,
    /// Revocations that each pci shard owes.
    pub(super) owes: [u16; 2],
    /// What `ClientGone` adds to that.
    pub(super) slow: [u16; 2],
    pub(super) refuses: Option<&'static str>,
    pub(super) vectors_left: u16,
    pub(super) resources: u64,
    /// Set for whom, and after how many microseconds.
    pub(super) alarm: Option<(u16, u64)>,
    /// The step that a restart of its server breaks off, once.
    pub(super) breaks_off: Option<&'static str>,
    /// PDs whose memory is being taken back.
    pub(super) reclaiming: List<u16>,
    /// It is over only when the test says so.
    pub(super) memory_takes_long: bool,
}

impl Hands for Fake {
    fn stop(&mut self, pd: u16) {
        self.log.push(alloc::format!("stop {pd}"));
    }
    fn disown(&mut self, pd: u16) {
        self.log.push(alloc::format!("disown {pd}"));
    }
    fn resume(&mut self, pd: u16) {
        self.log.push(alloc::format!("resume {pd}"));
    }
    fn tell_held(&mut self, shard: u8, client: ClientId) {
        self.log.push(alloc::format!("held {shard} {}", client.0));
    }
    fn pci_gone(&mut self, shard: u8, client: ClientId) -> Result<u16, Refusal> {
        self.broken_off("pci")?;
        self.log.push(alloc::format!("pci {shard} {}", client.0));
        if self.refuses == Some("pci") {
            return Err(Rule::KernelRefused.into());
        }
        self.owes[usize::from(shard)] += self.slow[usize::from(shard)];
        Ok(self.slow[usize::from(shard)])
    }
    fn pci_pending(&mut self, shard: u8) -> Result<u16, Refusal> {
        self.broken_off("pending")?;
        Ok(self.owes[usize::from(shard)])
    }
    fn iommu_gone(&mut self, shard: u8, client: ClientId) -> Result<(), Refusal> {
        self.broken_off("iommu")?;
        self.log.push(alloc::format!("iommu {shard} {}", client.0));
        Ok(())
    }
    fn msi_gone(&mut self, shard: u8, client: ClientId) -> Result<u16, Refusal> {
        self.broken_off("msi")?;
        self.log.push(alloc::format!("msi {shard} {}", client.0));
        Ok(self.vectors_left)
    }
    fn reclaim(&mut self, pd: u16) -> Result<(), &'static str> {
        self.log.push(alloc::format!("reclaim {pd}"));
        self.reclaiming.push(pd);
        Ok(())
    }
    fn figures(&mut self) -> Figures {
        let mut figures = Figures::default();
        figures.add(
            &"iommu-server-0".try_into().unwrap(),
            "buffers",
            self.resources,
        );
        figures
    }
    fn strike(&mut self, pd: u16, how: Strike) {
        self.log.push(alloc::format!("{how:?} {pd}"));
    }
    fn alarm(&mut self, pd: u16, micros: u64) {
        self.log.push(alloc::format!("alarm {pd}"));
        self.alarm = Some((pd, micros));
    }
    fn say(&mut self, line: fmt::Arguments<'_>) {
        self.log.push(line.to_string());
    }
    fn end(&mut self, verdict: Verdict<'_>, power: Power) {
        self.log.push(alloc::format!("{verdict:?} {power:?}"));
    }
}

impl Fake {
    /// Is this the step that is broken off? Not a second time.
    fn broken_off(&mut self, step: &'static str) -> Result<(), Refusal> {
        match self.breaks_off.take_if(|which| *which == step) {
            Some(_) => {
                self.log.push(alloc::format!("{step} broken off"));
                Err(Rule::Restarted.into())
            }
            None => Ok(()),
        }
    }

    /// What it was told since the last time.
    pub(super) fn take(&mut self) -> List<Text> {
        core::mem::take(&mut self.log)
    }
}
