//! Every invalidation, fence, flush of a cache line and flush of a write buffer
//! is left out once, and some scenario has to fail for it.
//!
//! A scenario is a list of phases on a back end over one unit. It runs once as
//! it is, which tells the steps that each operation of the back end takes; then
//! once for each step with that step left out. The unit does all it may to show
//! the loss: it caches for ever, reorders what is not fenced, and after each step
//! the devices try everything they could.
//!
//! Steps are named after the operation that takes them and what they are about,
//! so that one place of the driver has one name however often it is passed. A
//! name is caught when one of the scenarios, on one of the models, notices its
//! loss in one of the passes.

mod scenarios;
mod stage;

use std::collections::BTreeMap;
use std::vec::Vec;

use sim::vtd::{Memory, Model};

use crate::vtd::Quarantine;
use scenarios::{KEEPING, MAPPING, MESSAGES, OUTLIVED, REPLACING, TABLES_AGAIN};
use stage::{Name, Outcome, Phase, Site, Stage, firmware};

pub struct Scenario {
    pub name: &'static str,
    pub phases: &'static [Phase],
    pub quarantine: Quarantine,
}

impl Scenario {
    /// Runs it, with one step left out.
    fn run(&self, model: Model, memory: &Memory, left_out: (usize, Site)) -> Outcome {
        let mut stage = Stage::new(self, model, memory);
        stage.left_out = Some(left_out);
        self.phases
            .iter()
            .try_for_each(|(_, phase)| phase(&mut stage))
    }

    /// Its steps, when nothing is left out.
    fn sites(&self, model: Model, memory: &Memory) -> Vec<(Name, (usize, Site))> {
        let mut stage = Stage::new(self, model, memory);
        for (phase, run) in self.phases {
            if let Err(error) = run(&mut stage) {
                panic!("{}, {phase}: {error}", self.name);
            }
        }
        stage.sites
    }
}

const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "mapping",
        phases: MAPPING,
        quarantine: Quarantine::Blocking,
    },
    Scenario {
        name: "tables",
        phases: TABLES_AGAIN,
        quarantine: Quarantine::Blocking,
    },
    Scenario {
        name: "outlived",
        phases: OUTLIVED,
        quarantine: Quarantine::Blocking,
    },
    Scenario {
        name: "replacing",
        phases: REPLACING,
        quarantine: Quarantine::Scratch,
    },
    Scenario {
        name: "messages",
        phases: MESSAGES,
        quarantine: Quarantine::Blocking,
    },
    Scenario {
        name: "keeping",
        phases: KEEPING,
        quarantine: Quarantine::Blocking,
    },
];

fn models() -> [Model; 5] {
    let qemu = Model::QEMU.device_tlb();
    [
        qemu,
        qemu.caching(),
        qemu.write_buffer(),
        qemu.write_buffer().snooping().caching(),
        qemu.four_levels().whole_domains(),
    ]
}

#[test]
fn every_step_is_missed_by_some_scenario() {
    let mut caught: BTreeMap<Name, bool> = BTreeMap::new();
    for scenario in SCENARIOS {
        for model in models() {
            let memory = firmware(model);
            for (name, site) in scenario.sites(model, &memory) {
                let known = caught.entry(name).or_insert(false);
                if !*known {
                    *known = scenario.run(model, &memory, site).is_err();
                }
            }
        }
    }
    let missed: Vec<_> = caught.iter().filter(|(_, caught)| !**caught).collect();
    std::println!(
        "{}/{} steps left out were caught",
        caught.len() - missed.len(),
        caught.len()
    );
    for (name, _) in &missed {
        std::println!("not caught: {name:?}");
    }
    assert!(missed.is_empty());
}
