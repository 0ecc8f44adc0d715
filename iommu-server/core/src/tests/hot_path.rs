//! What mapping a buffer costs in accesses to tables and registers, so that
//! the path stays short.

use ipc_proto::PagePreference;
use sim::vtd::Model;

use super::machine::{World, device};

#[test]
fn remapping_a_page_needs_no_effect_and_two_descriptors() {
    let mut world = World::new(Model::QEMU);
    world.attach(device(0x18), 0).unwrap();
    world.alloc(0, 0x1000, PagePreference::Small, 0).unwrap();
    let buffer = world.buffer_badge(0, 0);
    world.map_any(buffer).unwrap();
    world.unmap(buffer).unwrap();
    let tables = world.figures().tables_used;
    let descriptors = world.unit.descriptors();
    // The first effect would be refused.
    world.kernel.refuse(Some(0));
    for _ in 0..10 {
        world.map_any(buffer).unwrap();
        world.unmap(buffer).unwrap();
    }
    assert!(!world.kernel.refused());
    assert_eq!(world.unit.descriptors() - descriptors, 20);
    assert_eq!(world.figures().tables_used, tables);
}
