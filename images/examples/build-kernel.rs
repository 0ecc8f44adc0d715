//! Builds one kernel variant without the rest of the tool:
//! `cargo run -p images --example build-kernel -- release 4 OUT [B1 ...]`,
//! the last being patches to leave out.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use images::kernel::{Build, KernelSpec, build};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let kind = match arguments.next().as_deref() {
        Some("debug") => Some(Build::Debug),
        Some("release") => Some(Build::Release),
        _ => None,
    };
    let cores = arguments.next().and_then(|cores| cores.parse().ok());
    let out = arguments.next().map(PathBuf::from);
    let (Some(build_kind), Some(cores), Some(out)) = (kind, cores, out) else {
        eprintln!("usage: build-kernel debug|release CORES OUT [PATCH ...]");
        return ExitCode::FAILURE;
    };
    let spec = KernelSpec {
        without_patches: arguments.collect(),
        ..KernelSpec::new(build_kind, cores)
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match build(&spec, &root, &out, &|step| eprintln!("{step}")) {
        Ok(kernel) => {
            println!("{:?}: {}", kernel.freshness, kernel.multiboot.display());
            println!("{}", kernel.constants_rs.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
