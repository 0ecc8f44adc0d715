//! A shard killed before any effect of any operation, and restarted: what it held is as before, or as after the
//! operation; devices never reach what neither allows; the operation can be asked for again; and in the end
//! everything is back.

mod garbage;
mod operations;
mod stage;

use sim::vtd::Model;

use crate::vtd::Quarantine;
use operations::{OPERATIONS, Parts};
use stage::{Allowed, Stage};

fn models() -> [(Model, Quarantine); 4] {
    let qemu = Model::QEMU.device_tlb();
    [
        (qemu, Quarantine::Blocking),
        (qemu.caching(), Quarantine::Blocking),
        (
            qemu.write_buffer().snooping().four_levels(),
            Quarantine::Scratch,
        ),
        (
            qemu.write_buffer().whole_domains().small_pages(),
            Quarantine::Blocking,
        ),
    ]
}

/// Kills before each effect of one operation, or before one in `stride`.
fn kill_everywhere((model, quarantine): (Model, Quarantine), number: usize, stride: u64) {
    let operation = &OPERATIONS[number];
    let undisturbed = Stage::new(model, quarantine);
    let initial = undisturbed.accounts();
    undisturbed.set();
    let before = undisturbed.look();
    let effects = undisturbed.act(operation, None).expect("nobody kills it");
    let after = undisturbed.look();
    for nth in (number as u64 % stride..effects).step_by(stride as usize) {
        let name = operation.name;
        let stage = Stage::new(model, quarantine);
        stage.set();
        assert!(
            stage.act(operation, Some(nth)).is_none(),
            "{name} ends before effect {nth}"
        );
        let allowed = Allowed::either(&before, &after);
        allowed.check(&stage);
        if nth % 5 == 0 {
            stage.watch(&allowed);
        }
        let now = stage.look();
        stage.unwatch();
        let context = || std::format!("{name}, killed before effect {nth} of {effects}");
        assert!(
            now == before || now == after || operation.parts == Parts::Several,
            "{}\nbefore: {before:#?}\nnow: {now:#?}\nafter: {after:#?}",
            context()
        );
        // Once more changes nothing.
        let again = stage.look();
        assert!(again == now, "{}\n{now:#?}\n{again:#?}", context());
        stage.again(operation);
        if operation.parts == Parts::Several {
            assert_eq!(stage.look(), after, "{}", context());
        }
        stage.clear();
        assert_eq!(stage.accounts(), initial, "{}", context());
    }
}

/// With every unit all of them takes minutes in a build that is not optimized; `--release` does it.
const OTHERS: u64 = if cfg!(debug_assertions) { 4 } else { 1 };

macro_rules! every {
    ($($name:ident: $model:expr, one in $stride:expr;)*) => {$(
        #[test]
        fn $name() {
            for number in 0..OPERATIONS.len() {
                kill_everywhere(models()[$model], number, $stride);
            }
        }
    )*};
}

every! {
    qemus_unit: 0, one in 1;
    caching_mode: 1, one in OTHERS;
    write_buffer_and_scratch: 2, one in OTHERS;
    no_selective_invalidation: 3, one in OTHERS;
}

/// The recovery is killed too, before each of its effects.
#[test]
fn a_recovery_that_is_killed_is_begun_again() {
    let (model, quarantine) = models()[0];
    for (number, operation) in OPERATIONS.iter().enumerate() {
        let undisturbed = Stage::new(model, quarantine);
        let initial = undisturbed.accounts();
        undisturbed.set();
        let before = undisturbed.look();
        let effects = undisturbed.act(operation, None).expect("nobody kills it");
        let after = undisturbed.look();
        let allowed = Allowed::either(&before, &after);
        // One place of each operation, another one for each.
        let nth = (number as u64 * 7 + 3) % effects.max(1);
        let mut step = 0;
        loop {
            let stage = Stage::new(model, quarantine);
            stage.set();
            let _ = stage.act(operation, Some(nth));
            let recovered = stage.survivors.begin_to_live(Some(step)).is_some();
            allowed.check(&stage);
            let now = stage.look();
            let fits = now == before || now == after;
            assert!(
                fits || operation.parts == Parts::Several,
                "{}: {nth}, {step}: {now:#?}",
                operation.name
            );
            if recovered {
                stage.again(operation);
                stage.clear();
                assert_eq!(stage.accounts(), initial, "{}", operation.name);
                break;
            }
            step += if cfg!(debug_assertions) { 7 } else { 1 };
        }
    }
}
