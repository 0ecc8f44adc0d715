//! What is done on a [`Stage`], and what has to hold after each phase.

use std::format;
use std::string::String;

use ipc_proto::{Access, ClientId};
use sim::vtd::{Ailment, Dma};

use super::super::kernel::forever;
use super::super::machine::{MESSAGE, OPTIONS, TABLES, TestTables, device, small};
use super::stage::{ADDRESSES, AT, Leaky, NEXT, ONE, OTHER, Outcome, PAGES, Phase, Stage, TWO};
use crate::vtd::{self, Options, Quarantine, UnitSetup};
use crate::{Backend, BackendError, DeviceCache, Extent, InterruptMessage};

fn did<T, E: std::fmt::Debug>(outcome: Result<T, E>) -> Result<T, String> {
    outcome.map_err(|error| format!("{error:?}"))
}

fn start(stage: &mut Stage) -> Outcome {
    let tables = Leaky {
        tables: TestTables {
            memory: stage.memory.clone(),
            pages: PAGES,
        },
        unit: stage.unit.clone(),
        flushes: stage.flushes.clone(),
    };
    let setup = UnitSetup {
        window: stage.unit.clone(),
        segment: 0,
        include_all: true,
        scopes: &[],
        message: MESSAGE,
    };
    let options = Options {
        quarantine: stage.quarantine,
        clients: 1,
        ..OPTIONS
    };
    let storage = forever(vtd::Storage::new());
    let setups = core::iter::once(setup);
    stage.begin();
    let started = vtd::Vtd::start(storage, tables, TABLES, setups, &options);
    stage.end("start");
    let state = started.report(0).unwrap().state;
    stage.vtd = Some(started);
    if state != vtd::unit::State::Running {
        return Err(format!("{state:?}"));
    }
    stage.nobody_else(&[])?;
    for entry in 0..4 {
        let message = InterruptMessage {
            address: 0xfee0_0018 | entry << 5,
            data: 0,
        };
        stage.delivered(ONE, message, None)?;
    }
    Ok(())
}

fn create(stage: &mut Stage) -> Outcome {
    let made = did(stage.operation("create", |vtd| vtd.create_domain(ClientId(0))))?;
    stage.domains.push(made);
    Ok(())
}

fn map(stage: &mut Stage, address: u64, physical: u64) -> Outcome {
    let domain = stage.domains[0];
    did(stage.operation("map", |vtd| {
        vtd.map(domain, address, &[small(physical, 1)], Access::ReadWrite)
    }))
}

fn unmap(stage: &mut Stage, address: u64, bytes: u64) -> Outcome {
    let domain = stage.domains[0];
    did(stage.operation("unmap", |vtd| vtd.unmap(domain, address, bytes)))
}

fn attach(stage: &mut Stage, requester: u16, cache: DeviceCache) -> Outcome {
    let domain = stage.domains[0];
    let name = match stage.quarantine {
        Quarantine::Blocking => "attach",
        Quarantine::Scratch => "attach out of scratch",
    };
    did(stage.operation(name, |vtd| {
        vtd.attach(device(requester.into()), domain, cache)
    }))
    .map(drop)
}

fn detach(stage: &mut Stage, requester: u16) -> Outcome {
    let domain = stage.domains[0];
    let name = match stage.quarantine {
        Quarantine::Blocking => "detach",
        Quarantine::Scratch => "detach into scratch",
    };
    did(stage.operation(name, |vtd| vtd.detach(device(requester.into()), domain)))
}

fn attach_one(stage: &mut Stage) -> Outcome {
    attach(stage, ONE, DeviceCache::None)?;
    stage.reaches(ONE, AT, Some(0x5000))?;
    stage.nobody_else(&[(ONE, AT)])
}

