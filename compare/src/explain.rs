//! [`RULES`]: the reasons for which the two readings of a field may differ. Each is
//! about registers, never about a dump or a device.

use hw::bar::{Register, Space};
use hw::capability::{CapabilityError, WalkFault, id};
use hw::header::{HeaderError, Layout, register};

use crate::field::Place;
use crate::ours::{Capability, Function};
use crate::report::{Class, Explained, FunctionResult};
use crate::text::{END, EXTENDED_END};

/// A field of which there are two readings, or one that only one side has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// Where.
    pub place: Place,
    /// Which field.
    pub what: String,
    /// `hw`'s reading.
    pub ours: Option<String>,
    /// lspci's reading.
    pub theirs: Option<String>,
}

impl Difference {
    /// A difference.
    #[must_use]
    pub fn new(place: Place, what: &str, ours: Option<String>, theirs: Option<String>) -> Self {
        Self {
            place,
            what: what.to_owned(),
            ours,
            theirs,
        }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |reading: &Option<String>| match reading {
            Some(text) => format!("\"{text}\""),
            None => "nothing".to_owned(),
        };
        let (ours, theirs) = (shown(&self.ours), shown(&self.theirs));
        write!(
            f,
            "{} {}: hw says {ours}, lspci {theirs}",
            self.place, self.what
        )
    }
}

/// Why two readings may differ.
pub struct Rule {
    /// What it is called.
    pub name: &'static str,
    /// Why both readings are what they have to be.
    pub reason: &'static str,
    applies: fn(&Function, &Difference) -> bool,
}

