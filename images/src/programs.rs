//! [`Programs`]: servers and clients, built for a kernel by one run of cargo.
//!
//! How a program has to be built is `sel4-rt`'s to say; here it is done.

use crate::error::Error;
use crate::kernel::BuiltKernel;
use crate::ui::Ui;
use crate::workspace::Workspace;
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use system::bundle::program;

/// The root task's program.
const ROOT_TASK: &str = "root-task";
/// Programs that every system has, in the bundle's order.
pub const SERVERS: [&str; 5] = [
    program::CONSOLE,
    program::TIMER,
    program::IOMMU,
    program::MSI,
    program::PCI,
];
const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "pd";

/// Programs that were built for one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// The file of a program, with its symbols.
    #[must_use]
    pub fn path(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }

    /// The root task's file.
    #[must_use]
    pub fn root_task(&self) -> PathBuf {
        self.path(ROOT_TASK)
    }
}

/// What cargo has to be told so that it builds, or checks, for a kernel.
///
/// One folder for each content of the constants file: kernels that differ only
/// in patches share their programs.
#[derive(Clone, Debug)]
pub struct Recipe {
    folder: PathBuf,
    constants: PathBuf,
    script: PathBuf,
}

impl Recipe {
    /// For a kernel that was built.
    ///
    /// # Errors
    /// The constants file cannot be read or copied.
    pub fn new(workspace: &Workspace, kernel: &BuiltKernel) -> Result<Self, Error> {
        let text = std::fs::read(&kernel.constants_rs)
            .map_err(Error::file("read", &kernel.constants_rs))?;
        let hash: String = Sha256::digest(&text)
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let folder = workspace.output(Path::new("pd").join(hash))?;
        let constants = folder.join("constants.rs");
        if std::fs::read(&constants).ok().as_ref() != Some(&text) {
            std::fs::write(&constants, &text).map_err(Error::file("write", &constants))?;
        }
        Ok(Self {
            folder,
            constants,
            script: workspace.root.join("sel4/rt/pd.ld"),
        })
    }

    /// `cargo <action>` with all that programs need.
    #[must_use]
    pub fn cargo(&self, workspace: &Workspace, action: &str) -> Command {
        let script = format!("link-arg=-T{}", self.script.display());
        let flags = [
            "-Crelocation-model=static".to_owned(),
            "-Clink-arg=-nostartfiles".into(),
            "-Clink-arg=-nostdlib".into(),
            "-Clink-arg=-static".into(),
            "-Clink-arg=-no-pie".into(),
            "-Clink-arg=-Wl,--build-id=none".into(),
            // A program that stays clear of the SSE registers saves the kernel from switching them.
            "-Ctarget-cpu=k8".into(),
            "-Cno-vectorize-loops".into(),
            "-Cno-vectorize-slp".into(),
            format!("-C{script}"),
        ];
        let mut command = cargo(workspace, action);
        command
            .args(["--profile", PROFILE, "--target", TARGET, "--target-dir"])
            .arg(&self.folder)
            // Arguments apart by 0x1f, so that a path may hold blanks.
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("SEL4_CONSTANTS", &self.constants);
        command
    }

    /// The constants file, for host tests of the bindings.
    #[must_use]
    pub fn constants(&self) -> &Path {
        &self.constants
    }
}

/// `cargo <action>` in the project, by the cargo that runs this program.
#[must_use]
pub fn cargo(workspace: &Workspace, action: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .arg(action)
        .current_dir(&workspace.root)
        .env_remove("RUSTFLAGS");
    command
}

/// Builds the root task, the servers and every client's program.
///
/// # Errors
/// Cargo does not succeed; what it said has been shown.
pub fn build(workspace: &Workspace, recipe: &Recipe, ui: Ui) -> Result<Programs, Error> {
    let mut command = recipe.cargo(workspace, "build");
    command.arg("--bins");
    for name in [ROOT_TASK].iter().chain(&SERVERS) {
        command.args(["--package", workspace.id(name)]);
    }
    for name in &workspace.programs {
        command.args(["--package", workspace.id(name)]);
    }
    let step = ui.step("programs");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::spawn("cargo"))?;
    let mut said = Vec::new();
    let mut compiled = 0;
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if let Some(package) = line.trim().strip_prefix("Compiling ") {
                compiled += 1;
                step.say(package.split(" (").next().unwrap_or(package));
            }
            said.push(line);
        }
    }
    let status = child.wait().map_err(Error::spawn("cargo"))?;
    if !status.success() {
        step.abandon();
        ui.show(&said.join("\n"));
        return Err(Error::Command {
            program: "cargo build of the programs".into(),
            status,
        });
    }
    step.done(match compiled {
        0 => None,
        _ => Some(format!("built ({compiled} packages)")),
    });
    Ok(Programs {
        folder: recipe.folder.join(TARGET).join(PROFILE),
    })
}
