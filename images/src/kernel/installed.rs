//! A kernel that somebody else built and installed: the folder that `SEL4_PREFIX` names.
//!
//! [`lacks`] says what it will not do for, before anything is built with it; [`take`] makes the
//! kernel that QEMU loads, and the constants, of it. What a prefix holds is `sel4-gen`'s to know.

use std::fs;
use std::path::Path;

use sel4_gen::{Config, IommuDriver, KernelInterface, Needs, unfit};
use sha2::{Digest, Sha256};

use super::{Build, BuiltKernel, Freshness, KernelError, KernelSpec, compile, create_folder};
use super::{options, stamp, write};

/// The release of a kernel that does not say.
const SOME_RELEASE: &str = "13+";
/// Longest name of a release that is believed.
const MAX_RELEASE: usize = 32;

/// What a system with so many cores and such an IOMMU driver asks of its kernel, besides what the
/// bundled kernel gives to every system.
#[must_use]
pub fn needs(cores: u64, iommu: IommuDriver) -> Needs {
    let bundled = options::config(&KernelSpec::new(Build::Release, 1));
    let number = |name| bundled.number(name).unwrap_or(0);
    Needs {
        cores,
        iommu,
        root_cnode_bits: number("ROOT_CNODE_SIZE_BITS"),
        untyped_caps: number("MAX_NUM_BOOTINFO_UNTYPED_CAPS"),
        priorities: number("NUM_PRIORITIES"),
    }
}

/// Why the kernel installed in `prefix` will not do, a sentence each. `spec` is what the bundled
/// kernel would be for the same system.
#[must_use]
pub fn lacks(prefix: &Path, needs: &Needs, spec: &KernelSpec) -> Vec<String> {
    let mut lacks: Vec<String> = unfit(prefix, needs)
        .iter()
        .map(ToString::to_string)
        .collect();
    if !spec.without_patches.is_empty() {
        lacks.push(format!(
            "the system is about the bundled kernel without its patch {}: run it without SEL4_PREFIX",
            spec.without_patches.join(", ")
        ));
    }
    // A debug kernel where none was asked for does the same, only slower.
    let configured = KernelInterface::of_prefix(prefix, SOME_RELEASE);
    if let (Build::Debug, Ok(interface)) = (spec.build, configured)
        && build(&interface.config) == Build::Release
    {
        lacks.push(
            "the system asks for a debug kernel, and this one is for release: build it with \
             KernelDebugBuild=ON and KernelPrinting=ON"
                .into(),
        );
    }
    lacks
}

/// Makes the kernel installed in `prefix` ready in a folder of its own below `out`, or finds it
/// there. It has been asked [what it lacks](lacks) before.
///
/// # Errors
/// The prefix cannot be read, or `objcopy` does not take the kernel.
pub fn take(prefix: &Path, out: &Path) -> Result<BuiltKernel, KernelError> {
    let interface =
        KernelInterface::of_prefix(prefix, &release(prefix)).map_err(KernelError::Installed)?;
    let constants = interface.constants().map_err(KernelError::Installed)?;
    let elf64 = prefix.join("bin/kernel.elf");
    let bytes = fs::read(&elf64).map_err(|error| KernelError::io("read", &elf64, error))?;
    // Named by what is in it, so that what is there is right.
    let mut hash = Sha256::new();
    hash.update(&bytes);
    hash.update(&constants);
    let hash: String = hash
        .finalize()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let folder = out.join(format!("installed-{hash}"));
    create_folder(&folder)?;
    let _lock = stamp::lock(&folder)?;
    let config = interface.config;
    let cores = config.number("MAX_NUM_NODES").unwrap_or(1);
    let mut kernel = BuiltKernel {
        elf64,
        multiboot: folder.join("kernel32.elf"),
        constants_rs: folder.join("constants.rs"),
        version: interface.version,
        variant: format!("{}-{cores}", build(&config)),
        prefix: Some(prefix.to_owned()),
        config,
        freshness: Freshness::UpToDate,
    };
    if stamp::read(&folder).as_ref() != Some(&hash) {
        compile::multiboot(&kernel.elf64, &kernel.multiboot)?;
        write(&kernel.constants_rs, &constants)?;
        stamp::write(&folder, &hash)?;
        kernel.freshness = Freshness::Built;
    }
    Ok(kernel)
}

