//! sel4-gen: to be written.
