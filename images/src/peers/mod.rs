//! The peers' figures, measured anew: Debian's stock Linux in the machine of
//! our own benchmark, with `peers/linux` as its only process.
//!
//! [`debian`] gets the kernel, [`archive`] packs its file system, [`measure`]
//! boots both and takes the figures.

mod archive;
pub mod debian;

use crate::bench::{Figure, Figures, INSTRUCTIONS};
use crate::description::Description;
use crate::error::Error;
use crate::programs::cargo;
use crate::qemu;
use crate::transcript::{Event, Transcript};
use crate::ui::Ui;
use crate::workspace::Workspace;
use archive::Archive;
use debian::Kernel;
use sel4_gen::Config;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

/// The program.
const PROGRAM: &str = "linux-peer";
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// A device without reset and without interrupt pin, for the rows of assignment: Linux evaluates ACPI's interrupt
/// routing at each opening of a device with a pin.
const PLAIN_DEVICE: &str = "pci-testdev,addr=04.0";
/// What Linux is told: its IOMMU driver on, and huge pages for the rows that are about them.
const COMMAND_LINE: &str = "console=ttyS0 quiet intel_iommu=on panic=-1 hugepagesz=2M hugepages=16";
/// It boots in a few seconds, and measures for less than a minute.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Numbers of the device `/dev/console` (Linux, `Documentation/admin-guide/devices.txt`).
const CONSOLE: (u32, u32) = (5, 1);

/// What was measured of Linux.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Package and version of the kernel.
    pub kernel: String,
    /// The figures; the keys are those of our own rows, and some more.
    pub figures: Figures,
}

/// Boots Linux in the machine of a description and measures.
///
/// # Errors
/// The kernel cannot be had, or the run gave no figures.
pub fn measure(
    workspace: &Workspace,
    description: &Description,
    ui: Ui,
) -> Result<Measured, Error> {
    let kernel = debian::take(workspace, ui)?;
    let file_system = file_system(workspace, &kernel, ui)?;
    let mut description = description.clone();
    description.machine.timeout = TIMEOUT;
    let mut arguments = qemu::hardware(&description.machine, &Config::default(), &[]);
    let image = kernel.image.to_string_lossy();
    let file_system = file_system.to_string_lossy();
    let words = [
        "-device",
        PLAIN_DEVICE,
        "-kernel",
        &image,
        "-initrd",
        &file_system,
    ];
    arguments.extend(words.map(ToOwned::to_owned));
    arguments.extend(["-append", COMMAND_LINE].map(ToOwned::to_owned));
    let step = ui.step("measuring Linux");
    let run = qemu::boot(&description, arguments, &mut |line| {
        if let Some(metric) = line.text.strip_prefix("@metric ") {
            step.say(metric.split(['.', ' ']).next().unwrap_or(metric));
        }
    })?;
    let figures = figures(&run.transcript);
    step.done(Some(format!(
        "{} rows",
        figures.as_ref().map_or(0, Figures::len)
    )));
    Ok(Measured {
        kernel: kernel.name,
        figures: figures.map_err(Error::Peer)?,
    })
}

/// Builds the program, and packs it with the modules.
fn file_system(workspace: &Workspace, kernel: &Kernel, ui: Ui) -> Result<PathBuf, Error> {
    let folder = workspace.output("peers")?;
    let step = ui.step("program for Linux");
    let mut command = cargo(workspace, "build");
    command
        .args(["--release", "--quiet", "--target", TARGET, "--target-dir"])
        .arg(folder.join("build"))
        .args(["--package", workspace.id(PROGRAM)])
        // There is no other file in its machine.
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .stdin(Stdio::null());
    let status = command.status().map_err(Error::spawn("cargo"))?;
    step.done(None);
    if !status.success() {
        return Err(Error::Command {
            program: "cargo build of the program for Linux".into(),
            status,
        });
    }
    let read = |path: PathBuf| std::fs::read(&path).map_err(Error::file("read", &path));
    let program = folder
        .join("build")
        .join(TARGET)
        .join("release")
        .join(PROGRAM);
    let mut archive = Archive::default();
    archive.folder("dev");
    archive.device("dev/console", CONSOLE);
    archive.folder("modules");
    let mut order = String::new();
    for path in &kernel.modules {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("modules/{name}"), &read(path.clone())?);
        order.push_str(&format!("{name}\n"));
    }
    archive.file("modules/order", order.as_bytes());
    archive.file("init", &read(program)?);
    let path = folder.join("linux.cpio");
    std::fs::write(&path, archive.finish()).map_err(Error::file("write", &path))?;
    Ok(path)
}

/// The figures of a run; if it did not come to its end, a sentence.
fn figures(transcript: &Transcript) -> Result<Figures, String> {
    let mut figures = Figures::new();
    let mut done = false;
    for (_, _, event) in &transcript.events {
        match event {
            Event::Metric { key, value } => match key.split_once('.') {
                None => {
                    let figure = Figure {
                        median: *value,
                        min: *value,
                        n: 1,
                        unit: INSTRUCTIONS.into(),
                    };
                    figures.insert(key.clone(), figure);
                }
                Some((row, "min")) => {
                    if let Some(figure) = figures.get_mut(row) {
                        figure.min = *value;
                    }
                }
                Some((row, "n")) => {
                    if let Some(figure) = figures.get_mut(row) {
                        figure.n = *value as u64;
                    }
                }
                Some(_) => {}
            },
            Event::Check { passed: true, .. } => done = true,
            Event::Check { detail, .. } => return Err(format!("Linux: {detail}")),
            _ => {}
        }
    }
    if done {
        return Ok(figures);
    }
    let lines = transcript.lines.iter().rev().take(5).rev();
    let last: Vec<&str> = lines.map(|line| line.text.as_str()).collect();
    Err(format!(
        "Linux stopped before it had measured all: {}",
        last.join(" / ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_that_came_to_its_end_has_figures() {
        let row = "linux| @metric assign 50000\nlinux| @metric assign.min 49000\nlinux| @metric assign.n 200\n";
        let read = |end: &str| figures(&Transcript::from_text(&format!("{row}{end}")));
        let taken = read("linux| @check rows pass").unwrap();
        let wanted = Figure {
            median: 50_000.0,
            min: 49_000.0,
            n: 200,
            unit: INSTRUCTIONS.into(),
        };
        assert_eq!(taken, [("assign".to_owned(), wanted)].into());
        assert!(
            read("Kernel panic - not syncing")
                .unwrap_err()
                .contains("panic")
        );
        assert!(
            read("linux| @check rows fail EBUSY")
                .unwrap_err()
                .contains("EBUSY")
        );
    }
}
