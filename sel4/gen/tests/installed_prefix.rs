//! A kernel that somebody else built and installed, in today's notation: its
//! folder holds `gen_config.json`, object interfaces and system calls.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

use sel4_gen::{Abi, KernelInterface};

const OBJECTS: &str = r#"<?xml version="1.0"?>
<api name="ObjectApi" label_prefix="">
  <interface name="seL4_Untyped"><method id="UntypedRetype" name="Retype"/></interface>
  <interface name="seL4_TCB">
    <method id="TCBConfigure" name="Configure">
      <condition><not><config var="CONFIG_KERNEL_MCS"/></not></condition>
    </method>
    <method id="TCBConfigure" name="Configure">
      <condition><config var="CONFIG_KERNEL_MCS"/></condition>
    </method>
    <method id="TCBSetAffinity" name="SetAffinity">
      <condition><and>
        <not><config var="CONFIG_KERNEL_MCS"/></not>
        <config var="CONFIG_ENABLE_SMP_SUPPORT"/>
      </and></condition>
    </method>
    <method id="TCBSuspend" name="Suspend"/>
  </interface>
</api>"#;
const SEL4_ARCH: &str = r#"<api><interface name="I"><method id="X86PDPTMap"/></interface></api>"#;
const ARCH: &str = r#"<api><interface name="I"><method id="X86PageMap"/></interface></api>"#;
const SYSCALLS: &str = r#"<syscalls>
  <api-master><config><syscall name="Call"/><syscall name="Reply"/></config></api-master>
  <api-mcs><config><syscall name="Call"/><syscall name="NBSendWait"/><syscall name="Wait"/></config></api-mcs>
  <debug><config>
    <condition><config var="CONFIG_PRINTING"/></condition><syscall name="DebugPutChar"/>
  </config></debug>
</syscalls>"#;

fn install(name: &str, flags: &str) -> PathBuf {
    let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let include = prefix.join("libsel4/include");
    let write = |path: &str, text: &str| {
        let path = include.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("interfaces/object-api.xml", OBJECTS);
    write("interfaces/object-api-sel4-arch.xml", SEL4_ARCH);
    write("interfaces/object-api-arch.xml", ARCH);
    write("api/syscall.xml", SYSCALLS);
    write(
        "sel4/gen_config.json",
        r#"{"IOMMU": true, "HUGE_PAGE": true}"#,
    );
    let kernel = format!(
        r#"{{"MAX_NUM_NODES": "4", "ROOT_CNODE_SIZE_BITS": "16", "NUM_DOMAINS": "1",
        "MAX_NUM_BOOTINFO_UNTYPED_CAPS": "230", "NUM_PRIORITIES": "256", "RETYPE_FAN_OUT_LIMIT": "256",
        "XSAVE_SIZE": "832", "PLAT": "pc99", {flags}}}"#
    );
    write("kernel/gen_config.json", &kernel);
    prefix
}

#[test]
fn without_mcs() {
    let prefix = install(
        "plain",
        r#""KERNEL_MCS": false, "ENABLE_SMP_SUPPORT": true, "PRINTING": false"#,
    );
    let interface = KernelInterface::of_prefix(&prefix, "16.0.0").unwrap();
    assert_eq!(interface.abi, Abi::Modern);
    let text = interface.constants().unwrap();
    assert_eq!(
        text.lines().next(),
        Some("// sel4-constants: abi=modern version=16.0.0 smp=yes mcs=no debug=no")
    );
    for line in [
        "pub const TCB_CONFIGURE: u64 = 2;",
        "pub const TCB_SET_AFFINITY: u64 = 3;",
        "pub const X86_PAGE_MAP: u64 = 6;",
        "pub const REPLY: i64 = -2;",
        "pub const DEBUG_PUT_CHAR: Option<i64> = None;",
        "pub const PAGE_4K: u64 = 8;",
        "pub const TCB: u64 = 12;",
        "pub const PLAT: &str = \"pc99\";",
    ] {
        assert!(text.contains(line), "{line}");
    }
}

#[test]
fn with_mcs() {
    let prefix = install(
        "mcs",
        r#""KERNEL_MCS": true, "ENABLE_SMP_SUPPORT": true, "PRINTING": true"#,
    );
    let interface = KernelInterface::of_prefix(&prefix, "16.0.0").unwrap();
    let text = interface.constants().unwrap();
    for line in [
        "pub const TCB_CONFIGURE: u64 = 2;",
        "pub const TCB_SET_AFFINITY: Option<u64> = None;",
        "pub const X86_PAGE_MAP: u64 = 5;",
        "pub const NB_SEND_WAIT: i64 = -2;",
        "pub const DEBUG_PUT_CHAR: i64 = -4;",
        "pub const SCHED_CONTEXT: u64 = 5;",
        "pub const PAGE_4K: u64 = 10;",
        "pub const NOTIFICATION: u64 = 6;",
    ] {
        assert!(text.contains(line), "{line}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let prefix = install("broken", r#""KERNEL_MCS": false"#);
    let arch = prefix.join("libsel4/include/interfaces/object-api-arch.xml");
    fs::write(&arch, "<api><method/></api>").unwrap();
    let interface = KernelInterface::of_prefix(&prefix, "16.0.0").unwrap();
    let error = interface.constants().unwrap_err().to_string();
    assert!(
        error.contains("object-api-arch.xml: element <method>"),
        "{error}"
    );
    let config = prefix.join("libsel4/include/kernel/gen_config.json");
    fs::write(&config, "[]").unwrap();
    let error = KernelInterface::of_prefix(&prefix, "16.0.0").unwrap_err();
    assert!(
        error.to_string().contains("kernel/gen_config.json"),
        "{error}"
    );
    fs::remove_file(&config).unwrap();
    let error = KernelInterface::of_prefix(&prefix, "16.0.0").unwrap_err();
    assert!(error.to_string().contains("cannot read"), "{error}");
}
