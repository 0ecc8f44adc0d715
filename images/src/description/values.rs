//! Values that are written as text: names, sizes, durations, device rules.

use super::rule::Rule;
use hw::Sbdf;
use std::time::Duration;
use system::model::{DeviceMatch, MAX_NAME};

/// Why a text is not a value of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The rule.
    pub rule: Rule,
    /// What is wrong.
    pub message: String,
}

impl Wrong {
    fn new(rule: Rule, message: impl Into<String>) -> Self {
        Self {
            rule,
            message: message.into(),
        }
    }
}

/// Names of PDs that the root task starts itself, and of others that print.
const RESERVED: [&str; 4] = ["root", "kernel", "host", "qemu"];
/// Beginnings of the servers' names; a shard's has its number behind it.
const RESERVED_STEMS: [&str; 5] = [
    "console",
    "timer",
    "pci-server",
    "iommu-server",
    "msi-server",
];

/// Checks a name: of a system, a client, a disk, a program.
///
/// # Errors
/// Anything but 1 to [`MAX_NAME`] lower-case letters, digits and hyphens after a letter.
pub fn name(text: &str) -> Result<&str, Wrong> {
    let wrong = |message: String| Err(Wrong::new(Rule::BadName, message));
    if text.is_empty() || text.len() > MAX_NAME {
        return wrong(format!(
            "a name has 1 to {MAX_NAME} characters, this has {}",
            text.chars().count()
        ));
    }
    if !text.starts_with(|first: char| first.is_ascii_lowercase()) {
        return wrong("a name begins with a lower-case letter".into());
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match text.chars().find(|&c| !allowed(c)) {
        Some(c) => wrong(format!(
            "a name has lower-case letters, digits and hyphens, not `{c}`"
        )),
        None => Ok(text),
    }
}

/// Checks a client's name.
///
/// # Errors
/// As [`name`], and names of servers: no client may be taken for one in the log.
pub fn client_name(text: &str) -> Result<&str, Wrong> {
    let text = name(text)?;
    let is_server = |stem: &str| {
        text.strip_prefix(stem)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    if RESERVED.contains(&text) || RESERVED_STEMS.iter().any(|stem| is_server(stem)) {
        return Err(Wrong::new(
            Rule::ReservedName,
            format!("`{text}` is the name of a part of the system"),
        ));
    }
    Ok(text)
}

/// Bytes that a text such as `4096`, `64K`, `512M`, `16 MiB` or `1GiB` means: units are powers of 1,024.
///
/// # Errors
/// Another form, or more than 2^63 bytes.
pub fn size(text: &str) -> Result<u64, Wrong> {
    let wrong = || {
        Wrong::new(
            Rule::BadSize,
            format!("`{text}` is not a size such as 4096, \"64K\" or \"16 MiB\""),
        )
    };
    let (number, unit) = split_unit(text);
    let shift = match unit {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return Err(wrong()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|&bytes| bytes < 1 << 63)
        .ok_or_else(wrong)
}

/// A number of bytes as [`size`] reads it, in the largest unit that divides it.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    match bytes.trailing_zeros() {
        _ if bytes == 0 => "0".into(),
        30.. => format!("{}G", bytes >> 30),
        20.. => format!("{}M", bytes >> 20),
        10.. => format!("{}K", bytes >> 10),
        _ => bytes.to_string(),
    }
}

/// Time that a text such as `90`, `90s`, `2m` or `500ms` means.
///
/// # Errors
/// Another form, zero, or more than a day.
pub fn duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = || {
        Wrong::new(
            Rule::BadDuration,
            format!("`{text}` is not a duration such as 90, \"90s\" or \"2m\", at most a day"),
        )
    };
    let (number, unit) = split_unit(text);
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        _ => return Err(wrong()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(milliseconds))
        .filter(|&total| (1..=24 * 60 * 60_000).contains(&total))
        .map(Duration::from_millis)
        .ok_or_else(wrong)
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

/// The function at `ssss:bb:dd.f` or `bb:dd.f`.
///
/// # Errors
/// Another form, a device above 1f, a function above 7.
pub fn address(text: &str) -> Result<Sbdf, Wrong> {
    text.parse::<Sbdf>()
        .map_err(|error| Wrong::new(Rule::BadAddress, format!("`{text}`: {error}")))
}

/// The rule for `vvvv:dddd`.
///
/// # Errors
/// Another form.
pub fn ids(text: &str) -> Result<DeviceMatch, Wrong> {
    let parse = || {
        let (vendor, device) = text.split_once(':')?;
        Some(DeviceMatch::Ids {
            vendor: hex(vendor, 4)? as u16,
            device: hex(device, 4)? as u16,
        })
    };
    parse().ok_or_else(|| {
        Wrong::new(
            Rule::BadIds,
            format!("`{text}` is not of the form vvvv:dddd, four hexadecimal digits each"),
        )
    })
}

/// The rule for `cc` (a base class), `cc:ss` (with its subclass) or `cc:ss:pp` (with its programming interface).
///
/// # Errors
/// Another form.
pub fn class(text: &str) -> Result<DeviceMatch, Wrong> {
    let parse = || {
        let parts: Vec<u32> = text
            .split(':')
            .map(|part| hex(part, 2))
            .collect::<Option<_>>()?;
        match *parts.as_slice() {
            [class] => Some((class << 16, 0xff_0000)),
            [class, sub] => Some((class << 16 | sub << 8, 0xff_ff00)),
            [class, sub, interface] => Some((class << 16 | sub << 8 | interface, 0xff_ffff)),
            _ => None,
        }
    };
    parse()
        .map(|(class, mask)| DeviceMatch::Class { class, mask })
        .ok_or_else(|| {
            Wrong::new(
                Rule::BadClass,
                format!(
                    "`{text}` is not of the form cc, cc:ss or cc:ss:pp, two hexadecimal digits each"
                ),
            )
        })
}

/// Exactly `digits` hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u32> {
    if text.len() != digits || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_powers_of_1024() {
        for (text, bytes) in [
            ("4096", 4096),
            ("64K", 64 << 10),
            ("512M", 512 << 20),
            ("16 MiB", 16 << 20),
            ("1GiB", 1 << 30),
            ("0", 0),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "M",
            "-1",
            "1.5M",
            "1MB",
            "1 TiB",
            "9223372036854775808",
            "8589934592G",
        ] {
            assert_eq!(size(text).unwrap_err().rule, Rule::BadSize, "{text}");
        }
    }

    #[test]
    fn durations_have_a_unit_or_are_seconds() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("90 s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "0", "1h", "1441m", "fast"] {
            assert_eq!(
                duration(text).unwrap_err().rule,
                Rule::BadDuration,
                "{text}"
            );
        }
    }

    #[test]
    fn device_rules_mean_what_lspci_prints() {
        assert_eq!(
            ids("1234:11e8"),
            Ok(DeviceMatch::Ids {
                vendor: 0x1234,
                device: 0x11e8
            })
        );
        assert_eq!(
            class("01:08"),
            Ok(DeviceMatch::Class {
                class: 0x01_0800,
                mask: 0xff_ff00
            })
        );
        assert_eq!(
            class("01:08:02"),
            Ok(DeviceMatch::Class {
                class: 0x01_0802,
                mask: 0xff_ffff
            })
        );
        assert_eq!(
            class("02"),
            Ok(DeviceMatch::Class {
                class: 0x02_0000,
                mask: 0xff_0000
            })
        );
        assert_eq!(ids("1234:11e").unwrap_err().rule, Rule::BadIds);
        assert_eq!(class("1:8").unwrap_err().rule, Rule::BadClass);
        assert_eq!(address("0000:00:20.0").unwrap_err().rule, Rule::BadAddress);
    }

    #[test]
    fn no_client_can_pass_for_a_server() {
        for text in ["root", "console", "pci-server", "pci-server-1", "kernel"] {
            assert_eq!(
                client_name(text).unwrap_err().rule,
                Rule::ReservedName,
                "{text}"
            );
        }
        assert_eq!(client_name("console2"), Ok("console2"));
        for text in [
            "",
            "Edu",
            "9p",
            "a_b",
            "a|b",
            "a-name-that-is-much-too-long",
        ] {
            assert_eq!(client_name(text).unwrap_err().rule, Rule::BadName, "{text}");
        }
    }
}