/// Mappings and devices come and go.
pub const MAPPING: &[Phase] = &[
    ("start", start),
    ("create", create),
    ("map while nobody is there", |stage| map(stage, AT, 0x5000)),
    ("attach", attach_one),
    ("map", |stage| {
        map(stage, NEXT, 0x6000)?;
        stage.reaches(ONE, NEXT, Some(0x6000))?;
        stage.nobody_else(&[(ONE, AT), (ONE, NEXT)])
    }),
    ("unmap", |stage| {
        unmap(stage, AT, 0x1000)?;
        stage.nobody_else(&[(ONE, NEXT)])
    }),
    ("map into a new table", |stage| {
        map(stage, OTHER, 0x7000)?;
        stage.reaches(ONE, OTHER, Some(0x7000))?;
        stage.nobody_else(&[(ONE, NEXT), (ONE, OTHER)])
    }),
    ("unmap the rest", |stage| {
        unmap(stage, NEXT, 0x1000)?;
        unmap(stage, OTHER, 0x1000)?;
        stage.nobody_else(&[])
    }),
    ("map again", |stage| {
        map(stage, AT, 0x8000)?;
        stage.reaches(ONE, AT, Some(0x8000))
    }),
    ("detach", |stage| {
        detach(stage, ONE)?;
        stage.nobody_else(&[])
    }),
    // Nobody is told of this: nobody can have it cached.
    ("unmap while nobody is there", |stage| {
        unmap(stage, AT, 0x1000)
    }),
    ("attach another", |stage| {
        attach(stage, TWO, DeviceCache::None)?;
        stage.nobody_else(&[])?;
        map(stage, AT, 0xa000)?;
        stage.reaches(TWO, AT, Some(0xa000))?;
        stage.nobody_else(&[(TWO, AT)])
    }),
    ("silence", |stage| {
        let domain = stage.domains[0];
        did(stage.operation("silence", |vtd| {
            vtd.silence(device(TWO.into()), Some(domain))
        }))?;
        stage.nobody_else(&[])
    }),
    ("unmap what is silenced", |stage| unmap(stage, AT, 0x1000)),
    ("detach what is silenced", |stage| detach(stage, TWO)),
    ("destroy", destroy),
    ("the id and the tables again", |stage| {
        create(stage)?;
        attach(stage, TWO, DeviceCache::None)?;
        stage.nobody_else(&[])?;
        map(stage, NEXT, 0xb000)?;
        stage.reaches(TWO, NEXT, Some(0xb000))?;
        stage.nobody_else(&[(TWO, NEXT)])
    }),
];

pub const LARGE: Extent = Extent {
    physical: 0x4000_0000,
    bytes: 2 << 20,
    frames: 0,
    page_bits: 21,
};

/// Tables are taken out and used elsewhere.
pub const TABLES_AGAIN: &[Phase] = &[
    ("start", start),
    ("create", create),
    ("map", |stage| {
        attach(stage, ONE, DeviceCache::None)?;
        map(stage, AT, 0x5000)?;
        stage.reaches(ONE, AT, Some(0x5000))?;
        unmap(stage, AT, 0x1000)
    }),
    ("a large page instead of a table", |stage| {
        let domain = stage.domains[0];
        did(stage.operation("map", |vtd| {
            vtd.map(domain, AT, &[LARGE], Access::ReadWrite)
        }))?;
        stage.reaches(ONE, AT, Some(LARGE.physical))
    }),
    ("the table elsewhere", |stage| {
        map(stage, OTHER + NEXT, 0x6000)?;
        stage.reaches(ONE, OTHER + NEXT, Some(0x6000))?;
        stage.reaches(ONE, AT, Some(LARGE.physical))?;
        stage.reaches(ONE, NEXT, Some(LARGE.physical + 0x1000))
    }),
    ("unmap the large page", |stage| {
        unmap(stage, AT, LARGE.bytes)?;
        stage.reaches(ONE, AT, None)
    }),
    ("small pages again", |stage| {
        map(stage, AT, 0x7000)?;
        stage.reaches(ONE, AT, Some(0x7000))?;
        unmap(stage, AT, 0x1000)?;
        stage.reaches(ONE, AT, None)
    }),
    ("empty tables taken back", |stage| {
        // As many gigabytes as it takes until an empty table has to serve.
        for gigabyte in 2..9u64 {
            let (address, physical) = ((gigabyte << 30) + AT, 0x10_0000 + (gigabyte << 12));
            if map(stage, address, physical).is_err() {
                break;
            }
            stage.reaches(ONE, address, Some(physical))?;
            stage.reaches(ONE, AT, None)?;
            stage.reaches(ONE, NEXT, None)?;
        }
        stage.reaches(ONE, OTHER + NEXT, Some(0x6000))
    }),
];

