//! The memory routines against the obvious ones, at every size, alignment and overlap that takes another path.

#[path = "../src/memory.rs"]
mod memory;

/// Past three blocks of 64 bytes, with every remainder.
const SIZES: std::ops::Range<usize> = 0..200;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 37 + 11) as u8).collect()
}

#[test]
fn copies_are_exact_and_touch_nothing_else() {
    let from = pattern(256);
    for size in SIZES {
        for (from_at, to_at) in [(0, 0), (1, 0), (0, 3), (5, 7)] {
            for down in [false, true] {
                let mut to = vec![0xee; 256];
                let mut expected = to.clone();
                expected[to_at..to_at + size].copy_from_slice(&from[from_at..from_at + size]);
                let (to_ptr, from_ptr) = (to[to_at..].as_mut_ptr(), from[from_at..].as_ptr());
                // SAFETY: both vectors are longer than offset and size together, and they are different ones.
                unsafe {
                    if down {
                        memory::copy_down(to_ptr, from_ptr, size);
                    } else {
                        memory::copy_up(to_ptr, from_ptr, size);
                    }
                }
                assert_eq!(
                    to, expected,
                    "size {size} from {from_at} to {to_at} down {down}"
                );
            }
        }
    }
}

#[test]
fn overlaps_are_right_in_both_directions() {
    for size in SIZES {
        for distance in [0, 1, 2, 3, 7, 8, 9, 15, 16, 63, 64, 65] {
            for up in [true, false] {
                let mut bytes = pattern(300);
                let mut expected = bytes.clone();
                let (to, from) = if up {
                    (8, 8 + distance)
                } else {
                    (8 + distance, 8)
                };
                expected.copy_within(from..from + size, to);
                let base = bytes.as_mut_ptr();
                // SAFETY: offsets, distance and size together stay below 300.
                unsafe {
                    if up {
                        memory::copy_up(base.add(to), base.add(from), size);
                    } else {
                        memory::copy_down(base.add(to), base.add(from), size);
                    }
                }
                assert_eq!(bytes, expected, "size {size} distance {distance} up {up}");
            }
        }
    }
}

#[test]
fn fills_are_exact_and_touch_nothing_else() {
    for size in SIZES {
        for at in [0, 1, 7] {
            let mut bytes = pattern(256);
            let mut expected = bytes.clone();
            expected[at..at + size].fill(0xa5);
            // SAFETY: offset and size together stay below 256.
            unsafe { memory::fill(bytes[at..].as_mut_ptr(), 0xa5, size) };
            assert_eq!(bytes, expected, "size {size} at {at}");
        }
    }
}

#[test]
fn comparisons_follow_the_first_difference() {
    let left = pattern(200);
    for size in SIZES {
        let same = left.clone();
        // SAFETY: both are 200 bytes long.
        let order = unsafe { memory::compare(left.as_ptr(), same.as_ptr(), size) };
        assert_eq!(order, 0, "size {size}");
        for at in 0..size {
            let mut right = left.clone();
            right[at] = right[at].wrapping_add(1);
            // What follows must not matter.
            right[at + 1..].fill(0);
            // SAFETY: both are 200 bytes long.
            let order = unsafe { memory::compare(left.as_ptr(), right.as_ptr(), size) };
            assert_eq!(
                order.signum(),
                left[..size].cmp(&right[..size]) as i32,
                "size {size} at {at}"
            );
        }
    }
}
