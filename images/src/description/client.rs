//! Reads `[[client]]` and device rules into the compiled form.

use super::rule::Rule;
use super::section::{Placed, Section};
use super::values::{self, bytes};
use std::ops::Range;
use system::layout::priority;
use system::model::{self, DeviceMatch, MAX_ARGS, MAX_RULES};

/// Stack when the description says nothing, in bytes.
const DEFAULT_STACK: u64 = 64 << 10;
/// Untyped memory for a client's own objects when the description says nothing: 2^bits bytes.
const DEFAULT_UNTYPED_BITS: u8 = 18;
/// Slots of a grant window when the description says nothing: 2^bits.
const DEFAULT_WINDOW_BITS: u8 = 10;
/// Making one takes less than a million instructions.
const DEFAULT_LARGEST_BUFFER: u64 = 2 << 20;
/// Interrupt vectors that the kernel has for messages, on all cores together (seL4 5.0.0, x86-64).
pub const VECTORS: u64 = 108;
/// Most interrupts a second that a client may be bounded to: the server's clock counts microseconds.
const INTERRUPT_RATE: u64 = 1_000_000;

/// A client, with the places that later rules point at.
pub struct Client {
    /// Compiled form.
    pub model: model::Client,
    /// A sentence about it, for the report.
    pub about: Option<String>,
    /// Where its name is.
    pub name: Range<usize>,
    /// Its program and where that is said.
    pub program: Placed<String>,
    /// Where its DMA quota is said.
    pub dma_quota: Option<Range<usize>>,
    /// Where its reserved vectors are said.
    pub reserved: Option<Range<usize>>,
    /// Where its core is said.
    pub core: Option<Range<usize>>,
    /// Its device rules.
    pub devices: Vec<DeviceRule>,
}

/// A device rule with its place.
pub struct DeviceRule {
    /// Which devices.
    pub device: DeviceMatch,
    /// As the file has it.
    pub text: String,
    /// May other clients be granted the same address?
    pub shared: bool,
    /// Where it is.
    pub span: Range<usize>,
}

/// Reads one `[[client]]`. `None`: it lacks what no default can give.
pub fn read(mut section: Section<'_, '_>) -> Option<Client> {
    let name = section.parsed("name", values::client_name);
    if name.is_none() {
        section.missing_unless_wrong("name");
    }
    let program = section.parsed("program", values::name);
    if program.is_none() {
        section.missing_unless_wrong("program");
    }
    let about = section.text("about").map(|text| text.value.to_owned());
    let args = section.text("args");
    let args = args.map_or_else(heapless::String::new, |args| {
        heapless::String::try_from(args.value).unwrap_or_else(|_| {
            section.findings().add(
                Rule::TooLong,
                args.span,
                format!(
                    "`args` has at most {MAX_ARGS} bytes, these are {}",
                    args.value.len()
                ),
            );
            heapless::String::new()
        })
    });
    let priority = section.number("priority", 1..=u64::from(priority::CLIENT_MAX));
    let core = section.number("core", 0..=super::machine::MAX_CORES - 1);
    let stack = section.size("stack", 4096, 4096..=4 << 20);
    let untyped = section.power_of_two("untyped", 12..=26);
    let window = section.power_of_two("window", 4..=16);
    let dma_quota = section.size("dma_quota", 4096, 0..=1 << 40);
    let largest = section.size("largest_buffer", 4096, 4096..=1 << 40);
    let dma = dma_quota.as_ref().map_or(0, |quota| quota.value);
    if let Some(largest) = largest.as_ref().filter(|largest| largest.value > dma) {
        section.findings().add(
            Rule::OutOfRange,
            largest.span.clone(),
            format!(
                "`largest_buffer` is {}, of a `dma_quota` of {}",
                bytes(largest.value),
                bytes(dma)
            ),
        );
    }
    let vectors = section.number("vectors", 0..=VECTORS);
    let reserved = section.number("reserved_vectors", 0..=VECTORS);
    let rate = section.number("interrupt_rate", 1..=INTERRUPT_RATE);
    let quota = vectors.as_ref().map_or(0, |vectors| vectors.value);
    if let Some(reserved) = reserved.as_ref().filter(|reserved| reserved.value > quota) {
        section.findings().add(
            Rule::OutOfRange,
            reserved.span.clone(),
            format!(
                "`reserved_vectors` is {}, of {quota} `vectors`",
                reserved.value
            ),
        );
    }
    let finish = section.flag("finish").is_some_and(|flag| flag.value);
    let inspect = section.flag("inspect").is_some_and(|flag| flag.value);
    let admin = section.flag("admin").is_some_and(|flag| flag.value);
    let may_fault = section.flag("may_fault").is_some_and(|flag| flag.value);
    let devices: Vec<DeviceRule> = section
        .tables("devices", "a device rule", |section| {
            read_device_rule(section, Sharing::Allowed)
        })
        .into_iter()
        .flatten()
        .collect();
    let compiled = bounded(&mut section, "devices", &devices);
    section.finish();
    let (name, program) = (name?, program?);
    Some(Client {
        model: model::Client {
            name: heapless::String::try_from(name.value).ok()?,
            program: heapless::String::try_from(program.value).ok()?,
            args,
            priority: priority.map_or(priority::CLIENT_DEFAULT, |value| value.value as u8),
            core: core.as_ref().map_or(0, |core| core.value as u8),
            stack_pages: (stack.map_or(DEFAULT_STACK, |stack| stack.value) / 4096) as u16,
            untyped_bits: untyped.map_or(DEFAULT_UNTYPED_BITS, |bits| bits.value),
            window_bits: window.map_or(DEFAULT_WINDOW_BITS, |bits| bits.value),
            dma_quota: dma_quota.as_ref().map_or(0, |quota| quota.value),
            largest_buffer: largest.map_or(DEFAULT_LARGEST_BUFFER, |size| size.value),
            vectors: vectors.map_or(0, |vectors| vectors.value as u16),
            reserved_vectors: reserved
                .as_ref()
                .map_or(0, |reserved| reserved.value as u16),
            interrupt_rate: rate.map_or(0, |rate| rate.value as u32),
            devices: compiled,
            inspect,
            admin,
            must_finish: finish,
            may_fault,
        },
        about,
        name: name.span,
        program: program.map(str::to_owned),
        dma_quota: dma_quota.map(|quota| quota.span),
        reserved: reserved.map(|reserved| reserved.span),
        core: core.map(|core| core.span),
        devices,
    })
}

