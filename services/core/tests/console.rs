//! The console as its PDs and the reader of the serial line see it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;

use ipc_proto::console::{FlushReply, Request, dispatch};
use ipc_proto::log::{LINE_BYTES, Line, LogRing, RING_TEXT};
use ipc_proto::{Badge, BadgeKind, Refusal, Rule};
use proptest::prelude::*;
use services_core::console::{Assembler, Console, Output, Ports, TURN_BYTES, Uart};

#[derive(Clone, Default)]
struct Wire(Rc<RefCell<Vec<u8>>>);

impl Output for Wire {
    fn put(&mut self, byte: u8) {
        self.0.borrow_mut().push(byte);
    }
}

impl Wire {
    /// The lines so far, which are taken.
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.take()).unwrap();
        assert!(text.is_empty() || text.ends_with("\r\n"));
        text.split_terminator("\r\n").map(String::from).collect()
    }
}

fn write(ring: &LogRing, text: &str) -> bool {
    let mut line = Line::new();
    line.write_str(text).unwrap();
    ring.write(line.finish())
}

fn flush<O: Output>(console: &mut Console<'_, O>, pd: u16) -> Result<FlushReply, Refusal> {
    let badge = Badge::plain(BadgeKind::Pd, pd).to_word();
    FlushReply::decode(&dispatch(console, badge, &Request::Flush {}.encode()).unwrap())
}

proptest! {
    #[test]
    fn no_bytes_forge_a_line_or_reach_the_terminal(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..8)) {
        let (mut assembler, mut wire) = (Assembler::new(), Wire::default());
        for piece in &pieces {
            assembler.push("evil", piece, &mut wire);
        }
        assembler.finish("evil", &mut wire);
        let bytes = pieces.concat();
        prop_assert!(wire.0.borrow().iter().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n')));
        let mut shown = 0;
        for line in wire.lines() {
            let text = line.strip_prefix("evil| ").unwrap();
            prop_assert!(text.len() < LINE_BYTES && !text.contains(['\r', '\n']));
            shown += text.len();
        }
        // Nothing is swallowed but the ends of lines.
        prop_assert_eq!(shown, bytes.iter().filter(|byte| **byte != b'\n').count());
    }

    #[test]
    fn printable_lines_come_out_as_they_went_in(texts in prop::collection::vec("[ -~]{0,255}", 0..20)) {
        let (ring, wire) = (LogRing::new(), Wire::default());
        let mut console = Console::new([("a", &ring)].into_iter(), wire.clone());
        for text in &texts {
            prop_assert!(write(&ring, text));
        }
        while console.turn() {}
        let wanted: Vec<String> = texts.iter().map(|text| format!("a| {text}")).collect();
        prop_assert_eq!(wire.lines(), wanted);
    }
}

#[test]
fn escape_sequences_and_other_names_stay_text() {
    let (ring, wire) = (LogRing::new(), Wire::default());
    let mut console = Console::new([("evil", &ring)].into_iter(), wire.clone());
    assert!(ring.write(b"a\rroot| @end pass\n\x1b[2J\x9b\x00\ttab\xc3\xa9\n"));
    console.turn();
    assert_eq!(
        wire.lines(),
        ["evil| a?root| @end pass", "evil| ?[2J?? tab??"]
    );
}

#[test]
fn a_flooding_pd_delays_another_by_one_turn_at_most() {
    let (loud, quiet, wire) = (LogRing::new(), LogRing::new(), Wire::default());
    let mut console = Console::new(
        [("loud", &loud), ("quiet", &quiet)].into_iter(),
        wire.clone(),
    );
    while write(&loud, "0123456789012345678901234567890") {}
    assert!(write(&quiet, "here"));
    assert!(console.turn());
    let lines = wire.lines();
    // One of the loud lines is the notice of what was lost.
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("loud| 0"))
            .count(),
        TURN_BYTES / 32
    );
    assert!(lines.contains(&"quiet| here".to_string()));
    assert!(loud.pending() > 0);
}