/// All rules; the first that applies explains a difference.
pub static RULES: [Rule; 21] = [
    Rule {
        name: "lspci gives up",
        reason: "lspci stops with an error of its own at this function",
        applies: |_, difference| difference.what == "lspci",
    },
    Rule {
        name: "header cut",
        reason: "the dump has less than the 64 bytes of a header: lspci does not decode it, hw reads what is missing as ones",
        applies: |function, _| function.bytes.len() < 64,
    },
    Rule {
        name: "CardBus header cut",
        reason: "a CardBus bridge's header has 128 bytes and the dump has fewer: lspci stops in the middle of it, hw reads what is missing as ones",
        applies: |function, difference| {
            difference.theirs.is_none()
                && layout(function) == Some(Layout::CardBus)
                && function.bytes.len() < 128
        },
    },
    Rule {
        name: "no function",
        reason: "vendor ids 0 and ffff belong to nobody: hw finds no function, lspci prints what it would be",
        applies: |function, _| {
            use HeaderError::{Absent, NotReady, Vanished, VendorZero};
            matches!(
                function.header,
                Err(Absent | NotReady | VendorZero | Vanished)
            )
        },
    },
    Rule {
        name: "unknown header",
        reason: "the header type is not defined: hw decodes nothing else, lspci prints Interrupt all the same",
        applies: |function, difference| {
            matches!(function.header, Err(HeaderError::UnknownLayout(_)))
                && difference.what == "Interrupt"
        },
    },
    Rule {
        name: "reserved value",
        reason: "a field of the capability has a value that the specification reserves: hw refuses the capability, lspci prints the value",
        applies: |function, difference| {
            refusal(function, difference, |error| {
                matches!(error, CapabilityError::Reserved { .. })
            })
        },
    },
    Rule {
        name: "beyond the end",
        reason: "registers of the capability pass the end of the space that its list lives in: hw refuses the capability",
        applies: |function, difference| {
            refusal(function, difference, |error| {
                matches!(error, CapabilityError::BeyondEnd { .. })
            })
        },
    },
    Rule {
        name: "capability cut",
        reason: "the dump ends within the capability: lspci leaves out what it cannot read, hw reads ones",
        applies: |function, difference| {
            let is_left_out = |text: &str| text.is_empty() || text.contains("unreadable");
            difference.theirs.as_deref().is_none_or(is_left_out)
                && capability(function, difference)
                    .is_some_and(|found| found.is_cut || is_near_end(function, found))
        },
    },
    Rule {
        name: "pointer into the header",
        reason: "a capability pointer leads outside the space for capabilities (below 40h, or 100h): hw ends the list there, lspci decodes the header's registers as a capability and goes on",
        applies: |function, difference| {
            let strays = |fault| matches!(fault, Some(WalkFault::OutOfRange { .. }));
            let is_extended =
                matches!(difference.place, Place::Extended(_)) || difference.what == EXTENDED_END;
            let strays = strays(function.fault) || is_extended && strays(function.extended_fault);
            // A bridge's subsystem is a capability.
            let is_about_lists =
                ["capability", "Subsystem", END, EXTENDED_END].contains(&difference.what.as_str());
            strays && is_about_lists && difference.ours.is_none()
        },
    },
    Rule {
        name: "more capabilities than kept",
        reason: "the extended list is longer than any known function's: hw keeps its first 64",
        applies: |function, difference| {
            matches!(function.extended_fault, Some(WalkFault::TooMany { .. }))
                && (difference.what == "capability" || difference.what.starts_with("end of"))
        },
    },
    Rule {
        name: "no title",
        reason: "lspci knows PCI-X of endpoints and of bridges, and prints nothing for that of a CardBus bridge",
        applies: |function, difference| {
            difference.what == "capability"
                && difference.theirs.as_deref() == Some("")
                && layout(function) == Some(Layout::CardBus)
        },
    },
    Rule {
        name: "port type in doubt",
        reason: "there are several PCI Express capabilities, or hw refuses the one there is: hw goes by the first that it takes, lspci by the last, when root registers of error reporting are looked for",
        applies: |function, difference| {
            let mut express = function.capabilities.iter().filter(|found| {
                matches!(found.place, Place::Capability(_)) && found.id == u16::from(id::EXPRESS)
            });
            let only = express.next().filter(|_| express.next().is_none());
            // lspci may find another one where a stray pointer leads.
            let strays = matches!(function.fault, Some(WalkFault::OutOfRange { .. }));
            let in_doubt = strays || only.is_none_or(|found| found.error.is_some());
            let registers = ["RootCmd", "RootSta", "ErrorSrc"];
            in_doubt
                && matches!(difference.place, Place::Extended(_))
                && registers
                    .iter()
                    .any(|label| difference.what.starts_with(label))
        },
    },
    Rule {
        name: "upper half",
        reason: "lspci -F prints the upper half of a 64-bit BAR as a region of its own if it is not zero",
        applies: |function, difference| {
            difference.ours.is_none()
                && matches!(bar(function, difference), Some(Register::UpperHalf))
        },
    },
    Rule {
        name: "faulty BAR",
        reason: "the register's type is reserved, or it is 64 bits wide in the last place: hw reports a fault instead of a region",
        applies: |function, difference| {
            difference.ours.is_none()
                && matches!(bar(function, difference), Some(Register::Faulty(_)))
        },
    },
    Rule {
        name: "ports of virtual functions",
        reason: "a BAR of virtual functions has the bit of IO ports, which they cannot have: hw says so, lspci takes the register for memory, and of 64 bits if its type bits say so",
        applies: |function, difference| {
            matches!(difference.place, Place::Extended(_))
                && difference.what.starts_with("Region ")
                && function
                    .bars
                    .get(&difference.place)
                    .is_some_and(|registers| {
                        registers.iter().any(|register| {
                            matches!(
                                register,
                                Register::Region {
                                    space: Space::Io,
                                    ..
                                }
                            )
                        })
                    })
        },
    },
    Rule {
        name: "ROM of all ones",
        reason: "the expansion ROM register reads all ones: hw finds none, lspci prints it as ignored",
        applies: |function, difference| {
            difference.what == "Expansion ROM" && difference.ours.is_none() && {
                let register = layout(function).and_then(Layout::rom_register);
                register.is_some_and(|offset| word(function, offset) == u32::MAX)
            }
        },
    },
    Rule {
        name: "window of zeros",
        reason: "base and limit of the bridge's window read zero: it is not implemented or not set up, and hw holds it closed; lspci prints it as open from 0",
        applies: |_, difference| {
            let zeros = ["0-fff", "0-fffff", "0-3", "0-fff, prefetchable"];
            let closed = ["closed", "closed, prefetchable"];
            is_window(difference)
                && difference
                    .ours
                    .as_deref()
                    .is_some_and(|text| closed.contains(&text))
                && difference
                    .theirs
                    .as_deref()
                    .is_some_and(|text| zeros.contains(&text))
        },
    },
    Rule {
        name: "window of unknown type",
        reason: "the type bits of base and limit differ or are reserved: lspci does not decode the window, hw takes the base's",
        applies: |_, difference| {
            is_window(difference) && difference.theirs.as_deref() == Some("unknown")
        },
    },
    Rule {
        name: "low bits of a CardBus window",
        reason: "the low twelve bits of base and limit of a CardBus bridge's memory window are reserved: hw masks them, lspci does not",
        applies: |function, difference| {
            let window = difference.what.strip_prefix("Memory window ");
            let window = window.and_then(|index| index.parse::<u16>().ok());
            window.is_some_and(|index| {
                let base = register::CARDBUS_MEMORY + 8 * index;
                (word(function, base) | word(function, base + 4)) & 0xfff != 0
            })
        },
    },
    Rule {
        name: "interrupt pin",
        reason: "the interrupt pin register names no pin (above 4): hw says that there is none",
        applies: |function, difference| {
            difference.what == "Interrupt"
                && function
                    .bytes
                    .get(usize::from(register::INTERRUPT_PIN))
                    .is_some_and(|pin| *pin > 4)
        },
    },
    Rule {
        name: "speeds after pciutils 3.9",
        reason: "versions of lspci know speeds up to 32, 64 or 128 GT/s, and not all give 128 GT/s the encoding 7",
        applies: |_, difference| {
            let speeds = [
                "LnkCap Speed",
                "LnkSta Speed",
                "LnkCap2 Supported Link Speeds",
                "LnkCtl2 Target Link Speed",
            ];
            let starts = |reading: &Option<String>, words: &[&str]| {
                let reading = reading.as_deref().unwrap_or("");
                words.iter().any(|word| reading.starts_with(word))
            };
            let fast = ["2.5-64", "2.5-128", "64GT/s", "128GT/s"];
            let unknown = ["RsvdP", "unknown", "Unknown"];
            let (ours, theirs) = (&difference.ours, &difference.theirs);
            speeds.contains(&difference.what.as_str())
                && (starts(ours, &fast) && starts(theirs, &unknown)
                    || starts(ours, &unknown) && starts(theirs, &["128GT/s"]))
        },
    },
];

