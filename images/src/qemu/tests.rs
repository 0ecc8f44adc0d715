//! QEMU's arguments, and when a machine is stopped.

use super::*;
use std::path::PathBuf;

fn describe(text: &str) -> Description {
    crate::description::read(text, Path::new("."), &["p".into()])
        .unwrap_or_else(|found| panic!("{found:?}"))
        .description
}

#[test]
fn the_machine_is_as_described() {
    let description = describe(
        "name = \"t\"\n[machine]\nmemory = \"1G\"\ncores = 4\nicount = true\ncpu = \"Nehalem\"\n\
         devices = [\"edu,addr=03.0\", \"virtio-blk-pci,drive=d\"]\n\
         objects = [\"rng-random,id=r,filename={disk:d}\"]\n\
         iommu = { address_bits = 48, caching_mode = true }\n\
         [[machine.disk]]\nid = \"d\"\nsize = 512\ncontent = \"zero\"\n",
    );
    let disk = Image {
        id: "d".into(),
        path: PathBuf::from("/a,b.img"),
        sha256: String::new(),
    };
    let kernel = BuiltKernel::example();
    let image = Path::new("I");
    let user = IommuDriver::User;
    let arguments = arguments(&description.machine, &kernel, user, image, &[disk]).join(" ");
    for words in [
        "-smp 4 -m 1024M -icount shift=0,sleep=off",
        "-cpu Nehalem",
        "-object rng-random,id=r,filename=/a,,b.img",
        "-drive if=none,id=d,format=raw,snapshot=on,file=/a,,b.img -device intel-iommu,intremap=on,aw-bits=48,caching-mode=on,device-iotlb=off -device edu,addr=03.0 -device virtio-blk-pci,drive=d -kernel K -initrd I -append disable_iommu",
    ] {
        assert!(arguments.contains(words), "{words}: {arguments}");
    }
    let without = describe("name = \"t\"\n[machine]\niommu = { present = false }\n");
    let driver = IommuDriver::Kernel;
    let arguments = super::arguments(&without.machine, &kernel, driver, image, &[]).join(" ");
    for absent in ["intel-iommu", "icount", "disable_iommu"] {
        assert!(!arguments.contains(absent), "{arguments}");
    }
}

#[test]
fn the_processor_has_what_the_kernel_needs() {
    let mut kernel = Config::default();
    assert_eq!(processor("Nehalem", &kernel), "Nehalem");
    kernel.set("HUGE_PAGE", true);
    kernel.set("XSAVE", true);
    kernel.set("XSAVE_FEATURE_SET", 7);
    let all = "Nehalem,+pdpe1gb,+xsave,+xsaveopt,+avx";
    assert_eq!(processor("Nehalem", &kernel), all);
    assert_eq!(processor("max", &kernel), "max");
    // What is said already is not said again, nor the contrary of it.
    let said = "Nehalem,+xsaveopt,-pdpe1gb,avx=on";
    assert_eq!(processor(said, &kernel), format!("{said},+xsave"));
    kernel.set("XSAVE", false);
    assert_eq!(processor("Nehalem", &kernel), "Nehalem,+pdpe1gb");
}

fn ending(text: &str, lines: &[&str], closed: bool) -> (Ending, Transcript) {
    let description = describe(text);
    let (sender, receiver) = channel();
    for line in lines {
        sender.send((Duration::ZERO, (*line).to_owned())).unwrap();
    }
    let kept = (!closed).then_some(sender);
    let mut transcript = Transcript::default();
    let ending = follow(
        &description,
        &receiver,
        Instant::now(),
        &mut transcript,
        &mut Host::default(),
        &mut |_| (),
    );
    drop(kept);
    (ending, transcript)
}

#[test]
fn a_hung_guest_ends_by_the_clock() {
    let text = "name = \"t\"\n[machine]\ntimeout = \"50ms\"\n";
    assert_eq!(ending(text, &["root| hello"], false).0, Ending::TimedOut);
    assert_eq!(ending(text, &["root| hello"], true).0, Ending::Exited);
    // The end was said, but the machine stays on.
    assert_eq!(ending(text, &["root| @end pass"], false).0, Ending::Stopped);
}

#[test]
fn a_run_that_cannot_pass_any_more_is_given_up() {
    let text = "name = \"t\"\n[machine]\ntimeout = \"1m\"\n\
         [[client]]\nname = \"a\"\nprogram = \"p\"\n\
         [[client]]\nname = \"b\"\nprogram = \"p\"\n\
         [[expect]]\npd = \"a\"\ncheck = \"c\"\n";
    let begin = Instant::now();
    let (ending, _) = ending(text, &["a| hello", "root| @gone a exit 1"], false);
    assert_eq!(ending, Ending::GivenUp);
    assert!(begin.elapsed() < 3 * HOPELESS);
}

#[test]
fn a_system_without_end_is_stopped_when_all_has_come() {
    let text = "name = \"t\"\n[machine]\ntimeout = \"1m\"\n[[client]]\nname = \"a\"\nprogram = \"p\"\n[[expect]]\npd = \"a\"\ncheck = \"c\"\n";
    let (ending, transcript) = ending(text, &["a| @check c pass", "a| more"], false);
    assert_eq!(ending, Ending::Stopped);
    assert_eq!(transcript.lines.len(), 1);
}

#[test]
fn lines_are_cut_where_they_end_or_grow_too_long() {
    let (sender, lines) = channel();
    let mut text = b"one\r\ntwo\n".to_vec();
    text.extend([b'x'; MAX_LINE + 10]);
    forward(text.as_slice(), Instant::now(), &sender);
    drop(sender);
    let lengths: Vec<usize> = lines.iter().map(|(_, line)| line.len()).collect();
    assert_eq!(lengths, [4, 3, MAX_LINE, 10]);
}
