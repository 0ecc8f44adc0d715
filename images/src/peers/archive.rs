//! [`Archive`]: an initial file system for Linux, in the format `newc`
//! (Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`).

/// File types and permissions (`stat.h`).
const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;
/// The name that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// An archive that grows.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a folder; those above it come first.
    pub fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER, (0, 0), &[]);
    }

    /// Adds a file that may be run.
    pub fn file(&mut self, name: &str, contents: &[u8]) {
        self.entry(name, PROGRAM, (0, 0), contents);
    }

    /// Adds a character device with these numbers.
    pub fn device(&mut self, name: &str, numbers: (u32, u32)) {
        self.entry(name, CHARACTER_DEVICE, numbers, &[]);
    }

    /// The archive, with its end.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.entries += 1;
        // No program of this machine has a file so long.
        let length = u32::try_from(contents.len()).unwrap_or(u32::MAX);
        let name_length = name.len() as u32 + 1;
        self.bytes.extend(b"070701");
        // Number, mode, owner and group, links, time, length, device, device that it is, length of the name, sum.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            length,
            0,
            0,
            device.0,
            device.1,
        ];
        for field in fields.into_iter().chain([name_length, 0]) {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_of_the_format() {
        let mut archive = Archive::default();
        archive.folder("dev");
        archive.device("dev/console", (5, 1));
        archive.file("init", b"hello");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        // Read it back as the kernel does: fields of eight digits behind a magic of six.
        let mut at = 0;
        let mut seen = Vec::new();
        while at < bytes.len() {
            let header = std::str::from_utf8(&bytes[at..at + 110]).unwrap();
            assert!(header.starts_with("070701"));
            let field = |n: usize| u32::from_str_radix(&header[6 + 8 * n..14 + 8 * n], 16).unwrap();
            let (mode, length, name_length) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(bytes[at + 110..at + 109 + name_length].to_vec()).unwrap();
            let from = (at + 110 + name_length).next_multiple_of(4);
            let contents = bytes[from..from + length].to_vec();
            seen.push((name, mode, (field(9), field(10)), contents));
            at = (from + length).next_multiple_of(4);
        }
        let wanted = [
            ("dev", 0o040_755, (0, 0), b"".as_slice()),
            ("dev/console", 0o020_600, (5, 1), b""),
            ("init", 0o100_755, (0, 0), b"hello"),
            ("TRAILER!!!", 0, (0, 0), b""),
        ];
        let seen: Vec<_> = seen
            .iter()
            .map(|(name, mode, device, contents)| {
                (name.as_str(), *mode, *device, contents.as_slice())
            })
            .collect();
        assert_eq!(seen, wanted);
    }
}
