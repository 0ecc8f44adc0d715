//! An interface in today's notation with every form of condition that seL4 13 to
//! 16 use, and more: what is numbered how in seven configurations, checked by hand.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test"
)]

use std::fs;
use std::path::{Path, PathBuf};

use sel4_gen::{KernelInterface, object_bits, object_types};

/// All architectures. Two signatures under one id, methods of one scheduler, nested conditions, comments and text
/// between elements, an empty condition, and attributes that say nothing about numbers.
const OBJECTS: &str = r#"<?xml version="1.0" ?>
<api name="Objects" label_prefix="">
  <struct name="Context"><member name="one"/></struct>
  <interface name="Memory" manual_name="Memory" cap_description="Some memory.">
    <method id="UntypedRetype" name="Retype" manual_name="Retype" manual_label="retype">
      <brief>Makes objects.</brief>
      <param dir="in" name="type" type="Word" description="Kind."/>
      <error name="RangeError"><description>Too many.</description></error>
    </method>
  </interface>
  <interface name="Thread">
    <method id="TCBConfigure" name="Configure">
      <condition><not><config var="CONFIG_KERNEL_MCS"/></not></condition>
      <param dir="in" name="fault" type="CPtr"/>
    </method>
    <method id="TCBConfigure" name="Configure">
      <condition><config var="CONFIG_KERNEL_MCS"/></condition>
    </method>
    <method id="TCBSetTimeout" name="SetTimeout">
      <condition>
        <!-- one scheduler only -->
        <config var="CONFIG_KERNEL_MCS"/>
      </condition>
    </method>
    <method id="TCBSetPriority" name="SetPriority"><condition/></method>
    <method id="TCBSetAffinity" name="SetAffinity">
      <condition>
        <and>
          <not><config var="CONFIG_KERNEL_MCS"/></not>
          <config var="CONFIG_ENABLE_SMP_SUPPORT"/>
        </and>
      </condition>
    </method>
    <method id="TCBSetBreakpoint" name="SetBreakpoint">
      <condition><config var="CONFIG_HARDWARE_DEBUG_API"/></condition>
    </method>
    <method id="TCBTrace" name="Trace">
      <condition>
        <or>
          <config var="CONFIG_HARDWARE_DEBUG_API"/>
          <and>
            <config var="CONFIG_DEBUG_BUILD"/>
            <not><or><config var="CONFIG_KERNEL_MCS"/><config var="CONFIG_VTX"/></or></not>
          </and>
        </or>
      </condition>
    </method>
    <method id="TCBSuspend" name="Suspend"/>
  </interface>
  <interface name="Slots">
    <method id="CNodeCopy" name="Copy"/>
    <method id="CNodeSaveCaller" name="SaveCaller">
      <condition><not><config var="CONFIG_KERNEL_MCS"/></not></condition>
    </method>
  </interface>
</api>"#;

/// x86-64 alone.
const SEL4_ARCH: &str = r#"<api name="Objects64" label_prefix="sel4_arch_">
  <interface name="Table"><method id="X86PDPTMap" name="Map"/><method id="X86PDPTUnmap" name="Unmap"/></interface>
</api>"#;

/// x86.
const ARCH: &str = r#"<api name="ObjectsX86" label_prefix="arch_">
  <interface name="Table">
    <method id="X86PageDirectoryMap" name="Map"/>
    <method id="X86PageDirectoryGetStatusBits" name="GetStatusBits">
      <condition><config var="CONFIG_ARCH_IA32"/></condition>
    </method>
    <method id="X86IOPageTableMap" name="Map"><condition><config var="CONFIG_IOMMU"/></condition></method>
    <method id="X86PageMap" name="Map"/>
    <method id="X86PageMapIO" name="MapIO"><condition><config var="CONFIG_IOMMU"/></condition></method>
    <method id="X86PageMapEPT" name="MapEPT"><condition><config var="CONFIG_VTX"/></condition></method>
    <method id="X86IOPortControlIssue" name="Issue"/>
    <method id="X86VCPUReadMSR" name="ReadMSR">
      <condition><config var="CONFIG_X86_64_VTX_64BIT_GUESTS"/></condition>
    </method>
  </interface>
</api>"#;

const SYSCALLS: &str = r#"<?xml version="1.0" ?>
<syscalls>
  <api-master><config>
    <syscall name="Call"/><syscall name="ReplyRecv"/><syscall name="NBSend"/><syscall name="Reply"/>
  </config></api-master>
  <api-mcs><config>
    <syscall name="Call"/><syscall name="NBSendRecv"/><syscall name="NBSend"/><syscall name="Wait"/><syscall name="NBWait"/>
  </config></api-mcs>
  <debug>
    <config>
      <condition><config var="CONFIG_PRINTING"/></condition>
      <syscall name="DebugPutChar"/><syscall name="DebugDumpScheduler"/>
    </config>
    <config>
      <condition><and><config var="CONFIG_DEBUG_BUILD"/><config var="CONFIG_ENABLE_SMP_SUPPORT"/></and></condition>
      <syscall name="DebugSendIPI"/>
    </config>
    <config>
      <condition><not><config var="CONFIG_DEBUG_BUILD"/></not></condition>
      <syscall name="Quiet"/>
    </config>
    <config>
      <condition><config var="CONFIG_SET_TLS_BASE_SELF"/></condition>
      <syscall name="SetTLSBase"/>
    </config>
  </debug>
