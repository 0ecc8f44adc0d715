//! Compiles the generated accessors and runs them against bit patterns that
//! were worked out by hand.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use sel4_gen::bitfield;

/// Each kind of field: plain, whole word, an address that is sign-extended, an
/// address that is not, one at a word's top and one at its bottom, and a union.
const DESCRIPTION: &str = "
base 64(49,1)
block kernel_cap(where, kind, flag, word) {
    field word 64
    field kind 5
    padding 9
    field flag 1
    field_high where 49
}
block low_end {
    field_high list 47
    padding 13
    field state 4
}
base 64(51,0)
block entry {
    field xd 1
    padding 12
    field_high page 39
    padding 11
    field present 1
}
block small_entry { field_high page 30 padding 33 field large 1 }
block large_entry { field_high page 21 padding 42 field large 1 }
tagged_union table large { tag small_entry 0 tag large_entry 1 }
base 32
block flags { field high 8 padding 8 field low 16 }
";

const PROGRAM: &str = r##"
#include <stdio.h>
#include "generated.h"
static int failures;
static void expect(const char *what, unsigned long long got, unsigned long long wanted) {
    if (got != wanted) { failures++; printf("%s: %llx, not %llx\n", what, got, wanted); }
}
#define EXPECT(got, wanted) expect(#got, (got), (wanted))
int main(int argc, char **argv) {
    (void)argv;
    /* Arguments come in the listed order; a kernel address fills the upper bits. */
    kernel_cap_t cap = kernel_cap_new(0xffffff8012345678ull, 21, 1, 0xdeadbeef00000001ull);
    EXPECT(cap.words[0], 0xa803ff8012345678ull);
    EXPECT(cap.words[1], 0xdeadbeef00000001ull);
    EXPECT(kernel_cap_get_where(cap), 0xffffff8012345678ull);
    EXPECT(kernel_cap_get_kind(cap), 21);
    EXPECT(kernel_cap_get_flag(cap), 1);
    EXPECT(kernel_cap_get_word(cap), 0xdeadbeef00000001ull);
    cap = kernel_cap_set_where(cap, 0x00007ffffffff000ull);
    EXPECT(kernel_cap_get_where(cap), 0x00007ffffffff000ull);
    EXPECT(kernel_cap_get_kind(cap), 21);
    kernel_cap_ptr_set_kind(&cap, 3);
    EXPECT(kernel_cap_ptr_get_kind(&cap), 3);
    EXPECT(kernel_cap_ptr_get_where(&cap), 0x00007ffffffff000ull);
    EXPECT(kernel_cap_set_flag(cap, 0).words[0], 0x18007ffffffff000ull);
    kernel_cap_t other;
    kernel_cap_ptr_new(&other, 0, 1, 0, ~0ull);
    EXPECT(other.words[0], 0x0800000000000000ull);
    EXPECT(other.words[1], ~0ull);

    /* The upper 47 of 49 bits, at the word's top: the two lowest bits are gone. */
    low_end_t end = low_end_new(0xffffff8000000104ull, 9);
    EXPECT(end.words[0], 0xffc0000000820009ull);
    EXPECT(low_end_get_list(end), 0xffffff8000000104ull);
    end = low_end_set_state(end, 0);
    EXPECT(low_end_get_list(end), 0xffffff8000000104ull);
    low_end_ptr_set_list(&end, 0);
    EXPECT(end.words[0], 0);

    /* A physical address keeps its place and is not sign-extended. */
    entry_t entry = entry_new(1, 0x0007fffffffff000ull, 1);
    EXPECT(entry.words[0], 0x8007fffffffff001ull);
    EXPECT(entry_get_page(entry), 0x0007fffffffff000ull);
    EXPECT(entry_get_xd(entry), 1);

    /* The tag is set by the constructor and asserted by the accessors. */
    table_t table = table_large_entry_new(0x40000000ull);
    EXPECT(table_get_large(table), table_large_entry);
    EXPECT(table_large_equals(table, table_large_entry), 1);
    EXPECT(table_large_equals(table, table_small_entry), 0);
    EXPECT(table_large_entry_get_page(table), 0x40000000ull);
    table_small_entry_ptr_new(&table, 0x200000ull);
    EXPECT(table_ptr_get_large(&table), 0);
    EXPECT(table_small_entry_ptr_get_page(&table), 0x200000ull);

    flags_t flags = flags_new(0xab, 0xcdef);
    EXPECT(sizeof flags, 4);
    EXPECT(flags.words[0], 0xab00cdef);
    if (failures) return 1;
    /* Each of these breaks an assertion. */
    switch (argc) {
    case 2: kernel_cap_set_kind(cap, 32); break;
    case 3: kernel_cap_new(0x0000ff8012345678ull | 1ull << 49, 0, 0, 0); break;
    case 4: low_end_ptr_set_list(&end, 1); break;
    case 5: entry_set_page(entry, 0x800); break;
    case 6: entry_set_page(entry, 1ull << 51); break;
    case 7: table_large_entry_get_page(table); break;
    case 8: flags_new(0x100, 0); break;
    }
    return 0;
}
"##;

fn run(binary: &PathBuf, arguments: usize) -> (ExitStatus, String) {
    let output = Command::new(binary)
        .args(vec!["x"; arguments])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status, text)
}

#[test]
fn generated_accessors_keep_their_bits() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bitfield");
    std::fs::create_dir_all(&folder).unwrap();
    let header = bitfield::header(DESCRIPTION, "GENERATED_H").unwrap();
    std::fs::write(folder.join("generated.h"), header).unwrap();
    // Stand-ins for the kernel headers that the generated one includes; with the
    // real attributes the compiler drops the calls whose assertions must fail.
    std::fs::write(folder.join("util.h"), "#define CONST\n#define PURE\n").unwrap();
    std::fs::write(folder.join("config.h"), "").unwrap();
    std::fs::write(folder.join("main.c"), PROGRAM).unwrap();
    let binary = folder.join("main");
    let compiled = Command::new("gcc")
        .args(["-O0", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(&folder)
        .arg("-o")
        .arg(&binary)
        .arg(folder.join("main.c"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&compiled.stderr);
    assert!(compiled.status.success(), "{errors}");
    let (status, text) = run(&binary, 0);
    assert!(status.success(), "{text}");
    for case in 1..=7 {
        let (status, text) = run(&binary, case);
        assert!(!status.success(), "assertion {case} did not fail: {text}");
    }
}
