//! Runs the tool chain: preprocessor, compiler, linker and `objcopy`.
//!
//! All C files are compiled as one, as the kernel's own Makefile does. Paths on
//! the command line are relative to the source, so that the kernel is the same
//! wherever the project lies.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::source::{self, INCLUDE_FOLDERS, LINKER_SCRIPT};
use super::{Build, KernelError, create_folder, read, write};

const GCC: &str = "gcc";
const OBJCOPY: &str = "objcopy";

/// Programs, the Debian package of each, and an argument that makes it name
/// its version.
const TOOLS: [(&str, &str, &str); 4] = [
    (GCC, "gcc", "--version"),
    ("as", "binutils", "--version"),
    ("ld", "binutils", "--version"),
    (OBJCOPY, "binutils", "--version"),
];

/// Seen by every run of the preprocessor (kernel `Makefile`, `DEFINES`).
const DEFINES: [&str; 6] = [
    "-DHAVE_AUTOCONF",
    "-D__KERNEL_64__",
    "-DKERNEL_64=y",
    "-D__X86_64__=y",
    "-DARCH_X86",
    "-DX86_64",
];

/// Compiler options (kernel `Makefile`, `CFLAGS`), then what a current gcc needs:
/// no hardening that distributions turn on by default, and no warning that
/// later versions learnt.
const C_FLAGS: [&str; 20] = [
    "-m64",
    "-std=c99",
    "-O2",
    "-nostdlib",
    "-ffreestanding",
    "-fno-asynchronous-unwind-tables",
    "-mno-mmx",
    "-mno-sse",
    "-mno-sse2",
    "-mno-3dnow",
    "-mcmodel=kernel",
    "-fno-pic",
    "-fno-pie",
    "-fno-stack-protector",
    "-fcf-protection=none",
    "-Wall",
    "-Wno-address-of-packed-member",
    "-Wno-array-bounds",
    "-Wno-unused-function",
    "-Wno-error",
];

/// How much of a tool's messages an error repeats.
const MESSAGE_LINES: usize = 30;

/// Checks that every tool is installed, and returns what they call themselves.
pub fn find_tools() -> Result<Vec<String>, KernelError> {
    TOOLS
        .iter()
        .map(|(tool, _, version)| {
            let output = run(tool, "its version", Command::new(tool).arg(version))?;
            let text = String::from_utf8_lossy(&output.stdout);
            Ok(text.lines().next().unwrap_or("").to_owned())
        })
        .collect()
}

/// The tool chain at work on one variant.
pub struct Compiler<'a> {
    /// The patched source.
    pub tree: &'a Path,
    /// The variant's folder: `gen` in it holds the generated headers.
    pub folder: &'a Path,
    /// Debug kernels have assertions.
    pub build: Build,
}

impl Compiler<'_> {
    /// The preprocessed text of a file below the source, with line markers.
    pub fn preprocess(&self, file: &str) -> Result<String, KernelError> {
        let output = run(GCC, file, self.gcc().args(["-E", "-x", "c"]).arg(file))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Compiles everything and links it to `elf`.
    pub fn link(&self, elf: &Path) -> Result<(), KernelError> {
        let files = source::files(self.tree)?;
        let objects = self.folder.join("obj");
        create_folder(&objects)?;
        let mut linked = vec![self.compile_c(&files, &objects)?];
        for file in source::assembler_files(&files) {
            let name = file.file_stem().unwrap_or_default();
            let object = objects.join(name).with_extension("o");
            let mut command = self.gcc();
            command.args(C_FLAGS).arg("-c").arg(file).arg("-o");
            run(GCC, &file.to_string_lossy(), command.arg(&object))?;
            linked.push(object);
        }

        let script = objects.join("linker.lds");
        let mut command = self.gcc();
        command.args(["-E", "-P", "-x", "c", LINKER_SCRIPT, "-o"]);
        run(GCC, LINKER_SCRIPT, command.arg(&script))?;
        let mut command = self.gcc();
        command
            .args(["-m64", "-nostdlib", "-static", "-no-pie"])
            .args(["-Wl,-n", "-Wl,--build-id=none", "-Wl,-z,noexecstack"])
            .arg("-T")
            .arg(&script)
            .args(&linked)
            // For `__popcountdi2`, which kernels for several cores call.
            .arg("-lgcc")
            .arg("-o")
            .arg(elf);
        run(GCC, "kernel.elf", &mut command)?;
        Ok(())
    }

    /// Compiles all C files as one.
    fn compile_c(&self, files: &[PathBuf], objects: &Path) -> Result<PathBuf, KernelError> {
        let mut all = String::new();
        for file in source::c_files(files) {
            let name = file.to_string_lossy();
            all.push_str(&format!("#line 1 \"{name}\"\n"));
            all.push_str(&read(&self.tree.join(file))?);
            all.push('\n');
        }
        let c_file = objects.join("kernel_all.c");
        write(&c_file, &all)?;
        let object = objects.join("kernel_all.o");
        let mut command = self.gcc();
        command.args(C_FLAGS).arg("-c").arg(&c_file).arg("-o");
        run(GCC, "kernel_all.c", command.arg(&object))?;
        Ok(object)
    }

    /// gcc in the source's folder, with definitions and include folders.
    fn gcc(&self) -> Command {
        let mut command = Command::new(GCC);
        command
            .current_dir(self.tree)
            .env("LC_ALL", "C")
            .args(["-nostdinc", "-I../gen"])
            .args(INCLUDE_FOLDERS.map(|folder| format!("-I{folder}")))
            .args(DEFINES);
        if self.build == Build::Debug {
            command.args(["-DDEBUG", "-ggdb"]);
        }
        command
    }
}

/// Converts a kernel to the 32-bit ELF that a multiboot loader takes.
pub fn multiboot(elf: &Path, multiboot: &Path) -> Result<(), KernelError> {
    let mut command = Command::new(OBJCOPY);
    command
        .args(["-O", "elf32-i386", "--strip-debug"])
        .arg(elf)
        .arg(multiboot);
    run(OBJCOPY, "kernel32.elf", &mut command)?;
    Ok(())
}

fn run(tool: &'static str, what: &str, command: &mut Command) -> Result<Output, KernelError> {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let package = TOOLS
                .iter()
                .find(|(name, _, _)| *name == tool)
                .map_or(tool, |(_, package, _)| package);
            return Err(KernelError::MissingTool { tool, package });
        }
        Err(error) => return Err(KernelError::io("run", Path::new(tool), error)),
    };
    if output.status.success() {
        return Ok(output);
    }
    // Errors first: a compiler's warnings fill pages.
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("error"))
        .take(MESSAGE_LINES)
        .collect();
    let message = if errors.is_empty() {
        let lines: Vec<&str> = text.lines().collect();
        let first = lines.len().saturating_sub(MESSAGE_LINES);
        lines.get(first..).unwrap_or_default().join("\n")
    } else {
        errors.join("\n")
    };
    Err(KernelError::Tool {
        tool,
        what: what.to_owned(),
        output: message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_names_its_package() {
        let error = run(OBJCOPY, "x", &mut Command::new("no-such-program-here")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`objcopy` is not installed; install the Debian package `binutils`"
        );
    }

    #[test]
    fn a_failing_tool_is_quoted() {
        let error = run(GCC, "x.c", Command::new(GCC).arg("no-such-file.c")).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("gcc failed on x.c:\n"), "{text}");
        assert!(text.contains("no-such-file.c"), "{text}");
    }
}