/// Counts a difference as explained or not.
pub fn settle(
    function: &Function,
    difference: Difference,
    class: Class,
    result: &mut FunctionResult,
) {
    let rule = RULES
        .iter()
        .find(|rule| (rule.applies)(function, &difference));
    match rule {
        Some(rule) => {
            result.count(class).explained += 1;
            result.explained.push(Explained { rule, difference });
        }
        None => {
            result.count(class).unexplained += 1;
            result.unexplained.push(difference);
        }
    }
}

fn capability<'f>(function: &'f Function, difference: &Difference) -> Option<&'f Capability> {
    let mut capabilities = function.capabilities.iter();
    capabilities.find(|capability| capability.place == difference.place)
}

/// hw refuses the capability that the difference is about. A bridge's subsystem is one.
fn refusal(
    function: &Function,
    difference: &Difference,
    is_meant: fn(&CapabilityError) -> bool,
) -> bool {
    let refused = match difference.what.as_str() {
        "registers" => capability(function, difference),
        "Subsystem" if difference.ours.is_none() => {
            let mut all = function.capabilities.iter();
            all.find(|found| {
                matches!(found.place, Place::Capability(_))
                    && found.id == u16::from(id::BRIDGE_SUBSYSTEM)
            })
        }
        _ => None,
    };
    let error = refused.and_then(|capability| capability.error);
    error.is_some_and(|error| is_meant(&error))
}

fn layout(function: &Function) -> Option<Layout> {
    function.header.ok().map(|header| header.layout)
}

fn word(function: &Function, offset: u16) -> u32 {
    let start = usize::from(offset);
    let bytes = function.bytes.get(start..start + 4);
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(u32::MAX, u32::from_le_bytes)
}

/// lspci reads whole groups of registers, up to the longest capability's length.
fn is_near_end(function: &Function, capability: &Capability) -> bool {
    let (Place::Capability(offset) | Place::Extended(offset)) = capability.place else {
        return false;
    };
    usize::from(offset) + 0x40 > function.bytes.len()
}

/// What the register holds that a difference about `Region n` is about.
fn bar(function: &Function, difference: &Difference) -> Option<Register> {
    let index: usize = difference.what.strip_prefix("Region ")?.parse().ok()?;
    let registers = function.bars.get(&difference.place)?;
    registers.get(index).copied()
}

fn is_window(difference: &Difference) -> bool {
    difference.what.ends_with(" behind bridge") || difference.what.contains(" window ")
}