fn destroy(stage: &mut Stage) -> Outcome {
    let domain = stage.domains.remove(0);
    did(stage.operation("destroy", |vtd| vtd.destroy_domain(domain)))
}

/// The tables of a domain that has ended serve others: what was in them must not lead anybody there.
pub const OUTLIVED: &[Phase] = &[
    ("start", start),
    ("create", create),
    ("map and unmap", |stage| {
        attach(stage, ONE, DeviceCache::None)?;
        map(stage, AT, 0x5000)?;
        map(stage, OTHER, 0x6000)?;
        unmap(stage, AT, 0x1000)?;
        unmap(stage, OTHER, 0x1000)?;
        detach(stage, ONE)
    }),
    ("destroy", destroy),
    ("two others", |stage| {
        create(stage)?;
        create(stage)?;
        // The second has all that the first leaves over.
        let (one, two) = (stage.domains[0], stage.domains[1]);
        for (domain, requester) in [(one, ONE), (two, TWO)] {
            did(stage.operation("attach", |vtd| {
                vtd.attach(device(requester.into()), domain, DeviceCache::None)
            }))?;
        }
        for (address, physical) in [(AT, 0x7000), (OTHER, 0x8000)] {
            did(stage.operation("map", |vtd| {
                vtd.map(two, address, &[small(physical, 1)], Access::ReadWrite)
            }))?;
            stage.reaches(TWO, address, Some(physical))?;
        }
        stage.nobody_else(&[(TWO, AT), (TWO, OTHER)])
    }),
];

/// In and out of the scratch domain.
pub const REPLACING: &[Phase] = &[
    ("start with scratch", start),
    ("create", create),
    ("attach and map", |stage| {
        map(stage, AT, 0x5000)?;
        attach_one(stage)
    }),
    ("into scratch", |stage| {
        detach(stage, ONE)?;
        let scratch = stage.unit.dma(ONE, AT, Dma::Read);
        for address in ADDRESSES {
            let reached = stage.unit.dma(ONE, address, Dma::Read);
            if reached.is_err() || reached != scratch || reached == Ok(0x5000) {
                return Err(format!("{address:#x}: {reached:x?}"));
            }
            if let Ok(reached) = stage.unit.dma(ONE, address, Dma::Write) {
                return Err(format!("writes {reached:#x}"));
            }
        }
        let page = did(scratch)? & !0xfff;
        // Devices' own accesses to memory are coherent.
        if stage.memory.read(page) != 0 {
            return Err(format!("what memory held before shows in {page:#x}"));
        }
        Ok(())
    }),
    ("unmap while nobody is there", |stage| {
        unmap(stage, AT, 0x1000)
    }),
    ("out of scratch", |stage| {
        attach(stage, ONE, DeviceCache::None)?;
        stage.nobody_else(&[])?;
        map(stage, NEXT, 0x6000)?;
        stage.reaches(ONE, NEXT, Some(0x6000))?;
        stage.nobody_else(&[(ONE, NEXT)])
    }),
    ("back, and another out", |stage| {
        detach(stage, ONE)?;
        attach(stage, TWO, DeviceCache::None)?;
        detach(stage, TWO)?;
        attach(stage, ONE, DeviceCache::None)?;
        stage.reaches(ONE, NEXT, Some(0x6000))
    }),
];

fn remap(stage: &mut Stage, requester: u16, vector: u32) -> Result<InterruptMessage, String> {
    let kernels = InterruptMessage {
        address: 0xfee0_0000,
        data: vector,
    };
    did(stage.operation("remap", |vtd| {
        vtd.remap(device(requester.into()), &[], kernels, 1)
    }))
}

