//! portcullis-hw: to be written.
#![no_std]
#![forbid(unsafe_code)]
