//! sel4: to be written.
#![no_std]
