//! The generators against the bundled kernel: hand-checked numbers for one and
//! four cores, and the constants file as a Rust program sees it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed test"
)]

use std::path::PathBuf;
use std::process::Command;

use sel4_gen::{Config, Error, KernelInterface, object_bits};

/// The folder `seL4` of the locked package `sel4-sys` 0.0.28.
fn kernel_source() -> PathBuf {
    let metadata = cargo_metadata::MetadataCommand::new().exec().unwrap();
    let package = metadata
        .packages
        .iter()
        .find(|package| {
            package.name == "sel4-sys"
                && package.version.to_string() == "0.0.28"
                && package.source.is_some()
        })
        .expect("the workspace locks sel4-sys 0.0.28");
    package
        .manifest_path
        .parent()
        .unwrap()
        .join("seL4")
        .into_std_path_buf()
}

fn config(cores: u64, debug: bool) -> Config {
    let mut config = Config::default();
    for (name, value) in [
        ("MAX_NUM_NODES", cores),
        ("ROOT_CNODE_SIZE_BITS", 16),
        ("MAX_NUM_BOOTINFO_UNTYPED_CAPS", 230),
        ("NUM_PRIORITIES", 256),
        ("NUM_DOMAINS", 1),
        ("RETYPE_FAN_OUT_LIMIT", 256),
    ] {
        config.set(name, value);
    }
    for (name, on) in [
        ("HUGE_PAGE", true),
        ("IOMMU", true),
        ("DEBUG_BUILD", debug),
        ("PRINTING", debug),
    ] {
        config.set(name, on);
    }
    config
}

fn interface(cores: u64, debug: bool) -> KernelInterface {
    KernelInterface::of_source(&kernel_source(), config(cores, debug)).unwrap()
}

/// Method id, label with one core, label with four. With more cores
/// `TCBSetAffinity` exists and all that follow it move up by one.
const LABELS: &[(&str, Option<u64>, Option<u64>)] = &[
    ("UntypedRetype", Some(1), Some(1)),
    ("TCBReadRegisters", Some(2), Some(2)),
    ("TCBWriteRegisters", Some(3), Some(3)),
    ("TCBCopyRegisters", Some(4), Some(4)),
    ("TCBConfigure", Some(5), Some(5)),
    ("TCBSetPriority", Some(6), Some(6)),
    ("TCBSetMCPriority", Some(7), Some(7)),
    ("TCBSetIPCBuffer", Some(8), Some(8)),
    ("TCBSetSpace", Some(9), Some(9)),
    ("TCBSuspend", Some(10), Some(10)),
    ("TCBResume", Some(11), Some(11)),
    ("TCBBindNotification", Some(12), Some(12)),
    ("TCBUnbindNotification", Some(13), Some(13)),
    ("TCBSetAffinity", None, Some(14)),
    ("TCBSetBreakpoint", None, None),
    ("CNodeRevoke", Some(14), Some(15)),
    ("CNodeDelete", Some(15), Some(16)),
    ("CNodeCancelBadgedSends", Some(16), Some(17)),
    ("CNodeCopy", Some(17), Some(18)),
    ("CNodeMint", Some(18), Some(19)),
    ("CNodeMove", Some(19), Some(20)),
    ("CNodeMutate", Some(20), Some(21)),
    ("CNodeRotate", Some(21), Some(22)),
    ("CNodeSaveCaller", Some(22), Some(23)),
    ("IRQIssueIRQHandler", Some(23), Some(24)),
    ("IRQAckIRQ", Some(24), Some(25)),
    ("IRQSetIRQHandler", Some(25), Some(26)),
    ("IRQClearIRQHandler", Some(26), Some(27)),
    ("DomainSetSet", Some(27), Some(28)),
    ("X86PDPTMap", Some(28), Some(29)),
    ("X86PDPTUnmap", Some(29), Some(30)),
    ("X86PageDirectoryMap", Some(30), Some(31)),
    ("X86PageDirectoryUnmap", Some(31), Some(32)),
    ("X86PageDirectoryGetStatusBits", Some(32), Some(33)),
    ("X86PageTableMap", Some(33), Some(34)),
    ("X86PageTableUnmap", Some(34), Some(35)),
    ("X86IOPageTableMap", Some(35), Some(36)),
    ("X86IOPageTableUnmap", Some(36), Some(37)),
    ("X86PageMap", Some(37), Some(38)),
    ("X86PageRemap", Some(38), Some(39)),
    ("X86PageUnmap", Some(39), Some(40)),
    ("X86PageMapIO", Some(40), Some(41)),
    ("X86PageGetAddress", Some(41), Some(42)),
    ("X86PageMapEPT", None, None),
    ("X86ASIDControlMakePool", Some(42), Some(43)),
    ("X86ASIDPoolAssign", Some(43), Some(44)),
    ("X86IOPortIn8", Some(44), Some(45)),
    ("X86IOPortIn16", Some(45), Some(46)),
    ("X86IOPortIn32", Some(46), Some(47)),
    ("X86IOPortOut8", Some(47), Some(48)),
    ("X86IOPortOut16", Some(48), Some(49)),
    ("X86IOPortOut32", Some(49), Some(50)),
    ("X86IRQIssueIRQHandlerIOAPIC", Some(50), Some(51)),
    ("X86IRQIssueIRQHandlerMSI", Some(51), Some(52)),
    ("X86VCPUSetTCB", None, None),
];

