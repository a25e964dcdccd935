//! Eviction and reload (EPA, EBLOCK, ETRACK, EWB, ELDB, ELDU) and the oversubscription of the EPC
//! (ERDINFO, ETRACKC, ELDBC, ELDUC and the ENCLV leaves).

mod bench;
mod eblock;
mod eld;
mod enclv;
mod epa;
mod erdinfo;
mod etrack;
mod ewb;
mod flips;
mod operands;
mod races;
mod replay;
mod store;
mod survival;
