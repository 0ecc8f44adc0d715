//! Every command and every wait in between is left out once, and something has
//! to be noticed. The unit caches for ever and carries out in the opposite order
//! what no wait keeps apart; after each command the devices try everything.
//! As `mutations` for VT-d, which explains how steps are named and counted.

use std::collections::BTreeMap;
use std::format;
use std::string::String;
use std::vec::Vec;

use ipc_proto::{Access, ClientId};
use sim::amdvi::{AmdVi as Model, Step};
use sim::vtd::{Dma, Memory};

use super::kernel::forever;
use super::machine::{OPTIONS, TABLES, TestTables, device, small};
use crate::amdvi::unit::State;
use crate::amdvi::{AmdVi, Storage, UnitSetup};
use crate::{Backend, DeviceCache, DomainId, Extent, InterruptMessage};

const ONE: u16 = 0x18;
const TWO: u16 = 0x20;
const AT: u64 = 0x20_0000;
const NEXT: u64 = AT + 0x1000;
/// Another gigabyte.
const OTHER: u64 = 0x4000_0000;
const ADDRESSES: [u64; 4] = [0, AT, NEXT, OTHER];
const PAGES: u32 = 640;

type Outcome = Result<(), String>;
type Name = (&'static str, String);
type Site = (usize, usize);

struct Stage {
    unit: Model,
    amd: Option<AmdVi<'static, Model, TestTables>>,
    memory: Memory,
    domains: Vec<DomainId>,
    left_out: Option<Site>,
    /// An operation said that something was confirmed that was not.
    hasty: bool,
    operations: usize,
    sites: Vec<(Name, Site)>,
}

fn did<T, E: std::fmt::Debug>(outcome: Result<T, E>) -> Result<T, String> {
    outcome.map_err(|error| format!("{error:?}"))
}

impl Stage {
    fn new(left_out: Option<Site>) -> Self {
        let memory = Memory::new();
        let unit = Model::new(memory.clone(), Model::QEMU);
        // Firmware's table of zeros lets everything through, and the unit knows that by heart.
        unit.leave_on(0x20_0000);
        unit.attack_with(&[ONE, TWO], &ADDRESSES, 8);
        unit.attack();
        Self {
            unit,
            amd: None,
            memory,
            domains: Vec::new(),
            left_out,
            hasty: false,
            operations: 0,
            sites: Vec::new(),
        }
    }

    fn begin(&self) {
        let here = self
            .left_out
            .filter(|(number, _)| *number == self.operations);
        self.unit.leave_out(here.map(|(_, nth)| nth));
    }

    fn end(&mut self, operation: &'static str) {
        let mut before = "nothing";
        for (nth, step) in self.unit.steps().iter().enumerate() {
            let what = match step {
                Step::Command(first) => {
                    before = match first >> 60 {
                        2 => "a device",
                        3 => "pages",
                        5 => "interrupts",
                        _ => "everything",
                    };
                    format!("invalidation of {before}")
                }
                Step::Wait => format!("wait after {before}"),
            };
            self.sites.push(((operation, what), (self.operations, nth)));
        }
        self.operations += 1;
        self.hasty |= self.unit.pending() > 0;
        self.unit.leave_out(None);
        self.unit.attack();
    }

    fn operation<R>(
        &mut self,
        name: &'static str,
        run: impl FnOnce(&mut AmdVi<'static, Model, TestTables>) -> R,
    ) -> R {
        self.begin();
        let outcome = run(self.amd.as_mut().unwrap());
        self.end(name);
        outcome
    }

    fn start(&mut self) -> Outcome {
        let tables = TestTables {
            memory: self.memory.clone(),
            pages: PAGES,
        };
        let setup = UnitSetup {
            window: self.unit.clone(),
            include_all: true,
            scopes: &[],
        };
        self.begin();
        let storage = forever(Storage::new());
        let units = core::iter::once(setup);
        let amd = AmdVi::start(storage, tables, TABLES, 0, units, &OPTIONS);
        let state = amd.report(0);
        self.amd = Some(amd);
        self.end("start");
        if state != Some(State::Running) {
            return Err(format!("{state:?}"));
        }
        self.only(&[])?;
        self.delivers(ONE, 0, None)
    }

    fn create(&mut self) -> Outcome {
        let made = did(self.operation("create", |amd| amd.create_domain(ClientId(0))))?;
        self.domains.push(made);
        Ok(())
    }

    fn attach(&mut self, requester: u16, domain: usize) -> Outcome {
        let domain = self.domains[domain];
        let id = device(requester.into());
        did(self.operation("attach", |amd| amd.attach(id, domain, DeviceCache::None))).map(drop)
    }

    fn detach(&mut self, requester: u16, domain: usize) -> Outcome {
        let domain = self.domains[domain];
        did(self.operation("detach", |amd| amd.detach(device(requester.into()), domain)))
    }

    fn map(&mut self, domain: usize, address: u64, extent: Extent) -> Outcome {
        let domain = self.domains[domain];
        did(self.operation("map", |amd| {
            amd.map(domain, address, &[extent], Access::ReadWrite)
        }))
    }

    fn unmap(&mut self, domain: usize, address: u64, bytes: u64) -> Outcome {
        let domain = self.domains[domain];
        did(self.operation("unmap", |amd| amd.unmap(domain, address, bytes)))
    }

    /// Exactly these requesters reach exactly this, and nothing else is reached.
    fn only(&self, allowed: &[(u16, u64, u64)]) -> Outcome {
        if self.hasty {
            return Err("it was not waited for".into());
        }
        for requester in [ONE, TWO] {
            for address in ADDRESSES {
                let expected = allowed
                    .iter()
                    .find(|row| (row.0, row.1) == (requester, address));
                let reached = self.unit.dma(requester, address, Dma::Read).ok();
                if reached != expected.map(|row| row.2) {
                    return Err(format!("{requester:#x} at {address:#x}: {reached:x?}"));
                }
            }
        }
        Ok(())
    }

    /// A message with the next data besides.
    fn remap(&mut self, requester: u16, vector: u32) -> Outcome {
        let kernels = InterruptMessage {
            address: 0xfee0_0000,
            data: vector,
        };
        let id = device(requester.into());
        let sent = did(self.operation("remap", |amd| amd.remap(id, &[], kernels, 2)))?;
        self.delivers(requester, sent.data, Some(vector as u8))
    }

    fn delivers(&self, requester: u16, data: u32, vector: Option<u8>) -> Outcome {
        let sent = self.unit.message(requester, 0xfee0_0000, data);
        let got = sent.ok().map(|interrupt| interrupt.vector);
        if got == vector && !self.hasty {
            Ok(())
        } else {
            Err(format!("{requester:#x} raised {got:x?}"))
        }
    }
}

/// Mappings and devices come and go.
fn mapping(stage: &mut Stage) -> Outcome {
    stage.start()?;
    stage.create()?;
    stage.attach(ONE, 0)?;
    stage.only(&[])?;
    stage.map(0, AT, small(0x5000, 1))?;
    stage.only(&[(ONE, AT, 0x5000)])?;
    stage.map(0, NEXT, small(0x6000, 1))?;
    stage.only(&[(ONE, AT, 0x5000), (ONE, NEXT, 0x6000)])?;
    stage.unmap(0, AT, 0x1000)?;
    stage.only(&[(ONE, NEXT, 0x6000)])?;
    stage.detach(ONE, 0)?;
    stage.only(&[])?;
    // Nobody is told of this: nobody can have it cached.
    stage.unmap(0, NEXT, 0x1000)?;
    stage.attach(TWO, 0)?;
    stage.only(&[])?;
    stage.map(0, AT, small(0x7000, 1))?;
    stage.only(&[(TWO, AT, 0x7000)])?;
    let domain = stage.domains[0];
    let id = device(TWO.into());
    did(stage.operation("silence", |amd| amd.silence(id, Some(domain))))?;
    stage.only(&[])
}

/// A large page takes the place of a table, which serves another domain then.
fn tables(stage: &mut Stage) -> Outcome {
    const LARGE: Extent = Extent {
        physical: 0x8000_0000,
        bytes: 2 << 20,
        frames: 0,
        page_bits: 21,
    };
    stage.start()?;
    stage.create()?;
    stage.create()?;
    stage.attach(ONE, 0)?;
    stage.attach(TWO, 1)?;
    stage.map(0, AT, small(0x5000, 1))?;
    stage.unmap(0, AT, 0x1000)?;
    stage.map(0, AT, LARGE)?;
    stage.only(&[
        (ONE, AT, LARGE.physical),
        (ONE, NEXT, LARGE.physical + 0x1000),
    ])?;
    stage.map(1, OTHER, small(0x6000, 1))?;
    stage.only(&[
        (ONE, AT, LARGE.physical),
        (ONE, NEXT, LARGE.physical + 0x1000),
        (TWO, OTHER, 0x6000),
    ])?;
    stage.unmap(0, AT, LARGE.bytes)?;
    stage.only(&[(TWO, OTHER, 0x6000)])
}

/// Messages.
fn messages(stage: &mut Stage) -> Outcome {
    stage.start()?;
    // One message is tried all the time, the next is not.
    stage.unit.attack_with(&[ONE, TWO], &ADDRESSES, 1);
    stage.remap(ONE, 0x41)?;
    stage.delivers(TWO, 0, None)?;
    // More of them in the same table.
    stage.remap(ONE, 0x51)?;
    stage.delivers(ONE, 0, Some(0x41))?;
    did(stage.operation("unremap", |amd| amd.unremap(device(ONE.into()))))?;
    for data in 0..4 {
        stage.delivers(ONE, data, None)?;
    }
    Ok(())
}

/// The table of one that has none any more is another's.
fn messages_of_another(stage: &mut Stage) -> Outcome {
    stage.start()?;
    stage.unit.attack_with(&[ONE, TWO], &ADDRESSES, 1);
    stage.remap(ONE, 0x41)?;
    did(stage.operation("unremap", |amd| amd.unremap(device(ONE.into()))))?;
    stage.remap(TWO, 0x51)?;
    for data in 0..2 {
        stage.delivers(ONE, data, None)?;
    }
    stage.remap(ONE, 0x61)?;
    stage.delivers(TWO, 1, Some(0x52))
}

#[test]
fn every_command_is_missed_by_some_scenario() {
    let mut caught: BTreeMap<Name, bool> = BTreeMap::new();
    for scenario in [mapping, tables, messages, messages_of_another] {
        let mut whole = Stage::new(None);
        scenario(&mut whole).unwrap();
        for (name, site) in whole.sites {
            let known = caught.entry(name).or_insert(false);
            if !*known {
                *known = scenario(&mut Stage::new(Some(site))).is_err();
            }
        }
    }
    let missed: Vec<_> = caught.iter().filter(|(_, caught)| !**caught).collect();
    std::println!(
        "AMD-Vi: {}/{} steps left out were caught",
        caught.len() - missed.len(),
        caught.len()
    );
    for (name, _) in &missed {
        std::println!("not caught: {name:?}");
    }
    assert!(missed.is_empty());
}

#[test]
fn half_of_a_register_can_be_written() {
    use hw::Mmio;
    let mut unit = Model::new(Memory::new(), Model::QEMU);
    unit.write64(0x08, 0x1122_3344_5566_7788);
    unit.write32(0x0c, 0xaabb_ccdd);
    assert_eq!(unit.read64(0x08), 0xaabb_ccdd_5566_7788);
    unit.write32(0x08, 1);
    assert_eq!((unit.read32(0x08), unit.read32(0x0c)), (1, 0xaabb_ccdd));
}
