//! Runs an image in QEMU and gathers what it prints.
//!
//! The machine ends by itself (the root task writes to `isa-debug-exit`), or
//! when everything expected has come, or when its time is over. Only the
//! process started here is ever stopped.

use crate::build::{self, Bootable};
use crate::description::machine::{Machine, MachineType};
use crate::description::{Description, placeholders};
use crate::disk::Image;
use crate::error::Error;
use crate::host::{self, Done, Host};
use crate::judge::{Ending, is_settled, lacking};
use crate::kernel::BuiltKernel;
use crate::transcript::{Event, Line, Transcript};
use sel4_gen::{Config, IommuDriver};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use system::model::End;

const PROGRAM: &str = "qemu-system-x86_64";
/// After its last word the machine may take this long to power off.
const POWER_OFF: Duration = Duration::from_secs(5);
/// A system that cannot pass any more is left so long to show what else there is.
pub const HOPELESS: Duration = Duration::from_secs(5);
/// Longest piece of a line that is kept together.
const MAX_LINE: usize = 8192;
/// Most that is kept of QEMU's own words.
const MAX_STDERR: u64 = 64 << 10;

/// A run that is over.
#[derive(Clone, Debug)]
pub struct Run {
    /// What was printed.
    pub transcript: Transcript,
    /// How it stopped.
    pub ending: Ending,
    /// From start to end.
    pub took: Duration,
    /// QEMU's own words.
    pub stderr: String,
    /// What came of the host's steps.
    pub done: Vec<Done>,
}

/// QEMU's arguments for a machine with this kernel, image and disks. The kernel leaves the IOMMU alone
/// unless it is the `driver`.
#[must_use]
pub fn arguments(
    machine: &Machine,
    kernel: &BuiltKernel,
    driver: IommuDriver,
    image: &Path,
    disks: &[Image],
) -> Vec<String> {
    let mut arguments = hardware(machine, &kernel.config, disks);
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(ToString::to_string));
    add(&[
        "-kernel",
        &kernel.multiboot.to_string_lossy(),
        "-initrd",
        &image.to_string_lossy(),
    ]);
    match driver {
        IommuDriver::User => add(&["-append", "disable_iommu"]),
        IommuDriver::Kernel => {}
    }
    arguments
}

/// The part of the arguments that says what the machine is made of. Its processor has what a kernel of this
/// configuration needs.
#[must_use]
pub fn hardware(machine: &Machine, kernel: &Config, disks: &[Image]) -> Vec<String> {
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(ToString::to_string));
    add(&["-machine", machine_type(machine.kind)]);
    // One thread for all cores: with several, the emulated IOMMU and APICs are not reliable.
    add(&["-accel", "tcg,thread=single"]);
    add(&["-cpu", &processor(&machine.cpu, kernel)]);
    add(&["-smp", &machine.cores.to_string()]);
    add(&["-m", &format!("{}M", machine.memory >> 20)]);
    for domain in 0..machine.domains {
        let part = (machine.memory >> 20) / u64::from(machine.domains);
        let object = format!("memory-backend-ram,id=domain{domain},size={part}M");
        let node = format!("node,nodeid={domain},memdev=domain{domain}");
        add(&["-object", &object, "-numa", &node]);
    }
    if machine.icount {
        add(&["-icount", "shift=0,sleep=off"]);
    }
    add(&["-vga", "none", "-nic", "none", "-display", "none"]);
    add(&["-monitor", "none", "-serial", "stdio", "-no-reboot"]);
    add(&["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    if machine.kind == MachineType::Q35 {
        // Else the firmware's hot-plug is on and the ports' own is not: they say that no card is there.
        add(&["-global", NATIVE_HOT_PLUG]);
    }
    for global in &machine.globals {
        add(&["-global", &global.value]);
    }
    for object in &machine.objects {
        add(&["-object", &with_disks(&object.value, disks)]);
    }
    for disk in disks {
        // Writes go to a temporary file: the next run finds the disk as it was made.
        let path = escape(&disk.path.to_string_lossy());
        add(&[
            "-drive",
            &format!("if=none,id={},format=raw,snapshot=on,file={path}", disk.id),
        ]);
    }
    // Before the devices that it is to serve.
    if let Some(iommu) = iommu(machine) {
        add(&["-device", &iommu]);
    }
    for device in &machine.devices {
        add(&["-device", &with_disks(&device.value, disks)]);
    }
    arguments
}

