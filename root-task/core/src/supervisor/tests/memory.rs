//! When the memory of a client that is gone is taken back, and who waits for it.

use super::*;

#[test]
fn memory_is_taken_back_only_when_every_shard_has_let_go() {
    let (mut supervisor, mut hands) = running();
    hands.slow = [1, 2];
    ask(&mut supervisor, &mut hands, A, EXIT);
    assert_eq!(
        hands.take(),
        [
            "stop 7", "disown 7", "held 0 0", "pci 0 0", "held 1 0", "pci 1 0"
        ]
    );
    hands.owes = [0, 2];
    supervisor.signalled(event::SHARD_DONE);
    work(&mut supervisor, &mut hands);
    assert_eq!(hands.take(), List::<Text>::new(), "one shard is not all");
    hands.owes = [0, 0];
    work(&mut supervisor, &mut hands);
    assert_eq!(
        hands.take(),
        List::<Text>::new(),
        "shards are asked when they signal, not polled"
    );
    supervisor.signalled(event::SHARD_DONE << 1);
    work(&mut supervisor, &mut hands);
    assert_eq!(
        hands.take(),
        ["iommu 0 0", "msi 0 0", "reclaim 7", "@gone a exit 0"]
    );
}

#[test]
fn nobody_waits_for_memory_to_be_taken_back_but_the_end_of_the_run() {
    let (mut supervisor, mut hands) = running();
    hands.memory_takes_long = true;
    ask(&mut supervisor, &mut hands, A, EXIT);
    assert_eq!(hands.take().last().unwrap(), "reclaim 7");
    ask(&mut supervisor, &mut hands, B, EXIT);
    let log = hands.take();
    assert_eq!(log.last().unwrap(), "reclaim 8", "A's is not waited for");
    ask(&mut supervisor, &mut hands, A, EXIT);
    supervisor.signalled(event::SHARD_DONE);
    work(&mut supervisor, &mut hands);
    assert!(hands.take().is_empty(), "nothing is begun twice");
    assert_eq!(hands.reclaiming, [A, B]);

    for pd in [B, A] {
        supervisor.reclaimed(pd, Ok(()), &mut hands);
        supervisor.reclaimed(pd, Ok(()), &mut hands);
        work(&mut supervisor, &mut hands);
    }
    let log = hands.take();
    assert_eq!(log[..2], ["@gone b exit 0", "@gone a exit 0"]);
    assert_eq!(log.last().unwrap(), "reclaim 9", "the last one is stopped");
    supervisor.reclaimed(LOOKER, Ok(()), &mut hands);
    work(&mut supervisor, &mut hands);
    assert_eq!(hands.take().last().unwrap(), "Pass Off");
}

#[test]
fn memory_that_the_kernel_does_not_take_back_fails_the_run() {
    let (mut supervisor, mut hands) = running();
    hands.memory_takes_long = true;
    // Nothing of it is being taken back.
    supervisor.reclaimed(A, Err("too early"), &mut hands);
    assert!(hands.take().is_empty());
    ask(&mut supervisor, &mut hands, A, EXIT);
    supervisor.reclaimed(A, Err("it is stuck"), &mut hands);
    hands.memory_takes_long = false;
    hands.reclaiming.clear();
    ask(&mut supervisor, &mut hands, B, EXIT);
    let log = hands.take();
    assert!(log.contains(&"a: it is stuck".into()), "{log:?}");
    assert_eq!(log.last().unwrap(), "Fail(\"a: it is stuck\") Off");
}
