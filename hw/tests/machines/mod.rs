//! ACPI tables of real machines, from the data folder.

use std::path::Path;

/// All tables with this signature: machine (and file, if it has several), and bytes; in order.
pub fn tables(folder: &Path, signature: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = folder
        .join("acpi")
        .read_dir()
        .unwrap()
        .flat_map(|machine| machine.unwrap().path().read_dir().unwrap())
        .map(|file| file.unwrap().path())
        .filter(|file| {
            let name = file.file_name().unwrap().to_str().unwrap();
            name.starts_with(signature)
        })
        .collect();
    files.sort();
    let read = |file: &std::path::PathBuf| {
        let machine = file.parent().unwrap().file_name().unwrap();
        let file_name = file.file_name().unwrap();
        let name = format!("{}/{}", machine.display(), file_name.display());
        (name, std::fs::read(file).unwrap())
    };
    files.iter().map(read).collect()
}