/// Cards are plugged in as PCI Express says, by the port's slot registers.
const NATIVE_HOT_PLUG: &str = "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off";

/// The interrupt controllers are QEMU's own: only those work with its IOMMU.
const fn machine_type(kind: MachineType) -> &'static str {
    match kind {
        MachineType::Q35 => "q35,kernel-irqchip=off",
        MachineType::Pc => "pc,kernel-irqchip=off",
    }
}

/// QEMU's processor that has everything.
const EVERYTHING: &str = "max";
/// Options of the kernel, and what each takes of a processor, in QEMU's words: without it the kernel
/// stops before it says a word. A processor that is older than XSAVE hangs in QEMU 7.2 if it is given that alone.
const FEATURES: [(&str, &str); 4] = [
    ("HUGE_PAGE", "pdpe1gb"),
    ("FSGSBASE_INST", "fsgsbase"),
    ("XSAVE", "xsave"),
    ("XSAVE", "xsaveopt"),
];
/// AVX in the kernel's option `XSAVE_FEATURE_SET` (Intel SDM volume 1, 13.1).
const AVX: u64 = 1 << 2;

/// The processor with what the kernel needs; what the description says of a feature holds.
fn processor(cpu: &str, kernel: &Config) -> String {
    if cpu == EVERYTHING {
        return cpu.to_owned();
    }
    let avx = kernel.number("XSAVE_FEATURE_SET").unwrap_or(0) & AVX != 0;
    let needed = FEATURES
        .into_iter()
        .filter(|(option, _)| kernel.is_defined(option))
        .map(|(_, feature)| feature)
        .chain((kernel.is_defined("XSAVE") && avx).then_some("avx"));
    let mut processor = cpu.to_owned();
    for feature in needed {
        let named = cpu.split(',').skip(1).any(|word| {
            let word = word.trim_start_matches(['+', '-']);
            word.split('=').next() == Some(feature)
        });
        if !named {
            processor.push_str(",+");
            processor.push_str(feature);
        }
    }
    processor
}

fn iommu(machine: &Machine) -> Option<String> {
    let iommu = machine.iommu;
    let on = |flag| if flag { "on" } else { "off" };
    iommu.present.then(|| {
        format!(
            "intel-iommu,intremap={},aw-bits={},caching-mode={},device-iotlb={}",
            on(iommu.interrupt_remapping),
            iommu.address_bits,
            on(iommu.caching_mode),
            on(iommu.device_iotlb)
        )
    })
}

/// QEMU takes `,,` in a value for a comma.
fn escape(text: &str) -> String {
    text.replace(',', ",,")
}

/// The text with the paths of disks in place of `{disk:<id>}`.
fn with_disks(text: &str, disks: &[Image]) -> String {
    let mut replaced = text.to_owned();
    for id in placeholders(text) {
        if let Some(disk) = disks.iter().find(|disk| disk.id == id) {
            let path = escape(&disk.path.to_string_lossy());
            replaced = replaced.replace(&format!("{{disk:{id}}}"), &path);
        }
    }
    replaced
}

/// A process that is stopped when it is dropped.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a description and shows each line to `on_line` as it comes.
///
/// # Errors
/// QEMU cannot be started, or refuses its arguments.
pub fn run(
    description: &Description,
    bootable: &Bootable,
    on_line: &mut dyn FnMut(&Line),
) -> Result<Run, Error> {
    let arguments = arguments(
        &description.machine,
        &bootable.kernel,
        build::iommu_driver(description),
        &bootable.image,
        &bootable.disks,
    );
    boot(description, arguments, on_line)
}

