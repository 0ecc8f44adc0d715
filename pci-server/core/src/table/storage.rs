//! [`Storage`]: memory that is lent to the table. With the feature `steps`, for tests, it counts how often it is
//! looked at: what an operation costs, whatever the machine.

#[cfg(feature = "steps")]
use core::cell::Cell;

use heapless::VecView;

/// Places for functions, or for buses.
#[derive(Debug)]
pub(super) struct Storage<'m, T> {
    places: &'m mut VecView<T>,
    #[cfg(feature = "steps")]
    steps: Cell<u64>,
}

impl<'m, T> Storage<'m, T> {
    /// Empty.
    pub(super) fn new(places: &'m mut VecView<T>) -> Self {
        places.clear();
        Self {
            places,
            #[cfg(feature = "steps")]
            steps: Cell::new(0),
        }
    }

    #[inline(always)]
    fn step(&self) {
        #[cfg(feature = "steps")]
        self.steps.set(self.steps.get() + 1);
    }

    #[cfg(feature = "steps")]
    pub(super) fn steps(&self) -> u64 {
        self.steps.get()
    }

    #[inline(always)]
    pub(super) fn get(&self, place: usize) -> Option<&T> {
        self.step();
        self.places.get(place)
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.step();
        self.places.get_mut(place)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.places.capacity()
    }

    pub(super) fn is_full(&self) -> bool {
        self.places.is_full()
    }

    pub(super) fn push(&mut self, item: T) -> Result<(), T> {
        self.step();
        self.places.push(item)
    }
}
