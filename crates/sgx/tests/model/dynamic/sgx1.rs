//! A platform without SGX2.

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{PlatformConfig, PlatformIdentity, SgxFeatures};

use crate::enclave::{SECINFO, Spec};
use crate::machine::{GP, Machine};
use crate::scenario::{CODE, ONE, TWO, enter, start};

#[test]
fn leaves_of_sgx2_need_their_announcement() {
    let mut config = PlatformConfig::single(64, PlatformIdentity::from_seed(&[7; 32]));
    config.capabilities.features = SgxFeatures::SGX1;
    let mut machine = Machine::with(config);
    let spec: Spec = crate::scenario::spec(cloister_sgx::AttributeFlags::empty());
    start(&mut machine, &spec);
    enter(&mut machine);

    for number in [leaf::EAUG, leaf::EMODPR, leaf::EMODT] {
        // Operands that a leaf would find unmapped.
        let outcome = machine.encls(number, SECINFO + 0x4_0000, 0x1000, 0);
        assert_eq!(outcome, Err(GP), "ENCLS leaf {number}");
    }
    for number in [user::EACCEPT, user::EMODPE, user::EACCEPTCOPY, user::EDECCSSA] {
        machine.memory.mappings.remove(&ONE);
        let outcome = machine.enclu(number, ONE, TWO, CODE);
        assert_eq!(outcome, Err(GP), "ENCLU leaf {number}");
    }
}
