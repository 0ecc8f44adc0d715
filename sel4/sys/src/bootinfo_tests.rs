//! Boot information of both layouts, whole and with one field broken at a time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate std;

use std::string::ToString;
use std::vec::Vec;

use super::*;

const PACKED: Layout = Layout {
    cnode_bits_offset: 136,
    cnode_bits_is_byte: true,
    domain_offset: 137,
    tsc_mhz_offset: Some(145),
    untyped_offset: 153,
    list_offset: 169,
    entry_bytes: 12,
    entry_size_bits_offset: 10,
    entry_device_offset: 11,
    max_untypeds: 230,
    root_cnode_bits: 16,
    max_nodes: 4,
};

const ALIGNED: Layout = Layout {
    cnode_bits_is_byte: false,
    domain_offset: 144,
    tsc_mhz_offset: None,
    untyped_offset: 152,
    list_offset: 168,
    entry_bytes: 16,
    entry_size_bits_offset: 8,
    entry_device_offset: 9,
    ..PACKED
};

struct Frame(Vec<u8>, Layout);

impl Frame {
    fn put(&mut self, offset: usize, value: Word) {
        self.0[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn error(&self) -> BootInfoError {
        BootInfo::parse(&self.0, &self.1).unwrap_err()
    }

    fn entry(&self, index: usize) -> usize {
        self.1.list_offset + index * self.1.entry_bytes
    }
}

/// What a kernel with two untypeds writes.
fn good(layout: Layout) -> Frame {
    let mut frame = Frame(std::vec![0; FRAME_BYTES], layout);
    frame.put(16, 1);
    frame.put(32, 0x50_0000);
    for (offset, start, end) in [(40, 0x200, 0x1_0000), (72, 12, 0x100), (88, 0x100, 0x104)] {
        frame.put(offset, start);
        frame.put(offset + 8, end);
    }
    frame.0[layout.cnode_bits_offset] = 16;
    if let Some(offset) = layout.tsc_mhz_offset {
        frame.put(offset, 2600);
    }
    frame.put(layout.untyped_offset, 0x104);
    frame.put(layout.untyped_offset + 8, 0x106);
    for (index, physical, bits, device) in [(0, 0x10_0000, 20, 0), (1, 0xfed0_0000, 12, 1)] {
        let at = frame.entry(index);
        frame.put(at, physical);
        frame.0[at + layout.entry_size_bits_offset] = bits;
        frame.0[at + layout.entry_device_offset] = device;
    }
    frame
}

#[test]
fn both_layouts_are_read_alike() {
    for layout in [PACKED, ALIGNED] {
        let frame = good(layout);
        let info = BootInfo::parse(&frame.0, &layout).unwrap();
        assert_eq!(
            (info.node, info.nodes, info.cnode_bits, info.domain),
            (0, 1, 16, 0)
        );
        assert_eq!(info.tsc_mhz, layout.tsc_mhz_offset.map(|_| 2600));
        assert_eq!(
            (info.empty.clone(), info.user_image_frames.clone()),
            (0x200..0x1_0000, 12..0x100)
        );
        let untypeds: Vec<_> = info.untypeds().collect();
        let ram = UntypedDescriptor {
            slot: 0x104,
            physical: 0x10_0000,
            size_bits: 20,
            kind: MemoryKind::Ram,
        };
        let device = UntypedDescriptor {
            slot: 0x105,
            physical: 0xfed0_0000,
            size_bits: 12,
            kind: MemoryKind::Device,
        };
        assert_eq!(untypeds, [ram, device]);
    }
}

#[test]
fn the_other_kernels_layout_is_refused() {
    assert!(BootInfo::parse(&good(PACKED).0, &ALIGNED).is_err());
    assert!(BootInfo::parse(&good(ALIGNED).0, &PACKED).is_err());
}

#[test]
fn every_broken_field_is_named() {
    type Break = fn(&mut Frame);
    let broken: [(&str, Word, Break); 14] = [
        ("numNodes", 0, |f| f.put(16, 0)),
        ("numNodes", 5, |f| f.put(16, 5)),
        ("nodeID", 1, |f| f.put(8, 1)),
        ("initThreadCNodeSizeBits", 17, |f| f.0[136] = 17),
        ("ipcBuffer", 0x50_0200, |f| f.put(32, 0x50_0200)),
        ("ipcBuffer", 0, |f| f.put(32, 0)),
        ("extraLen", Word::MAX, |f| f.put(0, Word::MAX)),
        ("numIOPTLevels", 7, |f| f.put(24, 7)),
        ("empty", 0x1_0001, |f| f.put(48, 0x1_0001)),
        ("userImageFrames", 3, |f| f.put(72, 3)),
        ("userImagePaging", 0x1000, |f| f.put(88, 0x1000)),
        ("untyped", 231, |f| {
            f.put(f.1.untyped_offset + 8, 0x104 + 231)
        }),
        ("untyped", 0, |f| f.put(f.1.untyped_offset + 8, 0x104)),
        ("userImageFrames", 12, |f| f.put(80, 0x300)),
    ];
    for (field, value, break_it) in broken {
        for layout in [PACKED, ALIGNED] {
            let mut frame = good(layout);
            break_it(&mut frame);
            let error = frame.error();
            assert_eq!((error.field, error.value), (field, value), "{error}");
        }
    }
}

#[test]
fn every_broken_untyped_is_named_with_its_number() {
    for layout in [PACKED, ALIGNED] {
        let broken: [(&str, Word, usize, u8); 4] = [
            ("untypedList.sizeBits", 3, layout.entry_size_bits_offset, 3),
            (
                "untypedList.sizeBits",
                48,
                layout.entry_size_bits_offset,
                48,
            ),
            ("untypedList.isDevice", 2, layout.entry_device_offset, 2),
            ("untypedList.paddr", 0xfed0_0010, 0, 0x10),
        ];
        for (field, value, offset, byte) in broken {
            let mut frame = good(layout);
            let at = frame.entry(1) + offset;
            frame.0[at] = byte;
            let error = frame.error();
            assert_eq!(
                (error.field, error.index, error.value),
                (field, Some(1), value),
                "{error}"
            );
        }
    }
}

#[test]
fn an_untyped_beyond_the_kernels_window_is_aligned_to_the_window_only() {
    for layout in [PACKED, ALIGNED] {
        let mut frame = good(layout);
        let at = frame.entry(1);
        frame.put(at, 1 << 39);
        frame.0[at + layout.entry_size_bits_offset] = 46;
        frame.0[at + layout.entry_device_offset] = 1;
        assert!(BootInfo::parse(&frame.0, &layout).is_ok());
        frame.put(at, 1 << 38);
        frame.0[at + layout.entry_size_bits_offset] = 46;
        frame.0[at + layout.entry_device_offset] = 1;
        assert_eq!(frame.error().field, "untypedList.paddr");
    }
}

#[test]
fn a_kernel_without_an_iommu_driver_has_no_levels() {
    for layout in [PACKED, ALIGNED] {
        let mut frame = good(layout);
        frame.put(24, Word::MAX);
        let info = BootInfo::parse(&frame.0, &layout).unwrap();
        assert_eq!(info.io_page_table_levels, 0);
    }
}

#[test]
fn the_message_names_field_value_and_rule() {
    let mut frame = good(PACKED);
    frame.put(8, 9);
    assert_eq!(
        frame.error().to_string(),
        "boot information: nodeID is 0x9, but it must be below numNodes; was the root task built for this kernel?"
    );
}

#[test]
fn a_frame_cut_short_is_an_error_at_every_length() {
    let frame = good(PACKED);
    let needed = frame.entry(2);
    for length in 0..needed {
        assert!(
            BootInfo::parse(&frame.0[..length], &PACKED).is_err(),
            "{length}"
        );
    }
    assert!(BootInfo::parse(&frame.0[..needed], &PACKED).is_ok());
}

#[test]
fn extra_chunks_end_at_a_length_that_cannot_be_right() {
    let mut bytes = Vec::new();
    for (id, content) in [(3u64, &b"RSD PTR "[..]), (5, &[1, 2, 3, 4])] {
        bytes.extend(id.to_le_bytes());
        bytes.extend((16 + content.len() as u64).to_le_bytes());
        bytes.extend(content);
    }
    let whole: Vec<_> = extra_chunks(&bytes).collect();
    assert_eq!(whole.len(), 2);
    assert_eq!(
        whole[0],
        ExtraChunk {
            id: extra::X86_ACPI_RSDP,
            content: b"RSD PTR "
        }
    );
    for bad in [0u64, 15, 1000, u64::MAX] {
        bytes[8..16].copy_from_slice(&bad.to_le_bytes());
        assert_eq!(extra_chunks(&bytes).count(), 0, "{bad}");
    }
}
