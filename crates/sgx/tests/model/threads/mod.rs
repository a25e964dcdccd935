//! Several logical processors on one platform.

mod stress;