fn build(config: &Config) -> Build {
    match config.is_defined("DEBUG_BUILD") {
        true => Build::Debug,
        false => Build::Release,
    }
}

/// The release, if somebody put the source's file `VERSION` into the prefix: installing does not.
fn release(prefix: &Path) -> String {
    let text = fs::read_to_string(prefix.join("VERSION")).unwrap_or_default();
    let text = text.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    if !text.is_empty() && text.len() <= MAX_RELEASE && text.chars().all(plain) {
        text.to_owned()
    } else {
        SOME_RELEASE.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(config: &str) -> tempfile::TempDir {
        let prefix = tempfile::tempdir().unwrap();
        let methods = "<api><interface name=\"I\"><method id=\"Do\"/></interface></api>";
        let calls = "<syscalls><api-master><config><syscall name=\"Call\"/></config></api-master>\
                     <api-mcs><config><syscall name=\"Call\"/></config></api-mcs><debug/></syscalls>";
        for (path, text) in [
            ("libsel4/include/interfaces/object-api.xml", methods),
            (
                "libsel4/include/interfaces/object-api-sel4-arch.xml",
                methods,
            ),
            ("libsel4/include/interfaces/object-api-arch.xml", methods),
            ("libsel4/include/api/syscall.xml", calls),
            ("libsel4/include/sel4/gen_config.json", "{}"),
            ("libsel4/include/kernel/gen_config.json", config),
            ("bin/kernel.elf", "no kernel"),
        ] {
            write(&prefix.path().join(path), text).unwrap();
        }
        prefix
    }

    const GOOD: &str = r#"{"SEL4_ARCH": "x86_64", "PLAT": "pc99", "MAX_NUM_NODES": "2",
        "ROOT_CNODE_SIZE_BITS": "16", "MAX_NUM_BOOTINFO_UNTYPED_CAPS": "230",
        "NUM_PRIORITIES": "256", "NUM_DOMAINS": "1", "RETYPE_FAN_OUT_LIMIT": "256"}"#;

    #[test]
    fn what_it_lacks_depends_on_the_system() {
        let prefix = prefix(GOOD);
        let lacks = |cores, spec| lacks(prefix.path(), &needs(cores, IommuDriver::User), &spec);
        let spec = KernelSpec::new(Build::Release, 1);
        assert_eq!(lacks(2, spec.clone()), [""; 0]);
        let found = lacks(
            4,
            KernelSpec {
                build: Build::Debug,
                without_patches: vec!["B1".into()],
                ..spec
            },
        );
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("KernelMaxNumNodes=4"));
        assert!(found[1].contains("without its patch B1"));
        assert!(found[2].contains("KernelDebugBuild=ON"));
        let error = KernelError::Unfit(found).to_string();
        assert_eq!(error.matches("\n  - ").count(), 3, "{error}");
    }

    #[test]
    fn a_debug_kernel_does_for_every_system() {
        let prefix = prefix(&GOOD.replacen('{', r#"{"DEBUG_BUILD": true, "#, 1));
        for build in [Build::Debug, Build::Release] {
            let spec = KernelSpec::new(build, 1);
            let needs = needs(1, IommuDriver::User);
            assert_eq!(lacks(prefix.path(), &needs, &spec), [""; 0]);
        }
    }

    #[test]
    fn an_empty_folder_is_no_prefix() {
        let folder = tempfile::tempdir().unwrap();
        let spec = KernelSpec::new(Build::Debug, 1);
        let found = lacks(folder.path(), &needs(1, IommuDriver::User), &spec);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("bin/kernel.elf"), "{found:?}");
        assert!(take(folder.path(), folder.path()).is_err());
    }

    #[test]
    fn a_kernel_that_is_none_is_told() {
        let (prefix, out) = (prefix(GOOD), tempfile::tempdir().unwrap());
        for _ in 0..2 {
            let error = take(prefix.path(), out.path()).unwrap_err().to_string();
            assert!(error.contains("objcopy failed"), "{error}");
        }
    }

    #[test]
    fn the_release_is_what_the_prefix_says() {
        let prefix = prefix(GOOD);
        for (text, release) in [("16.0.0\n", "16.0.0"), ("", "13+"), ("a b", "13+")] {
            write(&prefix.path().join("VERSION"), text).unwrap();
            assert_eq!(super::release(prefix.path()), release);
        }
    }
}
