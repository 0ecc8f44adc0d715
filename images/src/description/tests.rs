//! What a right description becomes. Wrong ones: the package `scenarios`, one file a rule.

use super::demand::{Expect, ExpectedResult};
use super::*;
use ::system::model::{DeviceMatch, End, IommuChoice};

const WHOLE: &str = r#"
name = "demo"
about = "everything that can be said"
[machine]
memory = "512M"
cores = 4
cpu = "Nehalem"
icount = true
timeout = "90s"
devices = ["edu,addr=03.0", "virtio-blk-pci,drive=disk,addr=04.0", "edu,bus=b,addr=03.0"]
objects = ["rng-random,id=rng0,filename={disk:entropy}"]
globals = ["ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]
[machine.iommu]
address_bits = 48
caching_mode = true
[[machine.disk]]
id = "disk"
size = "16M"
content = "random"
seed = 7
[[machine.disk]]
id = "entropy"
size = 4096
content = "zero"
[kernel]
build = "debug"
without_patches = ["B1"]
[system]
unprotected = true
testing = true
iommu = "vtd"
shards = { pci = 2, msi = 3 }
dma_pool = "64M"
iommu_tables = "8M"
end = "finished"
withheld = [{ class = "0c:03" }]
[[client]]
name = "edu-one"
program = "edu-driver"
about = "an example"
args = "twice"
priority = 90
core = 3
stack = "32K"
untyped = "1M"
window = 64
dma_quota = "1M"
vectors = 2
devices = [{ address = "00:03.0", shared = true }, { ids = "1234:11e8" }]
finish = true
may_fault = true
[[client]]
name = "edu-two"
program = "edu-driver"
devices = [{ address = "0000:00:03.0", shared = true }]
[[channel]]
name = "pipe"
between = ["edu-two", "edu-one"]
[[expect]]
pd = "edu-one"
checks = ["dma_round_trip", "identified"]
[[expect]]
pd = "root"
check = "digest"
result = "fail"
equals = "disk:disk:sha256"
[[expect]]
metric = "boot_to_first_assign_ms"
below = 1500
[scenario]
best_of = 5
"#;

fn accept(text: &str) -> Accepted {
    match read(text, Path::new("."), &["edu-driver".to_owned()]) {
        Ok(accepted) => accepted,
        Err(found) => panic!("{}", render("test.toml", text, &found)),
    }
}

#[test]
fn everything_that_can_be_said_is_compiled() {
    let Accepted {
        description,
        warnings,
    } = accept(WHOLE);
    assert_eq!(warnings, []);
    let machine = &description.machine;
    assert_eq!(
        (machine.memory, machine.cores, machine.icount),
        (512 << 20, 4, true)
    );
    assert_eq!(machine.timeout.as_secs(), 90);
    assert_eq!(
        (machine.iommu.address_bits, machine.iommu.caching_mode),
        (48, true)
    );
    assert!(machine.iommu.present && machine.iommu.interrupt_remapping);
    assert_eq!(
        machine.disks[0].content,
        Content::Random {
            size: 16 << 20,
            seed: 7
        }
    );
    assert_eq!(description.kernel_spec().variant(), "debug-4-without-B1");
    assert_eq!(
        description.scenario,
        Some(Scenario {
            run: true,
            best_of: 5
        })
    );

    let system = &description.system;
    assert_eq!(
        (system.iommu, system.end),
        (IommuChoice::Vtd, End::Finished)
    );
    assert_eq!((system.shards.pci, system.shards.msi), (2, 3));
    assert_eq!((system.dma_pool, system.table_pages), (64 << 20, 2048));
    assert!(system.unprotected && system.testing);
    assert_eq!(
        system.withheld.as_slice(),
        [DeviceMatch::Class {
            class: 0x0c_0300,
            mask: 0xff_ff00
        }]
    );
    let [channel] = system.channels.as_slice() else {
        panic!("{:?}", system.channels)
    };
    assert_eq!((channel.name.as_str(), channel.ends), ("pipe", [1, 0]));
    let client = &system.clients[0];
    assert_eq!(
        (
            client.name.as_str(),
            client.program.as_str(),
            client.args.as_str()
        ),
        ("edu-one", "edu-driver", "twice")
    );
    assert_eq!(
        (client.priority, client.core, client.stack_pages),
        (90, 3, 8)
    );
    assert_eq!((client.untyped_bits, client.window_bits), (20, 6));
    assert_eq!((client.dma_quota, client.vectors), (1 << 20, 2));
    assert!(client.must_finish && client.may_fault);
    assert_eq!(
        client.devices.as_slice(),
        [
            DeviceMatch::Address(0x18),
            DeviceMatch::Ids {
                vendor: 0x1234,
                device: 0x11e8
            }
        ]
    );
    assert_eq!(
        description.client_abouts,
        [Some("an example".to_owned()), None]
    );

    let [
        Expect::Check(first),
        Expect::Check(_),
        Expect::Check(second),
        Expect::Metric(third),
    ] = description.expects.as_slice()
    else {
        panic!("{:?}", description.expects);
    };
    assert_eq!((first.result, &first.equals), (ExpectedResult::Pass, &None));
    assert_eq!(second.result, ExpectedResult::Fail);
    assert_eq!(second.equals.as_ref().unwrap().value.disk, "disk");
    assert_eq!((third.below, third.above), (Some(1500.0), None));
}

#[test]
fn the_compiled_form_reads_back_as_it_was() {
    let description = accept(WHOLE).description;
    let bytes = description.compile().unwrap();
    let back: model::System = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(back, description.system);
}

#[test]
fn a_name_alone_is_a_description_with_defaults() {
    let description = accept("name = \"bare\"").description;
    assert_eq!(description.machine, Machine::default());
    assert_eq!(description.kernel_spec().variant(), "release-1");
    assert_eq!(
        (description.system.end, description.system.shards.msi),
        (End::Never, 1)
    );
    assert_eq!(description.scenario, None);
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let text = "nam = \"x\"\n[machine]\nmemory = true\ncores = 9\n[[client]]\nname = \"a\"\n";
    let found = read(text, Path::new("."), &[]).unwrap_err();
    let told: Vec<_> = found
        .iter()
        .map(|one| (one.rule.name(), position(text, one.span.start)))
        .collect();
    assert_eq!(
        told,
        [
            ("missing-key", (1, 1)),
            ("unknown-key", (1, 1)),
            ("wrong-type", (3, 10)),
            ("out-of-range", (4, 9)),
            ("missing-key", (5, 1)),
        ]
    );
}