/// Can a rule of this list say `shared`?
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Yes: rules of a client.
    Allowed,
    /// No: rules that withhold.
    Meaningless,
}

/// Reads a device rule: `{ address = ... }`, `{ ids = ... }` or `{ class = ... }`.
pub fn read_device_rule(mut section: Section<'_, '_>, sharing: Sharing) -> Option<DeviceRule> {
    let mut found = Vec::new();
    let mut wrong = false;
    for key in ["address", "ids", "class"] {
        let Some(text) = section.text(key) else {
            wrong |= section.has(key);
            continue;
        };
        let parsed = text.map(|text| {
            let device = match key {
                "address" => values::address(text).map(|at| DeviceMatch::Address(at.to_bits())),
                "ids" => values::ids(text),
                _ => values::class(text),
            };
            device.map(|device| (device, text.to_owned()))
        });
        match section.accept(parsed) {
            Some(rule) => found.push(rule.value),
            None => wrong = true,
        }
    }
    let shared = match sharing {
        Sharing::Allowed => section.flag("shared").is_some_and(|flag| flag.value),
        Sharing::Meaningless => false,
    };
    let span = section.span();
    if found.len() != 1 && !wrong {
        section.findings().add(
            Rule::BadDeviceRule,
            span.clone(),
            "a device rule has exactly one of `address`, `ids` and `class`",
        );
    }
    section.finish();
    match found.pop() {
        Some((device, text)) if found.is_empty() && !wrong => Some(DeviceRule {
            device,
            text,
            shared,
            span,
        }),
        _ => None,
    }
}

/// The rules in compiled form; too many of them, or the same one twice, is noted.
pub fn bounded(
    section: &mut Section<'_, '_>,
    key: &str,
    rules: &[DeviceRule],
) -> heapless::Vec<DeviceMatch, MAX_RULES> {
    let mut compiled = heapless::Vec::new();
    for rule in rules {
        if compiled.contains(&rule.device) {
            section.findings().add(
                Rule::DuplicateDevice,
                rule.span.clone(),
                format!("`{}` is in this list twice", rule.text),
            );
        } else if compiled.push(rule.device).is_err() {
            section.findings().add(
                Rule::TooLong,
                rule.span.clone(),
                format!("`{key}` has at most {MAX_RULES} rules"),
            );
            break;
        }
    }
    compiled
}
