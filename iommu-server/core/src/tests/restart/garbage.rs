//! Ledger and tables that say anything: a shard that starts over them never panics, lets nobody reach more than before, and
//! gives everything back that is not lost.

use proptest::prelude::*;
use sim::vtd::Model;

use super::stage::{Allowed, Stage};
use crate::notes;
use crate::tests::machine::TABLES;
use crate::vtd::Quarantine;

/// A word of the ledger that means something, more often than not.
fn place() -> impl Strategy<Value = usize> {
    prop_oneof![
        0..12usize,
        (0..64usize).prop_map(|at| notes::NODES + at),
        (0..12usize).prop_map(|at| notes::BUFFERS + at),
        (0..12usize).prop_map(|at| notes::MAPPINGS + at),
        (0..5usize).prop_map(|at| notes::CONTEXTS + at),
        (0..4usize).prop_map(|at| notes::CONTEXTS + system::model::MAX_CLIENTS + at),
        (0..6usize).prop_map(|at| notes::DEVICES + at),
        (0..4usize).prop_map(|at| notes::ALIASES + at),
        (0..6usize).prop_map(|at| notes::MESSAGES + at),
        2..notes::WORDS,
    ]
}

/// What is put there.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// This.
    Word(u64),
    /// These bits turned over.
    Bits(u64),
    /// What is at another place.
    Copy(usize),
}

fn wrong() -> impl Strategy<Value = Wrong> {
    prop_oneof![
        any::<u64>().prop_map(Wrong::Word),
        (0u64..8).prop_map(Wrong::Word),
        (0..64u32, 0..64u32).prop_map(|(one, two)| Wrong::Bits(1 << one | 1 << two)),
        place().prop_map(Wrong::Copy),
    ]
}

fn model() -> Model {
    Model::QEMU.device_tlb()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 5))]

    #[test]
    fn a_ledger_that_says_anything(changes in prop::collection::vec((place(), wrong()), 1..8)) {
        let stage = Stage::new(model(), Quarantine::Blocking);
        stage.set();
        let before = stage.look();
        let kernel = &stage.survivors.kernel;
        for (at, wrong) in changes {
            let ledger = kernel.ledger();
            // The header says whether there is a ledger at all.
            if at != notes::HEADER {
                kernel.set_ledger(at, match wrong {
                    Wrong::Word(word) => word,
                    Wrong::Bits(bits) => ledger[at] ^ bits,
                    Wrong::Copy(from) => ledger[from],
                });
            }
        }
        let allowed = Allowed::either(&before, &before);
        stage.watch(&allowed);
        stage.live(|_| ());
        stage.unwatch();
        allowed.check(&stage);
        stage.give_up();
    }

    #[test]
    fn tables_that_hold_anything(
        changes in prop::collection::vec((0u64..40, 0u64..512, any::<u64>(), 0u64..6, 0u64..40), 1..10),
    ) {
        let stage = Stage::new(model(), Quarantine::Blocking);
        stage.set();
        let memory = &stage.survivors.memory;
        for (page, word, value, kind, other) in changes {
            // Page 4 is the unit's queue, which it reads itself.
            let address = TABLES + page * 0x1000 + word * 8;
            let pointer = TABLES + other * 0x1000;
            memory.write(address, match kind {
                0 => value,
                1 => 0,
                2 => pointer | 3,
                3 => pointer | 1,
                4 => 0x1000_0003 + (value & 0x3f_f000),
                _ => memory.read(address) ^ 1 << (value % 64),
            });
            memory.write_back(address, 8);
        }
        stage.live(|_| ());
        stage.give_up();
    }
}
