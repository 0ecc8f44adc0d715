//! Tests of the whole core against models: [`kernel`] of the kernel's
//! capabilities, `sim::vtd` of an IOMMU unit that caches all it may.

mod kernel;
mod machine;
mod mortal;

mod amdvi;
mod amdvi_mutations;
mod contexts;
mod device_caches;
mod faults;
mod hot_path;
mod iospace;
mod large_pages;
mod long_turns;
mod mutations;
mod pool_random;
mod private;
mod remapping;
mod replacing;
mod restart;
mod shard_ends;
mod shard_failures;
mod shard_random;
mod shard_requests;
mod shares;
mod storms;
mod units;
mod vtd_domains;
mod vtd_random;
mod vtd_start;
