//! sel4-rt: to be written.
#![no_std]
