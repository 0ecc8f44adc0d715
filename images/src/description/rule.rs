//! [`Rule`]: every rule that a system description can break, with the stable
//! code and name under which messages and tests speak of it.

/// How bad a broken rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The description is refused.
    Error,
    /// The description is accepted; its author may have meant something else.
    Warning,
}

/// Declares the rules: variant, code, name, meaning.
macro_rules! rules {
    ($($variant:ident $code:literal $name:literal $meaning:literal;)*) => {
        /// A rule of the system description.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Rule {
            $(#[doc = $meaning] $variant,)*
        }

        impl Rule {
            /// Every rule, in order of their codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Code that never changes: `E` or `W` and three digits.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// Name that never changes.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What the rule says.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

rules! {
    Syntax "E001" "syntax" "The file is TOML.";
    UnknownKey "E002" "unknown-key" "Every key is one that the table has.";
    MissingKey "E003" "missing-key" "Keys without a default are there.";
    WrongType "E004" "wrong-type" "A value has its key's type.";
    BadName "E005" "bad-name" "A name is 1 to 24 lower-case letters, digits and hyphens, and begins with a letter.";
    ReservedName "E006" "reserved-name" "No client bears the name of a server.";
    DuplicateName "E007" "duplicate-name" "Clients, channels, and disks differ in their names.";
    OutOfRange "E008" "out-of-range" "A number lies within its bounds.";
    BadSize "E009" "bad-size" "A size is a number of bytes or a text such as \"512M\" or \"16 MiB\", in the steps its key takes.";
    BadDuration "E010" "bad-duration" "A duration is a number of seconds or a text such as \"90s\" or \"2m\".";
    BadChoice "E011" "bad-choice" "A value that is one of a few words is one of them.";
    TooLong "E012" "too-long" "A list or text is not longer than the compiled form holds.";
    BadDeviceRule "E013" "bad-device-rule" "A device rule has exactly one of address, ids and class.";
    BadAddress "E014" "bad-address" "A device address reads ssss:bb:dd.f in hexadecimal.";
    BadIds "E015" "bad-ids" "Device ids read vvvv:dddd in hexadecimal.";
    BadClass "E016" "bad-class" "A class reads cc, cc:ss or cc:ss:pp in hexadecimal.";
    DuplicateDevice "E017" "duplicate-device" "A list of device rules names no device twice.";
    SharedDevice "E018" "shared-device" "An address is granted to one client, unless every rule with it says shared = true.";
    WithheldDevice "E019" "withheld-device" "No client is granted an address that is withheld.";
    UnknownProgram "E020" "unknown-program" "A client's program is a package under drivers/.";
    UnknownClient "E021" "unknown-client" "A client that is spoken of is one of the description; an expectation may speak of root, too.";
    DuplicateExpect "E022" "duplicate-expect" "A check is expected once.";
    BadExpect "E023" "bad-expect" "An expectation names either checks of a PD or metrics.";
    BadEquals "E024" "bad-equals" "What a check's detail must equal reads disk:<id>:sha256.";
    UnknownDisk "E025" "unknown-disk" "A disk that is spoken of is declared.";
    BadContent "E026" "bad-content" "A disk has a file if, and only if, its content is \"file\"; the file exists.";
    BadQemuDevice "E027" "bad-qemu-device" "A device or object for QEMU reads driver,key=value,...";
    DuplicateSlot "E028" "duplicate-slot" "Two devices of the machine do not sit at the same address of the same bus.";
    QuotaAbovePool "E029" "quota-above-pool" "A client's DMA quota is not larger than the pool, nor the pool than half the memory.";
    NoSuchCore "E030" "no-such-core" "A client runs on a core that the machine has.";
    NeverEnds "E031" "never-ends" "A system that ends when its clients have finished has a client that finishes.";
    BadOption "E032" "bad-option" "Options that exclude each other are not combined.";
    BadStep "E034" "bad-step" "A step has either a command for QEMU, in JSON with `execute`, or something to compare.";
    BadChannel "E035" "bad-channel" "A channel is between two different clients.";
    UnusedDisk "W001" "unused-disk" "A disk is the drive of a device of the machine.";
    AbsentDevice "W002" "absent-device" "A device granted by its address on bus 0 is one of the machine's devices.";
}

impl Rule {
    /// Error or warning, as the code's letter says.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::UnusedDisk | Self::AbsentDevice => Severity::Warning,
            _ => Severity::Error,
        }
    }
}

impl core::fmt::Display for Rule {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} {}", self.code(), self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_unique_and_say_the_severity() {
        for (index, rule) in Rule::ALL.iter().enumerate() {
            let letter = match rule.severity() {
                Severity::Error => 'E',
                Severity::Warning => 'W',
            };
            assert!(rule.code().starts_with(letter), "{rule}");
            for other in &Rule::ALL[index + 1..] {
                assert_ne!(rule.code(), other.code());
                assert_ne!(rule.name(), other.name());
            }
        }
    }
}