#[test]
fn labels_for_one_and_four_cores() {
    let one = interface(1, false).labels().unwrap();
    let four = interface(4, false).labels().unwrap();
    for (id, single, multiple) in LABELS {
        assert_eq!(one.get(id), *single, "{id}, one core");
        assert_eq!(four.get(id), *multiple, "{id}, four cores");
    }
    let count = |labels: &sel4_gen::Labels| labels.entries().filter_map(|e| e.number).count();
    assert_eq!(count(&one), 51);
    assert_eq!(count(&four), 52);
}

#[test]
fn system_calls() {
    let release = interface(1, false).syscalls().unwrap();
    let debug = interface(1, true).syscalls().unwrap();
    for (name, number) in [
        ("Call", -1),
        ("ReplyRecv", -2),
        ("Send", -3),
        ("NBSend", -4),
        ("Recv", -5),
        ("Reply", -6),
        ("Yield", -7),
        ("NBRecv", -8),
    ] {
        assert_eq!(release.get(name), Some(number));
        assert_eq!(debug.get(name), Some(number));
    }
    assert_eq!(release.get("DebugPutChar"), None);
    assert_eq!(debug.get("DebugPutChar"), Some(-9));
    assert_eq!(debug.get("DebugNameThread"), Some(-13));
    assert_eq!(debug.get("BenchmarkResetLog"), None);
}

/// The table of sizes repeats the header's macros; it must not drift from them.
#[test]
fn sizes_are_the_headers() {
    let header = std::fs::read_to_string(
        kernel_source().join("libsel4/sel4_arch_include/x86_64/sel4/sel4_arch/constants.h"),
    )
    .unwrap();
    let macro_value = |name: &str| {
        let line = header.lines().find(|line| {
            line.split_whitespace().nth(1) == Some(name) && line.starts_with("#define")
        });
        line.and_then(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok())
    };
    for (name, bits) in object_bits(sel4_gen::Abi::V5, &config(1, false)) {
        let macro_name = match name {
            "SLOT" => "seL4_SlotBits",
            "TCB" => "seL4_TCBBits",
            "ENDPOINT" => "seL4_EndpointBits",
            "NOTIFICATION" => "seL4_NotificationBits",
            "PDPT" => "seL4_PDPTBits",
            "PML4" => "seL4_PML4Bits",
            "PAGE_4K" => "seL4_PageBits",
            "LARGE_PAGE" => "seL4_LargePageBits",
            "HUGE_PAGE" => "seL4_HugePageBits",
            "PAGE_TABLE" => "seL4_PageTableBits",
            "PAGE_DIRECTORY" => "seL4_PageDirBits",
            "IO_PAGE_TABLE" => "seL4_IOPageTableBits",
            "ASID_POOL" => "seL4_ASIDPoolBits",
            "MIN_UNTYPED" => "seL4_MinUntypedBits",
            "MAX_UNTYPED" => "seL4_MaxUntypedBits",
            other => panic_on(other),
        };
        assert_eq!(macro_value(macro_name), Some(bits), "{name}");
    }
}

