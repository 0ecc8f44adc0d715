//! Of the test of masks and pending bits: the device and the model.

pub mod card;
pub mod model;
