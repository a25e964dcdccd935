//! Hardware task switches: SDM Vol. 3A, chapter 7.

mod address_space;
mod events;
mod garbage;
mod machine;
mod refused;
mod segments;
mod switches;
mod virtual_8086;
