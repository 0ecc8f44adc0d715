//! Every dump of real machines: 100 % equal or explained.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod data_folder;

use compare::report::Report;
use compare::{compare, lspci};
use data_folder::say;

#[test]
fn every_reading_of_real_machines_is_lspcis_or_explained() {
    let Some(folder) = data_folder::find("comparison with lspci") else {
        return;
    };
    match lspci::version() {
        Ok(version) => say(&version),
        Err(error) => return say(&format!("comparison with lspci: skipped: {error}")),
    }
    let mut dumps: Vec<_> = folder
        .join("pci")
        .read_dir()
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|file| file.extension().is_some_and(|name| name == "hex"))
        .collect();
    dumps.sort();
    let mut report = Report::default();
    for dump in dumps {
        let regions = Some(dump.with_extension("regions.tsv")).filter(|file| file.exists());
        report.add(compare(&dump, regions.as_deref()).unwrap());
    }
    say(&report.to_string());
    let total = report.total();
    assert!(total.compared() > 0);
    assert_eq!(total.unexplained, 0);
}