#[expect(clippy::panic, reason = "fails the test")]
fn panic_on(name: &str) -> &'static str {
    panic!("no header macro known for {name}")
}

/// Compiles and runs a program that includes the file as the bindings do.
#[test]
fn the_constants_file_is_rust() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    for (cores, debug, expected) in [
        (1, false, "5.0.0 v5 51 None -8 None 12 1 false false"),
        (1, true, "5.0.0 v5 51 None -8 Some(-9) 12 1 true false"),
        (4, true, "5.0.0 v5 52 Some(14) -8 Some(-9) 12 4 true true"),
    ] {
        let name = format!("constants-{cores}-{debug}");
        let constants = folder.join(format!("{name}.rs"));
        std::fs::write(&constants, interface(cores, debug).constants().unwrap()).unwrap();
        let program = folder.join(format!("{name}-main.rs"));
        let text = format!(
            "#![deny(warnings, missing_docs)]\n//! Test.\n/// Constants.\npub mod sel4 {{ include!({constants:?}); }}
            use sel4::*;
            fn main() {{ println!(\"{{}} {{}} {{}} {{:?}} {{}} {{:?}} {{}} {{}} {{}} {{}}\",
                KERNEL_VERSION, ABI, label::X86_IRQ_ISSUE_IRQ_HANDLER_MSI, label::opt::TCB_SET_AFFINITY,
                syscall::NB_RECV, syscall::opt::DEBUG_PUT_CHAR, object::IO_PAGE_TABLE,
                config::MAX_NUM_NODES, config::DEBUG_BUILD, config::SMP); }}"
        );
        std::fs::write(&program, text).unwrap();
        let binary = folder.join(&name);
        let compiled = Command::new("rustc")
            .args(["--edition=2024", "-o"])
            .arg(&binary)
            .arg(&program)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{errors}");
        let output = Command::new(&binary).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected);
    }
}

#[test]
fn the_first_line_is_for_build_scripts() {
    let text = interface(4, true).constants().unwrap();
    assert_eq!(
        text.lines().next(),
        Some("// sel4-constants: abi=v5 version=5.0.0 smp=yes mcs=no debug=yes")
    );
}

#[test]
fn the_fingerprint_tells_kernels_apart() {
    let fingerprint = |cores, debug| {
        let text = interface(cores, debug).constants().unwrap();
        let line = text.lines().find(|line| line.contains("ABI_FINGERPRINT"));
        line.unwrap().to_owned()
    };
    let all = [
        fingerprint(1, false),
        fingerprint(1, true),
        fingerprint(4, false),
        fingerprint(4, true),
    ];
    for (index, one) in all.iter().enumerate() {
        assert!(!all[..index].contains(one), "{one}");
    }
    assert_eq!(all[0], fingerprint(1, false));
}

#[test]
fn a_missing_option_is_named() {
    let mut interface = interface(1, false);
    interface.config = Config::default();
    assert_eq!(
        interface.constants(),
        Err(Error::NotANumber("MAX_NUM_NODES".into()))
    );
    interface.syscall_xml = PathBuf::from("nowhere.xml");
    let error = interface.constants().unwrap_err().to_string();
    assert!(error.contains("nowhere.xml"), "{error}");
}
