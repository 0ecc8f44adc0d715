//! The comparison can fail: whatever bit of what lspci said is turned over, it tells.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[path = "random/mod.rs"]
mod generate;

use std::io::Write as _;

use compare::field::Place;
use compare::lspci::{self, Reading};
use compare::matching::compare;
use compare::ours::{self, Scope, titles};
use compare::text::{Function, Token, TokenKind, parse};
use generate::{Random, dump};
use sim::config::{Machine, dump as dumps};

/// Changes what a token says, and gives back what it was.
fn spoil(token: &mut Token) -> Token {
    let before = token.clone();
    match &mut token.kind {
        TokenKind::Flag { set, .. } => *set = !*set,
        // No value ends like this.
        TokenKind::Phrase(text) => text.push('~'),
    }
    before
}

/// Every token that is compared, of a function: how to reach it.
fn places(ours: &ours::Function, theirs: &Function) -> Vec<(Option<usize>, usize)> {
    let header = (0..theirs.header.len()).map(|token| (None, token));
    let bodies = theirs.capabilities.iter().enumerate();
    let bodies = bodies.filter(|(_, their)| {
        let our = ours
            .capabilities
            .iter()
            .find(|our| our.place == their.place);
        our.is_some_and(|our| our.scope == Scope::Whole && our.error.is_none())
    });
    let bodies = bodies
        .flat_map(|(index, their)| (0..their.body.len()).map(move |token| (Some(index), token)));
    header.chain(bodies).collect()
}

fn token(theirs: &mut Function, place: (Option<usize>, usize)) -> &mut Token {
    match place {
        (None, token) => &mut theirs.header[token],
        (Some(capability), token) => &mut theirs.capabilities[capability].body[token],
    }
}

fn remove(theirs: &mut Function, place: (Option<usize>, usize)) {
    match place {
        (None, token) => theirs.header.remove(token),
        (Some(capability), token) => theirs.capabilities[capability].body.remove(token),
    };
}

#[test]
fn every_word_of_lspcis_that_is_turned_over_is_a_difference() {
    if let Err(error) = lspci::version() {
        let _ = writeln!(std::io::stderr(), "differences: skipped: {error}");
        return;
    }
    let text = dump(&mut Random::new(77), 10);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let functions = dumps::read(&text).unwrap();
    let machine = Machine::from_lspci(&text).unwrap();
    let readings = lspci::read(file.path(), &functions).unwrap();
    let mut turned = 0;
    for function in &functions {
        let ours = ours::read(&machine, function);
        let Some(Reading::Function(theirs)) = readings.get(&function.name()) else {
            continue;
        };
        let mut theirs = theirs.clone();
        let equal = compare(&ours, Some(&Reading::Function(theirs.clone())))
            .total()
            .equal;
        for place in places(&ours, &theirs) {
            let before = spoil(token(&mut theirs, place));
            let found = compare(&ours, Some(&Reading::Function(theirs.clone())));
            if found.total().equal == equal {
                // It has been a difference all the time: without it as much is equal.
                let mut without = theirs.clone();
                remove(&mut without, place);
                let found = compare(&ours, Some(&Reading::Function(without)));
                assert_eq!(found.total().equal, equal, "{} {before:?}", ours.name);
            } else {
                turned += 1;
            }
            *token(&mut theirs, place) = before;
        }
        // A capability that lspci does not see, or that hw does not.
        for index in 0..theirs.capabilities.len() {
            let removed = theirs.capabilities.remove(index);
            let found = compare(&ours, Some(&Reading::Function(theirs.clone())));
            let is_ours = ours.capabilities.iter().any(|our| {
                our.place == removed.place
                    && titles::prefix(our.place, our.id, &removed.title).is_some()
            });
            assert_eq!(found.total().equal != equal, is_ours, "{removed:?}");
            theirs.capabilities.insert(index, removed);
        }
    }
    assert!(turned > 1000, "{turned}");
}

