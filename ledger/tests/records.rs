//! A record is what it was or what it is to be, wherever its writer is stopped.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::num::NonZeroU32;

use ledger::{Records, Words};
use proptest::prelude::*;

/// Memory whose owner dies: after `left` stores nothing is stored any more.
#[derive(Clone, Debug)]
struct Mortal {
    words: Vec<u64>,
    left: usize,
}

impl Words for Mortal {
    fn count(&self) -> usize {
        self.words.len()
    }

    fn load(&self, at: usize) -> u64 {
        self.words.get(at).copied().unwrap_or(0)
    }

    fn store(&mut self, at: usize, value: u64) {
        if self.left > 0 {
            self.left -= 1;
            if let Some(word) = self.words.get_mut(at) {
                *word = value;
            }
        }
    }
}

const RECORDS: Records = Records::new(3, 4, 3);

fn tag(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, u32, [u64; 3]),
    Mark(usize, u32),
    Clear(usize),
}

type Contents = Option<(u32, [u64; 3])>;

fn contents(memory: &Mortal) -> Vec<Contents> {
    let read = |number| {
        let mut words = [0; 3];
        RECORDS
            .read(memory, number, &mut words)
            .map(|tag| (tag.get(), words))
    };
    (0..RECORDS.count()).map(read).collect()
}

fn apply(change: &Change, memory: &mut Mortal) {
    match change {
        Change::Write(number, to, words) => RECORDS.write(memory, *number, tag(*to), words),
        Change::Mark(number, to) => RECORDS.mark(memory, *number, tag(*to)),
        Change::Clear(number) => RECORDS.clear(memory, *number),
    }
}

/// The same on a plain list.
fn apply_plainly(change: &Change, list: &mut [Contents]) {
    match change {
        Change::Write(number, to, words) => list[*number] = Some((*to, *words)),
        Change::Mark(number, to) => {
            // A free record has the words of its last life, which are nobody's.
            let words = list[*number].map_or([0; 3], |(_, words)| words);
            list[*number] = Some((*to, words));
        }
        Change::Clear(number) => list[*number] = None,
    }
}

fn change() -> impl Strategy<Value = Change> {
    let number = 0..RECORDS.count();
    prop_oneof![
        (number.clone(), 1..9u32, any::<[u64; 3]>())
            .prop_map(|(number, tag, words)| Change::Write(number, tag, words)),
        (number.clone(), 1..9u32).prop_map(|(number, tag)| Change::Mark(number, tag)),
        number.prop_map(Change::Clear),
    ]
}

proptest! {
    #[test]
    fn each_change_happens_as_a_whole_or_not_at_all(changes in prop::collection::vec(change(), 1..20)) {
        let mut memory = Mortal { words: vec![0; RECORDS.end()], left: usize::MAX };
        let mut list: Vec<Contents> = vec![None; RECORDS.count()];
        for change in &changes {
            // Only what is in use is marked.
            if let Change::Mark(number, _) = change && list[*number].is_none() {
                continue;
            }
            let before = list.clone();
            apply_plainly(change, &mut list);
            for left in 0..8 {
                let mut mortal = Mortal { left, ..memory.clone() };
                apply(change, &mut mortal);
                let found = contents(&mortal);
                prop_assert!(found == before || found == list, "{change:?} cut after {left} stores: {found:?}");
            }
            apply(change, &mut memory);
            prop_assert_eq!(contents(&memory), list.clone());
            prop_assert_eq!(&memory.words[..3], [0; 3], "what lies before the records");
        }
    }

    #[test]
    fn anything_can_be_read(words in prop::collection::vec(any::<u64>(), 0..40), number in any::<usize>()) {
        let memory = Mortal { words, left: 0 };
        let mut into = [0; 5];
        let _ = RECORDS.read(&memory, number, &mut into);
    }
}

#[test]
fn what_is_outside_changes_nothing() {
    let mut memory = Mortal {
        words: vec![0; RECORDS.end() + 9],
        left: usize::MAX,
    };
    RECORDS.write(&mut memory, RECORDS.count(), tag(1), &[1, 2, 3]);
    RECORDS.mark(&mut memory, usize::MAX, tag(1));
    assert_eq!(memory.words, vec![0; RECORDS.end() + 9]);
    assert_eq!(RECORDS.tag(&memory, RECORDS.count()), None);
}