</syscalls>"#;

/// Installs the interface with these options on, beside those that every x86 kernel has.
fn install(name: &str, on: &[&str]) -> PathBuf {
    let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("modern-{name}"));
    let include = prefix.join("libsel4/include");
    let cores = if on.contains(&"ENABLE_SMP_SUPPORT") {
        4
    } else {
        1
    };
    let mut kernel = format!(
        r#"{{"SEL4_ARCH": "x86_64", "PLAT": "pc99", "ARCH_X86_64": true, "ARCH_IA32": false, "WORD_SIZE": "64",
        "MAX_NUM_NODES": "{cores}", "ROOT_CNODE_SIZE_BITS": "16", "MAX_NUM_BOOTINFO_UNTYPED_CAPS": "230",
        "NUM_PRIORITIES": "256", "NUM_DOMAINS": "1", "RETYPE_FAN_OUT_LIMIT": "256", "XSAVE_SIZE": "576",
        "KERNEL_OPT_LEVEL": "-O2""#
    );
    for option in [
        "KERNEL_MCS",
        "ENABLE_SMP_SUPPORT",
        "HARDWARE_DEBUG_API",
        "DEBUG_BUILD",
        "PRINTING",
        "VTX",
        "IOMMU",
        "HUGE_PAGE",
        "SET_TLS_BASE_SELF",
    ] {
        kernel.push_str(&format!(", \"{option}\": {}", on.contains(&option)));
    }
    kernel.push('}');
    for (path, text) in [
        ("interfaces/object-api.xml", OBJECTS),
        ("interfaces/object-api-sel4-arch.xml", SEL4_ARCH),
        ("interfaces/object-api-arch.xml", ARCH),
        ("api/syscall.xml", SYSCALLS),
        ("kernel/gen_config.json", &kernel),
        (
            "sel4/gen_config.json",
            r#"{"LIB_SEL4_FUNCTION_ATTRIBUTE": "inline"}"#,
        ),
    ] {
        let path = include.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    prefix
}

const USUAL: [&str; 2] = ["IOMMU", "HUGE_PAGE"];
const SMP: [&str; 3] = ["IOMMU", "HUGE_PAGE", "ENABLE_SMP_SUPPORT"];
const SMP_DEBUG: [&str; 5] = [
    "IOMMU",
    "HUGE_PAGE",
    "ENABLE_SMP_SUPPORT",
    "DEBUG_BUILD",
    "PRINTING",
];
const BREAKPOINTS: [&str; 3] = ["IOMMU", "HUGE_PAGE", "HARDWARE_DEBUG_API"];
const VTX: [&str; 4] = ["IOMMU", "HUGE_PAGE", "VTX", "DEBUG_BUILD"];
const BARE: [&str; 1] = ["SET_TLS_BASE_SELF"];
const MCS: [&str; 5] = [
    "IOMMU",
    "HUGE_PAGE",
    "KERNEL_MCS",
    "ENABLE_SMP_SUPPORT",
    "PRINTING",
];

fn interface(name: &str, on: &[&str]) -> KernelInterface {
    KernelInterface::of_prefix(&install(name, on), "16.0.0").unwrap()
}

