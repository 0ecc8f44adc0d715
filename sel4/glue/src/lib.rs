//! sel4-glue: to be written.
#![no_std]