#[test]
fn lost_text_is_told_once() {
    let (ring, wire) = (LogRing::new(), Wire::default());
    let mut console = Console::new([("a", &ring)].into_iter(), wire.clone());
    while ring.write(&[b'x'; 100]) {}
    ring.write(b"0123456789");
    while console.turn() {}
    assert!(write(&ring, "after"));
    console.turn();
    let lines = wire.lines();
    assert_eq!(lines.iter().filter(|line| line.contains("lost")).count(), 1);
    assert!(
        lines.contains(&"a| [100 bytes of text were lost]".to_string()),
        "{lines:?}"
    );
    assert!(lines.last().unwrap().ends_with("x0123456789after"));
}

#[test]
fn a_flush_writes_all_of_the_callers_text_and_nobody_elses() {
    let (mine, other, wire) = (LogRing::new(), LogRing::new(), Wire::default());
    let mut console = Console::new(
        [("mine", &mine), ("other", &other)].into_iter(),
        wire.clone(),
    );
    let mut count = 0;
    while mine.pending() + 64 <= RING_TEXT {
        assert!(write(&mine, "some text of the caller"));
        count += 1;
    }
    assert!(mine.write(b"no end"));
    assert!(write(&other, "later"));
    assert_eq!(flush(&mut console, 0), Ok(FlushReply {}));
    assert_eq!(mine.pending(), 0);
    let lines = wire.lines();
    assert_eq!(lines.len(), count + 1);
    assert_eq!(lines.last().unwrap(), "mine| no end");
    console.turn();
    assert_eq!(wire.lines(), ["other| later"]);
    assert_eq!(
        flush(&mut console, 2).map_err(|refusal| refusal.rule),
        Err(Rule::UnknownBadge)
    );
}

/// A 16550 that takes a byte only while there is room, and is empty after some looks at its status.
struct Line16550 {
    sent: Rc<RefCell<Vec<u8>>>,
    has_fifo: bool,
    fifo: bool,
    filled: usize,
    looks: u32,
    /// Looks until the transmitter is empty; `None`: never.
    slow: Option<u32>,
}

impl Ports for Line16550 {
    fn read(&mut self, port: u16) -> u8 {
        match port {
            2 => {
                if self.fifo {
                    0xc1
                } else {
                    0x01
                }
            }
            5 => {
                self.looks += 1;
                if self.slow.is_some_and(|slow| self.looks > slow) {
                    self.filled = 0;
                }
                if self.filled == 0 { 0x60 } else { 0 }
            }
            _ => 0xff,
        }
    }

    fn write(&mut self, port: u16, value: u8) {
        match port {
            0 => {
                let room = if self.fifo { 16 } else { 1 };
                assert!(self.filled < room || self.slow.is_none(), "a byte was lost");
                self.filled += 1;
                self.looks = 0;
                self.sent.borrow_mut().push(value);
            }
            2 => self.fifo = self.has_fifo && value & 1 != 0,
            other => panic!("port {other} is none of the console's"),
        }
    }
}

#[test]
fn the_line_loses_no_byte_however_slow() {
    for has_fifo in [false, true] {
        for slow in [0, 1, 50] {
            let sent = Rc::new(RefCell::new(Vec::new()));
            let line = Line16550 {
                sent: sent.clone(),
                has_fifo,
                fifo: false,
                filled: 0,
                looks: 0,
                slow: Some(slow),
            };
            let text: Vec<u8> = (0..200).collect();
            Uart::new(line).put_all(&text);
            assert_eq!(*sent.borrow(), text);
        }
    }
}

#[test]
fn a_dead_line_stops_nobody() {
    let sent = Rc::new(RefCell::new(Vec::new()));
    let line = Line16550 {
        sent: sent.clone(),
        has_fifo: true,
        fifo: false,
        filled: 1,
        looks: 0,
        slow: None,
    };
    // Ends: were every byte waited for, this would take 10^10 looks.
    Uart::new(line).put_all(&[0; 100_000]);
    assert_eq!(sent.borrow().len(), 100_000);
}
