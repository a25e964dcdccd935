//! Tests of whole instructions.
