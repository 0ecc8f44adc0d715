//! images: to be written.
fn main() {}
