//! Every reason not to take a kernel, one at a time and together.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;

use super::*;

const NEEDS: Needs = Needs {
    cores: 4,
    iommu: IommuDriver::Kernel,
    root_cnode_bits: 16,
    untyped_caps: 230,
    priorities: 256,
};

/// A kernel that will do.
fn good() -> Config {
    let mut config = Config::default();
    for (name, value) in [
        ("MAX_NUM_NODES", 4),
        ("ROOT_CNODE_SIZE_BITS", 16),
        ("MAX_NUM_BOOTINFO_UNTYPED_CAPS", 230),
        ("NUM_PRIORITIES", 256),
        ("XSAVE_FEATURE_SET", 7),
        ("XSAVE_SIZE", 832),
    ] {
        config.set(name, value);
    }
    for name in [
        "IOMMU",
        "HUGE_PAGE",
        "XSAVE",
        "XSAVE_XSAVEOPT",
        "FSGSBASE_INST",
        "XAPIC",
        "IRQ_IOAPIC",
        "MULTIBOOT1_HEADER",
    ] {
        config.set(name, true);
    }
    config.set("SEL4_ARCH", Value::Text("x86_64".into()));
    config.set("PLAT", Value::Text("pc99".into()));
    config
}

fn sentences(config: &Config, needs: &Needs) -> Vec<String> {
    unfit_configuration(config, needs)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_good_kernel_will_do() {
    assert_eq!(sentences(&good(), &NEEDS), [""; 0]);
    // More than needed, FXSAVE, no huge pages, and an option that older kernels do not have.
    let mut config = good();
    config.set("MAX_NUM_NODES", 16);
    config.set("ROOT_CNODE_SIZE_BITS", 19);
    config.set("XSAVE", false);
    config.set("XSAVE_FEATURE_SET", 0);
    config.set("XSAVE_SIZE", 512);
    config.set("HUGE_PAGE", false);
    config.set("NUM_DOMAINS", 16);
    assert_eq!(sentences(&config, &NEEDS), [""; 0]);
}

#[test]
fn each_fault_is_one_sentence_with_its_cure() {
    let number = Value::Number;
    let flag = Value::Flag;
    let faults: [(&str, Value, &str); 20] = [
        (
            "KERNEL_MCS",
            flag(true),
            "the kernel has MCS scheduling, which is not supported: build it with KernelIsMCS=OFF",
        ),
        (
            "MAX_NUM_NODES",
            number(1),
            "the kernel runs 1 of the system's 4 cores: build it with KernelMaxNumNodes=4 or more",
        ),
        (
            "IOMMU",
            flag(false),
            "the kernel has no IOMMU driver, which the system's IOMMU back end `kernel` needs: build it with \
             KernelIOMMU=ON, or take another back end",
        ),
        (
            "ROOT_CNODE_SIZE_BITS",
            number(12),
            "the kernel's KernelRootCNodeSizeBits is 12: build it with KernelRootCNodeSizeBits=16 or more",
        ),
        (
            "MAX_NUM_BOOTINFO_UNTYPED_CAPS",
            number(50),
            "the kernel's KernelMaxNumBootinfoUntypedCaps is 50: build it with \
             KernelMaxNumBootinfoUntypedCaps=230 or more",
        ),
        (
            "NUM_PRIORITIES",
            number(64),
            "the kernel's KernelNumPriorities is 64: build it with KernelNumPriorities=256 or more",
        ),
        (
            "IRQ_PIC",
            flag(true),
            "the kernel takes interrupts from the PIC alone: build it with KernelIRQController=IOAPIC",
        ),
        (
            "MULTIBOOT1_HEADER",
            flag(false),
            "QEMU cannot load the kernel without a multiboot 1 header: build it with KernelMultiboot1Header=ON",
        ),
        (
            "XSAVE_SIZE",
            number(576),
            "the kernel keeps 576 bytes for XSAVE, but its KernelXSaveFeatureSet=7 takes 832: build it with \
             KernelXSaveSize=832",
        ),
        (
            "XSAVE_FEATURE_SET",
            number(0xe7),
            "QEMU does not emulate the registers beyond AVX that KernelXSaveFeatureSet names: build the kernel \
             with KernelXSaveFeatureSet=3 or 7",
        ),
        (
            "XSAVE_XSAVEC",
            flag(true),
            "QEMU does not emulate XSAVEC: build the kernel with KernelXSave=XSAVE or KernelFPU=FXSAVE",
        ),
        (
            "XSAVE_XSAVES",
            flag(true),
            "QEMU does not emulate XSAVES: build the kernel with KernelXSave=XSAVE or KernelFPU=FXSAVE",
        ),
        (
            "SUPPORT_PCID",
            flag(true),
            "QEMU does not emulate PCIDs: build the kernel with KernelSupportPCID=OFF",
        ),
        (
            "X2APIC",
            flag(true),
            "QEMU does not emulate the x2APIC: build the kernel with KernelLAPICMode=XAPIC",
        ),
        (
            "VTX",
            flag(true),
            "QEMU does not emulate VT-x: build the kernel with KernelVTX=OFF",
        ),
        (
            "KERNEL_X86_IBRS_BASIC",
            flag(true),
            "QEMU does not emulate IBRS: build the kernel with KernelX86IBRSMode=ibrs_none",
        ),
        (
            "KERNEL_X86_IBRS_STIBP",
            flag(true),
            "QEMU does not emulate IBRS: build the kernel with KernelX86IBRSMode=ibrs_none",
        ),
        (
            "KERNEL_X86_IBPB_ON_CONTEXT_SWITCH",
            flag(true),
            "QEMU does not emulate IBPB: build the kernel with KernelX86IBPBOnContextSwitch=OFF",
        ),
        (
            "SEL4_ARCH",
            Value::Text("aarch64".into()),
            "the kernel is for the architecture aarch64: build it with KernelSel4Arch=x86_64",
        ),
        (
            "PLAT",
            Value::Text("tqma".into()),
            "the kernel is for the platform tqma: build it with KernelPlatform=pc99",
        ),
    ];
    for (name, value, sentence) in faults {
        let mut config = good();
        config.set(name, value);
        assert_eq!(sentences(&config, &NEEDS), [sentence], "{name}");
    }
}

#[test]
fn the_iommu_driver_counts_only_where_it_is_used() {
    let mut config = good();
    config.set("IOMMU", false);
    config.set("VERIFICATION_BUILD", true);
    let user = Needs {
        iommu: IommuDriver::User,
        ..NEEDS
    };
    assert_eq!(sentences(&config, &user), [""; 0]);
    assert_eq!(
        sentences(&config, &NEEDS),
        [
            "the kernel has no IOMMU driver, which the system's IOMMU back end `kernel` needs: build it with \
          KernelVerificationBuild=OFF and KernelIOMMU=ON, or take another back end"
        ]
    );
}

#[test]
fn several_faults_are_all_told() {
    let mut config = good();
    config.set("SUPPORT_PCID", true);
    config.set("ROOT_CNODE_SIZE_BITS", 12);
    config.set("KERNEL_MCS", true);
    assert_eq!(unfit_configuration(&config, &NEEDS).len(), 3);
    // An empty configuration is another architecture's, for all that it says.
    assert_eq!(
        sentences(&Config::default(), &NEEDS),
        ["the kernel is for the architecture (not stated): build it with KernelSel4Arch=x86_64"]
    );
}

#[test]
fn files_come_first() {
    let prefix = std::env::temp_dir().join(format!("sel4-gen-fitness-{}", std::process::id()));
    let files: Vec<_> = prefix_files().collect();
    let text = unfit(&prefix, &NEEDS)[0].to_string();
    assert!(files.iter().all(|file| text.contains(file)), "{text}");
    for file in &files {
        let file = prefix.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "{}").unwrap();
    }
    assert!(matches!(
        unfit(&prefix, &NEEDS)[..],
        [Unfit::Architecture(_)]
    ));
    let mut json = String::from("{\"SEL4_ARCH\": \"x86_64\", \"PLAT\": \"pc99\"");
    for (name, value) in good().iter() {
        match value {
            Value::Flag(flag) => json.push_str(&format!(", \"{name}\": {flag}")),
            Value::Number(number) => json.push_str(&format!(", \"{name}\": \"{number}\"")),
            Value::Text(_) => {}
        }
    }
    json.push('}');
    let kernel = &prefix.join("libsel4/include/kernel/gen_config.json");
    fs::write(kernel, json).unwrap();
    assert_eq!(unfit(&prefix, &NEEDS), []);
    fs::write(kernel, "[]").unwrap();
    let text = unfit(&prefix, &NEEDS)[0].to_string();
    assert!(
        text.contains("kernel/gen_config.json: kernel configuration"),
        "{text}"
    );
    fs::remove_file(prefix.join("bin/kernel.elf")).unwrap();
    let text = unfit(&prefix, &NEEDS)[0].to_string();
    assert!(
        text.contains(
            "is no installed seL4 13 or later, for it lacks bin/kernel.elf: set SEL4_PREFIX to"
        ),
        "{text}"
    );
    fs::remove_dir_all(&prefix).unwrap();
}
