//! scenarios: to be written.
