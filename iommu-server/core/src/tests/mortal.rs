//! A shard that dies: [`Fuse`] stops it before its nth effect, wherever that is, and everything else goes on. Effects are
//! calls of the kernel, stores into the ledger, and writes of tables and registers.

use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use hw::Mmio;
use sim::vtd::{Memory, Model};

use super::kernel::Kernel;
use super::machine::{MESSAGE, OPTIONS, POOL, SETUP, TABLES, TestTables, WorldOf};
use crate::vtd::{self, Options, UnitSetup};
use crate::{Setup, Shard, Storage, TableMemory};

/// What a killed shard unwinds with.
struct Killed;

#[derive(Default)]
struct Burning {
    left: Cell<Option<u64>>,
    burnt: Cell<u64>,
    watch: RefCell<Option<Box<dyn Fn()>>>,
}

/// See the module. Clones share it.
#[derive(Clone, Default)]
pub struct Fuse(Rc<Burning>);

impl Fuse {
    /// An effect is about to happen.
    pub fn burn(&self) {
        self.0.burnt.set(self.0.burnt.get() + 1);
        if let Some(watch) = &*self.0.watch.borrow() {
            watch();
        }
        match self.0.left.get() {
            Some(0) => {
                self.0.left.set(None);
                resume_unwind(Box::new(Killed));
            }
            left => self.0.left.set(left.map(|left| left - 1)),
        }
    }

    /// Effects so far.
    pub fn burnt(&self) -> u64 {
        self.0.burnt.get()
    }

    /// What is to hold before every effect.
    pub fn watch(&self, watch: Option<Box<dyn Fn()>>) {
        *self.0.watch.borrow_mut() = watch;
    }
}

/// Registers of a unit, as a mortal writes them.
pub struct MortalUnit(sim::vtd::Vtd, Fuse);

impl Mmio for MortalUnit {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn read32(&self, offset: usize) -> u32 {
        self.0.read32(offset)
    }
    fn read64(&self, offset: usize) -> u64 {
        self.0.read64(offset)
    }
    fn write32(&mut self, offset: usize, value: u32) {
        self.1.burn();
        self.0.write32(offset, value);
    }
    fn write64(&mut self, offset: usize, value: u64) {
        self.1.burn();
        self.0.write64(offset, value);
    }
}

/// Tables, as a mortal writes them.
pub struct MortalTables(TestTables, Fuse);

impl TableMemory for MortalTables {
    fn pages(&self) -> u32 {
        self.0.pages()
    }
    fn read64(&self, page: u32, index: u16) -> u64 {
        self.0.read64(page, index)
    }
    fn write64(&mut self, page: u32, index: u16, value: u64) {
        if self.read64(page, index) != value {
            self.1.burn();
        }
        self.0.write64(page, index, value);
    }
    fn write_back(&mut self, page: u32, index: u16, count: u16) {
        self.1.burn();
        self.0.write_back(page, index, count);
    }
}

pub type MortalVtd<'s> = vtd::Vtd<'s, MortalUnit, MortalTables>;
pub type MortalWorld<'s> = WorldOf<'s, MortalVtd<'s>>;

/// What outlives the shard.
pub struct Survivors {
    pub unit: sim::vtd::Vtd,
    pub memory: Memory,
    pub kernel: Kernel,
    pub fuse: Fuse,
    pub options: Options,
    pub setup: Setup<'static>,
    pub pages: u32,
}

impl Survivors {
    /// A machine at power on.
    pub fn new(model: Model) -> Self {
        let memory = Memory::new();
        let fuse = Fuse::default();
        let pages = 80;
        // Some words of each page are not clean: each is a place to be killed in.
        for page in 0..u64::from(pages) {
            for word in [0, 1, 511] {
                memory.write(TABLES + page * 0x1000 + word * 8, 0xdead_beef_0000_0003);
            }
            memory.write_back(TABLES + page * 0x1000, 0x1000);
        }
        Self {
            unit: sim::vtd::Vtd::new(model, memory.clone()),
            kernel: Kernel::mortal(&POOL, fuse.clone()),
            memory,
            fuse,
            options: OPTIONS,
            setup: Setup {
                fault_bound: u32::MAX,
                ..SETUP
            },
            pages,
        }
    }

    /// A life of the shard: the first, or one after a restart. It is killed before effect `nth` of `act`, if one is
    /// given; `None` then.
    pub fn live<R>(
        &self,
        nth: Option<u64>,
        act: impl FnOnce(&mut MortalWorld<'_>) -> R,
    ) -> Option<R> {
        let (mut units, mut storage) = (Box::new(vtd::Storage::new()), Box::new(Storage::new()));
        let mut world = self.begin(&mut units, &mut storage);
        self.mortal(nth, || act(&mut world))
    }

    /// As [`Self::live`], but it is killed before effect `nth` of its start.
    pub fn begin_to_live(&self, nth: Option<u64>) -> Option<()> {
        let (mut units, mut storage) = (Box::new(vtd::Storage::new()), Box::new(Storage::new()));
        self.mortal(nth, || drop(self.begin(&mut units, &mut storage)))
    }

    fn mortal<R>(&self, nth: Option<u64>, act: impl FnOnce() -> R) -> Option<R> {
        self.fuse.0.left.set(nth);
        let lived = catch_unwind(AssertUnwindSafe(act));
        self.fuse.0.left.set(None);
        match lived {
            Ok(outcome) => Some(outcome),
            Err(reason) if reason.is::<Killed>() => None,
            Err(reason) => resume_unwind(reason),
        }
    }

    fn begin<'s>(&self, units: &'s mut vtd::Storage, storage: &'s mut Storage) -> MortalWorld<'s> {
        let tables = MortalTables(
            TestTables {
                memory: self.memory.clone(),
                pages: self.pages,
            },
            self.fuse.clone(),
        );
        let setups = core::iter::once(UnitSetup {
            window: MortalUnit(self.unit.clone(), self.fuse.clone()),
            segment: 0,
            include_all: true,
            scopes: &[],
            message: MESSAGE,
        });
        let shard = if crate::has_started(&self.kernel) {
            self.kernel.restarted();
            let vtd = vtd::Vtd::adopt(units, tables, TABLES, setups, &self.options);
            Shard::recover(storage, self.kernel.clone(), vtd, &self.setup)
        } else {
            let vtd = vtd::Vtd::start(units, tables, TABLES, setups, &self.options);
            Shard::new(storage, self.kernel.clone(), vtd, &self.setup)
        };
        WorldOf {
            unit: self.unit.clone(),
            kernel: self.kernel.clone(),
            shard: shard.unwrap(),
        }
    }
}