/// A bridge's capability list as this project would like to see it printed.
const TEXT: &str = "\
10000:e1:00.0 PCI bridge [0604]: Some [Maker] Ltd. Port [Model] [8086:2030] (rev 04) (prog-if 00 [Normal decode])
\tSubsystem: Some Co., Ltd Board [1043:8383]
\tControl: I/O+ Mem- BusMaster+
\tLatency: 0 (250ns min, 500ns max), Cache Line Size: 64 bytes
\tRegion 0: Memory at 383fffe00000 (64-bit, prefetchable) [disabled] [size=128K]
\tI/O behind bridge: 0000f000-00000fff [disabled] [32-bit]
\tMemory behind bridge: 9d000000-9d2fffff [size=3M] [32-bit]
\tBridgeCtl: Parity- >Reset+
\t\tPriDiscTmr- SecDiscTmr+
\tNUMA node: 0
\tCapabilities: [40] Express (v2) Root Port (Slot+), MSI 00
\t\tSltSta:\tStatus: AttnBtn- PresDet+
\t\t\tChanged: MRL- PresDet+
\tCapabilities: [60] Power Management version 3
\t\tFlags: PMEClk- AuxCurrent=55mA PME(D0+,D3cold-)
\tCapabilities: [40] <chain looped>
\tCapabilities: [100 v1] Vendor Specific Information: ID=0002 Rev=0 Len=00c <?>
\tKernel driver in use: pcieport

0000:00:00.0 Host bridge [0600]: Some Device [8086:2020]
";

#[test]
fn text_is_taken_apart() {
    let functions = parse(TEXT);
    let names: Vec<_> = functions
        .iter()
        .map(|function| function.name.as_str())
        .collect();
    assert_eq!(names, ["10000:e1:00.0", "0000:00:00.0"]);
    let shown = |token: &Token| match &token.kind {
        TokenKind::Flag { name, set } => {
            format!("{}|{name}{}", token.label, if *set { '+' } else { '-' })
        }
        TokenKind::Phrase(text) => format!("{}|{text}", token.label),
    };
    let header: Vec<_> = functions[0].header.iter().map(shown).collect();
    let expected = [
        "function|class 0604",
        "function|ids 8086:2030",
        "function|revision 04",
        "function|interface 00",
        "Subsystem|1043:8383",
        "Control|I/O+",
        "Control|Mem-",
        "Control|BusMaster+",
        "Latency|0 (250ns min, 500ns max), Cache Line Size: 64 bytes",
        "Region 0|memory 64-bit, prefetchable at 383fffe00000, disabled",
        "I/O behind bridge|closed",
        "Memory behind bridge|9d000000-9d2fffff",
        "BridgeCtl|Parity-",
        "BridgeCtl|>Reset+",
        "BridgeCtl|PriDiscTmr-",
        "BridgeCtl|SecDiscTmr+",
        "end of capabilities|looped at 40",
    ];
    assert_eq!(header, expected);
    let capabilities = &functions[0].capabilities;
    let places: Vec<_> = capabilities
        .iter()
        .map(|found| (found.place, found.version))
        .collect();
    let expected = [
        (Place::Capability(0x40), None),
        (Place::Capability(0x60), None),
        (Place::Extended(0x100), Some(1)),
    ];
    assert_eq!(places, expected);
    let title: Vec<_> = capabilities[0]
        .title_tokens("Express")
        .iter()
        .map(shown)
        .collect();
    assert_eq!(title, ["|(v2) Root Port (Slot+)", "|MSI 00"]);
    let body = |index: usize| -> Vec<_> { capabilities[index].body.iter().map(shown).collect() };
    let slot = [
        "SltSta|Status: AttnBtn-",
        "SltSta|Status: PresDet+",
        "SltSta|Changed: MRL-",
        "SltSta|Changed: PresDet+",
    ];
    assert_eq!(body(0), slot);
    let power = [
        "Flags|PMEClk-",
        "Flags|AuxCurrent=55mA",
        "Flags|PME: D0+",
        "Flags|PME: D3cold-",
    ];
    assert_eq!(body(1), power);
}
