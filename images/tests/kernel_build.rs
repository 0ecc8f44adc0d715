//! Builds whole kernels with the installed tool chain and looks at the result.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed test"
)]

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use images::kernel::{Build, BuiltKernel, Freshness, KernelSpec, build};
use object::{Object, ObjectSymbol};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn kernel(spec: &KernelSpec, out: &Path) -> BuiltKernel {
    let built = build(spec, &root(), out, &|_| ());
    built.map_err(|error| error.to_string()).unwrap()
}

fn symbol(file: &object::File<'_>, name: &str) -> Option<u64> {
    file.symbols()
        .find(|symbol| symbol.name() == Ok(name))
        .map(|symbol| symbol.address())
}

#[test]
fn a_release_kernel_is_built_once() {
    let out = tempfile::tempdir().unwrap();
    let spec = KernelSpec::new(Build::Release, 1);
    let steps = RefCell::new(Vec::new());
    let note = |step: &str| steps.borrow_mut().push(step.to_owned());
    let first = build(&spec, &root(), out.path(), &note).unwrap();
    assert_eq!(first.freshness, Freshness::Built);
    assert!(steps.take().len() >= 2);

    let bytes = fs::read(&first.elf64).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    assert_eq!(file.format(), object::BinaryFormat::Elf);
    assert!(file.is_64());
    assert_eq!(symbol(&file, "_assert_fail"), None);
    assert_eq!(symbol(&file, "big_kernel_lock"), None);
    let multiboot = fs::read(&first.multiboot).unwrap();
    assert!(!object::File::parse(&*multiboot).unwrap().is_64());
    // The multiboot header must lie in the first 8 KiB of the file.
    let magic = 0x1bad_b002_u32.to_le_bytes();
    let start = &multiboot[..multiboot.len().min(8192)];
    assert!(start.chunks_exact(4).any(|word| word == magic));
    let constants = fs::read_to_string(&first.constants_rs).unwrap();
    assert!(constants.contains("pub const DEBUG_BUILD: bool = false;"));

    let modified = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let before = modified(&first.elf64);
    let second = build(&spec, &root(), out.path(), &note).unwrap();
    assert_eq!(second.freshness, Freshness::UpToDate);
    assert!(steps.take().is_empty());
    assert_eq!(modified(&second.elf64), before);

    // A missing output is made again, byte by byte the same.
    fs::remove_file(&first.multiboot).unwrap();
    assert_eq!(kernel(&spec, out.path()).freshness, Freshness::Built);
    assert!(fs::read(&first.multiboot).unwrap() == multiboot);
}

#[test]
fn a_debug_kernel_for_four_cores() {
    let out = tempfile::tempdir().unwrap();
    let built = kernel(&KernelSpec::new(Build::Debug, 4), out.path());
    let bytes = fs::read(&built.elf64).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    assert!(symbol(&file, "_assert_fail").is_some());
    assert!(symbol(&file, "big_kernel_lock").is_some());
    let constants = fs::read_to_string(&built.constants_rs).unwrap();
    for line in [
        "pub const MAX_NUM_NODES: u64 = 4;",
        "pub const TCB_SET_AFFINITY: u64 = 14;",
        "pub const DEBUG_PUT_CHAR: i64 = -9;",
    ] {
        assert!(constants.contains(line), "{line}");
    }
}

/// B0: `restore_user_context` rounds the stack pointer to the stack's size, so
/// the stack must be aligned to it. Without the patch only luck would do that.
#[test]
fn the_kernel_stack_is_aligned_to_its_size() {
    let out = tempfile::tempdir().unwrap();
    let alignment_in = |spec: &KernelSpec| {
        let built = kernel(spec, out.path());
        let bytes = fs::read(&built.elf64).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let stack = symbol(&file, "kernel_stack_alloc").expect("the kernel has a stack");
        stack % 4096
    };
    let mut spec = KernelSpec::new(Build::Release, 1);
    assert_eq!(alignment_in(&spec), 0);
    spec.without_patches = vec!["B0".into()];
    assert_ne!(alignment_in(&spec), 0);
    assert!(out.path().join("release-1-without-B0/kernel.elf").is_file());
    assert!(out.path().join("release-1/kernel.elf").is_file());
}