/// A table's column for each configuration, in the order of [`COLUMNS`]; `-` where the name does not exist.
type Row<'t> = (&'t str, [&'t str; 7]);
const COLUMNS: [(&str, &[&str]); 7] = [
    ("usual", &USUAL),
    ("smp", &SMP),
    ("smp-debug", &SMP_DEBUG),
    ("breakpoints", &BREAKPOINTS),
    ("vtx", &VTX),
    ("bare", &BARE),
    ("mcs", &MCS),
];

fn check<N: ToString>(
    table: &[Row<'_>],
    test: &str,
    numbers: impl Fn(&KernelInterface) -> Vec<(String, Option<N>)>,
) {
    for (column, (name, on)) in COLUMNS.iter().enumerate() {
        let found: Vec<_> = numbers(&interface(&format!("{test}-{name}"), on))
            .into_iter()
            .map(|(id, number)| (id, number.map_or("-".to_owned(), |n| n.to_string())))
            .collect();
        let expected: Vec<_> = table
            .iter()
            .map(|(id, row)| ((*id).to_owned(), row[column].to_owned()))
            .collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn labels() {
    #[rustfmt::skip]
    let table: [Row<'_>; 19] = [
        //                                usual  smp  debug break  vtx  bare  mcs
        ("UntypedRetype",                 ["1",  "1",  "1",  "1",  "1",  "1",  "1"]),
        ("TCBConfigure",                  ["2",  "2",  "2",  "2",  "2",  "2",  "2"]),
        ("TCBSetTimeout",                 ["-",  "-",  "-",  "-",  "-",  "-",  "3"]),
        ("TCBSetPriority",                ["3",  "3",  "3",  "3",  "3",  "3",  "4"]),
        ("TCBSetAffinity",                ["-",  "4",  "4",  "-",  "-",  "-",  "-"]),
        ("TCBSetBreakpoint",              ["-",  "-",  "-",  "4",  "-",  "-",  "-"]),
        ("TCBTrace",                      ["-",  "-",  "5",  "5",  "-",  "-",  "-"]),
        ("TCBSuspend",                    ["4",  "5",  "6",  "6",  "4",  "4",  "5"]),
        ("CNodeCopy",                     ["5",  "6",  "7",  "7",  "5",  "5",  "6"]),
        ("CNodeSaveCaller",               ["6",  "7",  "8",  "8",  "6",  "6",  "-"]),
        ("X86PDPTMap",                    ["7",  "8",  "9",  "9",  "7",  "7",  "7"]),
        ("X86PDPTUnmap",                  ["8",  "9", "10", "10",  "8",  "8",  "8"]),
        ("X86PageDirectoryMap",           ["9", "10", "11", "11",  "9",  "9",  "9"]),
        ("X86PageDirectoryGetStatusBits", ["-",  "-",  "-",  "-",  "-",  "-",  "-"]),
        ("X86IOPageTableMap",            ["10", "11", "12", "12", "10",  "-", "10"]),
        ("X86PageMap",                   ["11", "12", "13", "13", "11", "10", "11"]),
        ("X86PageMapIO",                 ["12", "13", "14", "14", "12",  "-", "12"]),
        ("X86PageMapEPT",                 ["-",  "-",  "-",  "-", "13",  "-",  "-"]),
        ("X86IOPortControlIssue",        ["13", "14", "15", "15", "14", "11", "13"]),
    ];
    check(&table, "labels", |interface| {
        let labels = interface.labels().unwrap();
        // The option of the last method is in no configuration here: it is unknown, so off.
        assert_eq!(labels.get("X86VCPUReadMSR"), None);
        labels
            .entries()
            .filter(|entry| entry.id != "X86VCPUReadMSR")
            .map(|entry| (entry.id.clone(), entry.number))
            .collect()
    });
}

#[test]
fn system_calls() {
    #[rustfmt::skip]
    let classic: [Row<'_>; 9] = [
        //                      usual   smp   debug  break   vtx   bare  (mcs: below)
        ("Call",               ["-1",  "-1",  "-1",  "-1",  "-1",  "-1", ""]),
        ("ReplyRecv",          ["-2",  "-2",  "-2",  "-2",  "-2",  "-2", ""]),
        ("NBSend",             ["-3",  "-3",  "-3",  "-3",  "-3",  "-3", ""]),
        ("Reply",              ["-4",  "-4",  "-4",  "-4",  "-4",  "-4", ""]),
        ("DebugPutChar",        ["-",   "-",  "-5",   "-",   "-",   "-", ""]),
        ("DebugDumpScheduler",  ["-",   "-",  "-6",   "-",   "-",   "-", ""]),
        ("DebugSendIPI",        ["-",   "-",  "-7",   "-",   "-",   "-", ""]),
        ("Quiet",              ["-8",  "-8",   "-",  "-8",   "-",  "-8", ""]),
        ("SetTLSBase",          ["-",   "-",   "-",   "-",   "-",  "-9", ""]),
    ];
    for (column, (name, on)) in COLUMNS.iter().enumerate().take(6) {
        let calls = interface(&format!("calls-{name}"), on).syscalls().unwrap();
        for (id, row) in classic {
            let found = calls.get(id).map_or("-".to_owned(), |n| n.to_string());
            assert_eq!(found, row[column], "{id}, {name}");
        }
        assert_eq!(calls.entries().count(), classic.len());
    }
    let mcs = interface("calls-mcs", &MCS).syscalls().unwrap();
    let numbers: Vec<_> = mcs
        .entries()
        .map(|entry| (entry.id.as_str(), entry.number))
        .collect();
    assert_eq!(
        numbers,
        [
            ("Call", Some(-1)),
            ("NBSendRecv", Some(-2)),
            ("NBSend", Some(-3)),
            ("Wait", Some(-4)),
            ("NBWait", Some(-5)),
            ("DebugPutChar", Some(-6)),
            ("DebugDumpScheduler", Some(-7)),
            ("DebugSendIPI", None),
            ("Quiet", Some(-9)),
            ("SetTLSBase", None),
        ]
    );
}

#[test]
fn objects() {
    #[rustfmt::skip]
    let table: [Row<'_>; 20] = [
        //                 usual  smp  debug break  vtx  bare  mcs
        ("UNTYPED",        ["0",  "0",  "0",  "0",  "0",  "0",  "0"]),
        ("TCB",            ["1",  "1",  "1",  "1",  "1",  "1",  "1"]),
        ("ENDPOINT",       ["2",  "2",  "2",  "2",  "2",  "2",  "2"]),
        ("NOTIFICATION",   ["3",  "3",  "3",  "3",  "3",  "3",  "3"]),
        ("CNODE",          ["4",  "4",  "4",  "4",  "4",  "4",  "4"]),
        ("SCHED_CONTEXT",  ["-",  "-",  "-",  "-",  "-",  "-",  "5"]),
        ("REPLY",          ["-",  "-",  "-",  "-",  "-",  "-",  "6"]),
        ("PDPT",           ["5",  "5",  "5",  "5",  "5",  "5",  "7"]),
        ("PML4",           ["6",  "6",  "6",  "6",  "6",  "6",  "8"]),
        ("HUGE_PAGE",      ["7",  "7",  "7",  "7",  "7",  "-",  "9"]),
        ("PAGE_4K",        ["8",  "8",  "8",  "8",  "8",  "7", "10"]),
        ("LARGE_PAGE",     ["9",  "9",  "9",  "9",  "9",  "8", "11"]),
        ("PAGE_TABLE",    ["10", "10", "10", "10", "10",  "9", "12"]),
        ("PAGE_DIRECTORY",["11", "11", "11", "11", "11", "10", "13"]),
        ("IO_PAGE_TABLE", ["12", "12", "12", "12", "12",  "-", "14"]),
        ("VCPU",           ["-",  "-",  "-",  "-", "13",  "-",  "-"]),
        ("EPT_PML4",       ["-",  "-",  "-",  "-", "14",  "-",  "-"]),
        ("EPT_PDPT",       ["-",  "-",  "-",  "-", "15",  "-",  "-"]),
        ("EPT_PD",         ["-",  "-",  "-",  "-", "16",  "-",  "-"]),
        ("EPT_PT",         ["-",  "-",  "-",  "-", "17",  "-",  "-"]),
    ];
    check(&table, "objects", |interface| {
        object_types(&interface.config)
            .into_iter()
            .map(|entry| (entry.id, entry.number))
            .collect()
    });
}

#[test]
fn sizes_follow_scheduler_and_fpu_area() {
    let mut interface = interface("sizes", &USUAL);
    let bits = |interface: &KernelInterface, name: &str| {
        let all = object_bits(interface.abi, &interface.config);
        match all.iter().find(|entry| entry.0 == name) {
            Some(entry) => entry.1,
            None => panic!("{name} has no size"),
        }
    };
    assert_eq!(
        (bits(&interface, "TCB"), bits(&interface, "NOTIFICATION")),
        (11, 5)
    );
    interface.config.set("XSAVE_SIZE", 831);
    assert_eq!(bits(&interface, "TCB"), 11);
    interface.config.set("XSAVE_SIZE", 832);
    assert_eq!(bits(&interface, "TCB"), 12);
    interface.config.set("KERNEL_MCS", true);
    assert_eq!(
        (bits(&interface, "NOTIFICATION"), bits(&interface, "REPLY")),
        (6, 5)
    );
}

#[test]
fn options_of_both_files_become_constants() {
    let text = interface("config", &SMP_DEBUG).constants().unwrap();
    for line in [
        "// sel4-constants: abi=modern version=16.0.0 smp=yes mcs=no debug=yes",
        "    pub const MAX_NUM_NODES: u64 = 4;",
        "    pub const ROOT_CNODE_SIZE_BITS: u64 = 16;",
        "    pub const KERNEL_MCS: bool = false;",
        "    pub const IOMMU: bool = true;",
        "    pub const SMP: bool = true;",
        "    pub const PLAT: &str = \"pc99\";",
        "    pub const KERNEL_OPT_LEVEL: &str = \"-O2\";",
        "    pub const LIB_SEL4_FUNCTION_ATTRIBUTE: &str = \"inline\";",
        "        pub const X86_PAGE_MAP_EPT: Option<u64> = None;",
        "        pub const TCB_SET_AFFINITY: Option<u64> = Some(4);",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}");
    }
    // An unconditional method is no option, and one that does not exist is no constant.
    assert!(!text.contains("pub const UNTYPED_RETYPE: Option"));
    assert!(!text.contains("pub const X86_PAGE_MAP_EPT: u64"));
}