/// Runs QEMU with these arguments, as long as a description says, and does the description's steps.
///
/// # Errors
/// As [`run`].
pub fn boot(
    description: &Description,
    mut arguments: Vec<String>,
    on_line: &mut dyn FnMut(&Line),
) -> Result<Run, Error> {
    let socket = host::socket(&description.steps).map_err(Error::spawn(PROGRAM))?;
    arguments.extend(socket.iter().flat_map(|socket| socket.arguments()));
    let start = Instant::now();
    let mut child = Owned(
        Command::new(PROGRAM)
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::spawn(PROGRAM))?,
    );
    let (sender, lines) = channel();
    if let Some(stdout) = child.0.stdout.take() {
        std::thread::spawn(move || forward(stdout, start, &sender));
    }
    let stderr = child.0.stderr.take().map(|stderr| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // What was read before an error is all there is to show.
            let _ = stderr.take(MAX_STDERR).read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    });
    let mut transcript = Transcript::default();
    let mut host = Host::new(&description.steps, socket, || {
        matches!(child.0.try_wait(), Ok(Some(_)))
    })?;
    let ending = follow(
        description,
        &lines,
        start,
        &mut transcript,
        &mut host,
        on_line,
    );
    let took = start.elapsed();
    let status = match ending {
        Ending::Exited => child.0.wait().ok(),
        _ => None,
    };
    drop(child);
    let stderr = stderr
        .and_then(|thread| thread.join().ok())
        .unwrap_or_default();
    refused(status, &transcript, &stderr)?;
    Ok(Run {
        transcript,
        ending,
        took,
        stderr,
        done: host.into_done(),
    })
}

/// A machine that printed nothing while QEMU said something never ran.
fn refused(status: Option<ExitStatus>, transcript: &Transcript, stderr: &str) -> Result<(), Error> {
    match status {
        Some(status) if transcript.lines.is_empty() && !stderr.trim().is_empty() => {
            Err(Error::Qemu {
                status,
                said: stderr.trim().to_owned(),
            })
        }
        _ => Ok(()),
    }
}

/// Takes lines in until the run is over.
fn follow(
    description: &Description,
    lines: &Receiver<(Duration, String)>,
    start: Instant,
    transcript: &mut Transcript,
    host: &mut Host<'_>,
    on_line: &mut dyn FnMut(&Line),
) -> Ending {
    let mut deadline = start + description.machine.timeout;
    let mut over = false;
    let mut hopeless: Option<Instant> = None;
    loop {
        let until = hopeless.map_or(deadline, |at| deadline.min(at + HOPELESS));
        let left = until.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok((at, text)) => {
                if let Some(line) = transcript.push(at, &text) {
                    on_line(line);
                }
                host.follow(transcript);
                if !over && transcript.ended() {
                    over = true;
                    deadline = deadline.min(Instant::now() + POWER_OFF);
                }
                // The lines of several PDs may come out of order: what is lacking may still come.
                let gone = matches!(transcript.events.last(), Some((_, _, Event::Gone { .. })));
                if gone || hopeless.is_some() {
                    let lacks = lacking(description, transcript).is_some();
                    hopeless = lacks.then(|| hopeless.unwrap_or_else(Instant::now));
                }
                if description.system.end == End::Never && is_settled(description, transcript) {
                    return Ending::Stopped;
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ending::Exited,
            // The last word has been said: a machine that does not power off is stopped.
            Err(RecvTimeoutError::Timeout) if over => return Ending::Stopped,
            Err(RecvTimeoutError::Timeout) if hopeless.is_some() => return Ending::GivenUp,
            Err(RecvTimeoutError::Timeout) => return Ending::TimedOut,
        }
    }
}

/// Sends each line with its time, until the other end closes.
fn forward(mut from: impl Read, start: Instant, to: &Sender<(Duration, String)>) {
    let mut chunk = [0; 4096];
    let mut line: Vec<u8> = Vec::new();
    let send = |line: &mut Vec<u8>| {
        let text = String::from_utf8_lossy(line).into_owned();
        line.clear();
        to.send((start.elapsed(), text)).is_ok()
    };
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        for &byte in chunk.iter().take(count) {
            if byte != b'\n' {
                line.push(byte);
            }
            let full = byte == b'\n' || line.len() >= MAX_LINE;
            if full && !send(&mut line) {
                return;
            }
        }
    }
    if !line.is_empty() {
        send(&mut line);
    }
}

#[cfg(test)]
mod tests;
