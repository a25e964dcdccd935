//! Several logical processors on one platform.

mod conflicts;
mod contention;
mod stress;
mod tracking;
