//! sel4-sys: to be written.
#![no_std]