/// Interrupt messages.
pub const MESSAGES: &[Phase] = &[
    ("start", start),
    ("remap", |stage| {
        let message = remap(stage, ONE, 0x41)?;
        stage.message = Some(message);
        stage.delivered(ONE, message, Some(0x41))?;
        stage.delivered(TWO, message, None)
    }),
    ("unremap", |stage| {
        did(stage.operation("unremap", |vtd| vtd.unremap(device(ONE.into()))))?;
        let message = stage.message.unwrap();
        stage.delivered(ONE, message, None)
    }),
    ("the entry for another", |stage| {
        let message = remap(stage, TWO, 0x51)?;
        stage.delivered(TWO, message, Some(0x51))?;
        stage.delivered(ONE, message, None)
    }),
];

pub const KEEPS: DeviceCache = DeviceCache::Depth(4);

fn keep(stage: &mut Stage, cache: DeviceCache) -> Outcome {
    let domain = stage.domains[0];
    let name = match cache {
        DeviceCache::None => "keep nothing",
        DeviceCache::Depth(_) => "keep again",
    };
    did(stage.operation(name, |vtd| vtd.keep(device(ONE.into()), domain, cache))).map(drop)
}

/// Devices that keep translations.
pub const KEEPING: &[Phase] = &[
    ("start", start),
    ("create", create),
    ("attach with a cache", |stage| {
        attach(stage, ONE, KEEPS)?;
        map(stage, AT, 0x5000)?;
        did(stage.unit.ask(ONE, AT, Dma::Read))
    }),
    ("unmap from a cache", |stage| {
        unmap(stage, AT, 0x1000)?;
        match stage.unit.translated(ONE, AT) {
            None => Ok(()),
            Some(still) => Err(format!("{still:x?}")),
        }
    }),
    ("detach a cache", |stage| {
        map(stage, AT, 0x6000)?;
        did(stage.unit.ask(ONE, AT, Dma::Read))?;
        detach(stage, ONE)
    }),
    ("attach it again", |stage| {
        unmap(stage, AT, 0x1000)?;
        attach(stage, ONE, KEEPS)?;
        match stage.unit.translated(ONE, AT) {
            None => Ok(()),
            Some(still) => Err(format!("{still:x?}")),
        }
    }),
    ("no more", |stage| {
        map(stage, AT, 0x6000)?;
        map(stage, NEXT, 0x7000)?;
        did(stage.unit.ask(ONE, AT, Dma::Read))?;
        keep(stage, DeviceCache::None)?;
        if let Some(still) = stage.unit.translated(ONE, AT) {
            return Err(format!("{still:x?}"));
        }
        if stage.unit.ask(ONE, NEXT, Dma::Read).is_ok() {
            return Err("it may ask".into());
        }
        stage.reaches(ONE, NEXT, Some(0x7000))?;
        unmap(stage, AT, 0x1000)?;
        stage.nobody_else(&[(ONE, NEXT)])
    }),
    ("again", |stage| {
        keep(stage, KEEPS)?;
        did(stage.unit.ask(ONE, NEXT, Dma::Read))?;
        unmap(stage, NEXT, 0x1000)?;
        match stage.unit.translated(ONE, NEXT) {
            None => Ok(()),
            Some(still) => Err(format!("{still:x?}")),
        }
    }),
    ("a mute device", |stage| {
        map(stage, AT, 0x7000)?;
        map(stage, NEXT, 0x8000)?;
        did(stage.unit.ask(ONE, AT, Dma::Read))?;
        stage.unit.set_ailment(Ailment::DeviceMute(ONE));
        let domain = stage.domains[0];
        let outcome = stage.operation("unmap", |vtd| vtd.unmap(domain, AT, 0x1000));
        if outcome != Err(BackendError::DeviceSilent) {
            return Err(format!("{outcome:?}"));
        }
        if let Some(Ok(still)) = stage.unit.translated(ONE, AT) {
            return Err(format!("{still:x?}"));
        }
        stage.nobody_else(&[])
    }),
];
