//! Takes the kernel's constants from the file that `SEL4_CONSTANTS` names.
//!
//! `sel4-gen` writes that file for one kernel and one configuration. Its line `sel4-constants:` tells
//! the ABI family, which becomes the cfg `sel4_abi`; only the module `abi` looks at it.

use std::path::PathBuf;
use std::{env, fs, process};

fn main() {
    println!("cargo:rerun-if-env-changed=SEL4_CONSTANTS");
    println!("cargo:rustc-check-cfg=cfg(sel4_abi, values(\"v5\", \"modern\"))");
    if let Err(message) = run() {
        eprintln!("error: {message}");
        process::exit(1);
    }
}

fn run() -> Result<(), String> {
    let path = env::var_os("SEL4_CONSTANTS").map(PathBuf::from).ok_or(
        "SEL4_CONSTANTS is not set: build protection domains through ./x, which passes them the \
         kernel's constants",
    )?;
    let shown = path.display();
    if !path.is_absolute() {
        return Err(format!(
            "SEL4_CONSTANTS must be an absolute path, not {shown}"
        ));
    }
    println!("cargo:rerun-if-changed={shown}");
    let text = fs::read_to_string(&path).map_err(|e| format!("SEL4_CONSTANTS: {shown}: {e}"))?;

    let header = text
        .lines()
        .find_map(|line| line.strip_prefix("// sel4-constants:"))
        .ok_or_else(|| {
            format!("{shown} has no line `// sel4-constants:`, so sel4-gen did not write it")
        })?;
    let value = |key: &str| {
        header
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .find(|pair| pair.0 == key)
    };
    if value("mcs").is_some_and(|pair| pair.1 != "no") {
        return Err(format!("{shown}: MCS kernels are not supported"));
    }
    match value("abi") {
        Some((_, abi @ ("v5" | "modern"))) => println!("cargo:rustc-cfg=sel4_abi=\"{abi}\""),
        other => {
            return Err(format!(
                "{shown}: ABI family {other:?} is neither v5 nor modern"
            ));
        }
    }
    Ok(())
}
