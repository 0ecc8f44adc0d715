//! The benchmark's rows on Linux with VFIO. This program is the first process
//! of a machine that has no other: it makes ready what VFIO needs, measures
//! ([`rows`]), says the figures on the serial line as the project's own
//! benchmark does, and powers off.
//!
//! `images` builds it, puts it into an initial file system with the kernel's
//! modules, and boots it (`./x bench --peers`).

mod row;
mod rows;
mod sys;
mod vfio;

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};
use std::ffi::CStr;
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::Path;
use vfio::Function;

/// Why there are no figures.
#[derive(Debug)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<rustix::io::Errno> for Failure {
    #[track_caller]
    fn from(error: rustix::io::Errno) -> Self {
        Self(format!("{error}, at {}", std::panic::Location::caller()))
    }
}

impl From<std::io::Error> for Failure {
    #[track_caller]
    fn from(error: std::io::Error) -> Self {
        Self(format!("{error}, at {}", std::panic::Location::caller()))
    }
}

/// A device without interrupt pin and without reset (QEMU's pci-testdev).
const PLAIN: (&str, &str) = ("0x1b36", "0x0005");
/// QEMU's teaching device.
const EDU: (&str, &str) = ("0x1234", "0x11e8");
/// The serial line.
const LINE: &str = "/dev/ttyS0";
/// Names of modules in the order in which they are to be loaded, one a line.
const MODULES: &str = "/modules/order";

/// Says a line, under this program's name.
pub fn say(text: &str) {
    if let Ok(mut line) = fs::OpenOptions::new().write(true).open(LINE) {
        // There is nobody else to tell.
        let _ = writeln!(line, "linux| {text}");
    }
}

fn main() {
    match run() {
        Ok(()) => say("@mark done"),
        Err(failure) => say(&format!("@check rows fail {failure}")),
    }
    // Only what is no first process may not; then there is nothing to switch off.
    let _ = reboot(RebootCommand::PowerOff);
}

fn run() -> Result<(), Failure> {
    for (folder, kind) in [("/dev", "devtmpfs"), ("/sys", "sysfs")] {
        fs::create_dir_all(folder)?;
        mount(kind, folder, kind, MountFlags::empty(), None::<&CStr>)?;
    }
    for name in fs::read_to_string(MODULES)?.lines() {
        let module = open(format!("/modules/{name}"), OFlags::RDONLY, Mode::empty())?;
        finit_module(&module, c"", 0)?;
    }
    rows::all(&take(PLAIN)?, &take(EDU)?)
}

/// Binds the function with these ids to VFIO.
fn take((vendor, device): (&str, &str)) -> Result<Function, Failure> {
    let bus = Path::new("/sys/bus/pci");
    for entry in fs::read_dir(bus.join("devices"))? {
        let folder = entry?.path();
        let is = |file: &str, value: &str| {
            fs::read_to_string(folder.join(file)).is_ok_and(|text| text.trim() == value)
        };
        if !is("vendor", vendor) || !is("device", device) {
            continue;
        }
        let name = file_name(&folder);
        fs::write(folder.join("driver_override"), "vfio-pci")?;
        fs::write(bus.join("drivers_probe"), &name)?;
        let group = file_name(&fs::read_link(folder.join("iommu_group"))?);
        return Ok(Function {
            name,
            group: format!("/dev/vfio/{group}"),
        });
    }
    Err(Failure(format!("no device {vendor}:{device}")))
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
