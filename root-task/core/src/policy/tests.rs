//! What is wrong with a description on a machine, rule by rule; and descriptions for other tests.

use super::*;
use crate::shards::tests::{host, q35};
use alloc::string::ToString;
use heapless::{String, Vec};
use system::model::{DeviceMatch, Shards};

pub(crate) struct All;
impl Programs for All {
    fn has(&self, name: &str) -> bool {
        name != "missing"
    }
}

pub(crate) fn client(name: &str, devices: &[DeviceMatch]) -> Client {
    Client {
        name: name.try_into().unwrap(),
        program: "driver".try_into().unwrap(),
        args: String::new(),
        priority: 100,
        core: 0,
        stack_pages: 16,
        untyped_bits: 16,
        window_bits: 8,
        dma_quota: 1 << 20,
        largest_buffer: 1 << 20,
        vectors: 2,
        reserved_vectors: 0,
        interrupt_rate: 0,
        devices: devices.iter().copied().collect(),
        inspect: false,
        admin: false,
        must_finish: true,
        may_fault: false,
    }
}

pub(crate) fn system(clients: &[Client]) -> System {
    System {
        format: model::FORMAT,
        name: "test".try_into().unwrap(),
        unprotected: false,
        testing: true,
        iommu: IommuChoice::Auto,
        interrupt_remapping: true,
        quarantine: model::Quarantine::Blocking,
        config_access: model::ConfigAccess::Auto,
        restarts: 8,
        shards: Shards { pci: 0, msi: 1 },
        dma_pool: 32 << 20,
        table_pages: 2048,
        end: End::Finished,
        withheld: Vec::new(),
        large_bars: Vec::new(),
        reserved_regions: Vec::new(),
        ats: Vec::new(),
        virtual_functions: Vec::new(),
        intx: Vec::new(),
        clients: clients.iter().cloned().collect(),
        channels: Vec::new(),
    }
}

fn refused(change: impl FnOnce(&mut System, &mut Machine)) -> PolicyError {
    let mut system = system(&[client("a", &[]), client("b", &[])]);
    let mut machine = q35(alloc::vec![host(0, 255, &[])]);
    assert_eq!(check(&system, &machine, &All, 1), Ok(()));
    change(&mut system, &mut machine);
    check(&system, &machine, &All, 1).unwrap_err()
}

#[test]
fn each_rule_is_refused_by_name() {
    assert_eq!(
        refused(|system, _| system.format = 9),
        PolicyError::Format(9)
    );
    assert_eq!(
        refused(|_, machine| machine.kernel_iommu_levels = 3),
        PolicyError::KernelIommu(3)
    );
    assert_eq!(
        refused(|system, _| system.iommu = IommuChoice::Kernel),
        PolicyError::NoKernelIommu
    );
    assert_eq!(
        refused(|_, machine| machine.timer = None),
        PolicyError::NoTimer
    );
    let no_unit = refused(|system, machine| {
        system.iommu = IommuChoice::Vtd;
        machine.units.clear();
    });
    assert_eq!(no_unit, PolicyError::NoVtd);
    let other_unit = refused(|system, _| system.iommu = IommuChoice::AmdVi);
    assert_eq!(other_unit, PolicyError::NoAmdVi);
    for name in ["b", "root", "console", "pci-server-0", ""] {
        let error = refused(|system, _| system.clients[0].name = name.try_into().unwrap());
        let named = if name == "b" { "b" } else { name };
        assert_eq!(error, PolicyError::Name(named.try_into().unwrap()));
    }
    let error = refused(|system, _| system.clients[1].program = "missing".try_into().unwrap());
    assert_eq!(error.to_string(), "b: the image has no program `missing`");
    let error = refused(|system, _| system.clients[1].priority = 181);
    assert_eq!(
        error.to_string(),
        "b: its priority is 181, it may be 1 to 180"
    );
    let range = |change: fn(&mut System)| match refused(|system, _| change(system)) {
        PolicyError::Range { what, .. } | PolicyError::SystemRange { what, .. } => what,
        other => panic!("{other}"),
    };
    assert_eq!(range(|system| system.clients[0].core = 1), "its core");
    assert_eq!(
        range(|system| system.clients[0].stack_pages = 0),
        "its stack, in pages,"
    );
    assert_eq!(
        range(|system| system.clients[0].untyped_bits = 60),
        "its untyped memory, in bits,"
    );
    assert_eq!(
        range(|system| system.clients[0].window_bits = 17),
        "its grant window, in bits,"
    );
    assert_eq!(
        range(|system| system.clients[0].dma_quota = 64 << 20),
        "its DMA quota"
    );
    assert_eq!(
        range(|system| system.clients[0].largest_buffer = 0xfff),
        "its largest buffer"
    );
    assert_eq!(
        range(|system| system.clients[0].vectors = 109),
        "its number of vectors"
    );
    assert_eq!(
        range(|system| system.shards.msi = 0),
        "the number of msi-server shards"
    );
    assert_eq!(
        range(|system| system.shards.pci = 17),
        "the number of pci-server shards"
    );
    assert_eq!(
        range(|system| system.table_pages = 0),
        "the memory for IOMMU tables, in pages,"
    );
    assert_eq!(range(|system| system.dma_pool = 0), "the DMA pool");
    let one = |name: &str, ends| model::Channel {
        name: name.try_into().unwrap(),
        ends,
    };
    for ends in [[0, 0], [0, 2], [9, 1]] {
        let error = refused(|system, _| system.channels.push(one("c", ends)).unwrap());
        assert_eq!(error, PolicyError::Channel("c".try_into().unwrap()));
    }
    let twice = refused(|system, _| {
        system.channels.push(one("c", [0, 1])).unwrap();
        system.channels.push(one("c", [1, 0])).unwrap();
    });
    assert_eq!(twice, PolicyError::Channel("c".try_into().unwrap()));
    let never = refused(|system, _| {
        system
            .clients
            .iter_mut()
            .for_each(|client| client.must_finish = false)
    });
    assert_eq!(never, PolicyError::NeverEnds);
}

#[test]
fn too_many_protection_domains_are_refused() {
    let clients: alloc::vec::Vec<Client> = (0..32)
        .map(|n| client(&alloc::format!("c{n}"), &[]))
        .collect();
    assert_eq!(
        check(&system(&clients), &q35(alloc::vec![]), &All, 30),
        Err(PolicyError::TooManyPds(67))
    );
}

#[test]
fn the_longest_shard_name_fits() {
    for stem in [
        program::CONSOLE,
        program::TIMER,
        program::IOMMU,
        program::MSI,
        program::PCI,
    ] {
        assert_eq!(shard_name(stem, 255).as_str(), alloc::format!("{stem}-255"));
    }
}
