//! The SGX extension of PCK certificates (PCK Certificate Profile Specification, section 1.3.5).

use cloister_sgx::PlatformFuses;
use x509_cert::der::asn1::{Any, ObjectIdentifier, OctetString};
use x509_cert::der::{self, Encode, Tag};
use x509_cert::ext::Extension;

use super::FMSPC;
use crate::pce;

/// SGX Extensions.
const SGX: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1");
/// SGX Type of servers without integrity protection of memory: Scalable.
const SCALABLE: u8 = 1;
/// Of the TCB: PCESVN and CPUSVN; 1 to 16 are its components.
const PCESVN: u32 = 17;
const CPUSVN: u32 = 18;

/// The extension for the certificate of `platform` at its present CPUSVN and `pcesvn`.
pub(super) fn encode(platform: &PlatformFuses, pcesvn: u16) -> der::Result<Extension> {
    let octets = |bytes: &[u8]| OctetString::new(bytes);
    let tcb_id = SGX.push_arc(2)?;
    let mut tcb = Vec::new();
    for (index, svn) in (1..).zip(platform.cpusvn) {
        tcb.extend(entry(tcb_id, index, &svn)?);
    }
    tcb.extend(entry(tcb_id, PCESVN, &pcesvn)?);
    tcb.extend(entry(tcb_id, CPUSVN, &octets(&platform.cpusvn)?)?);

    let configuration_id = SGX.push_arc(7)?;
    let mut configuration = Vec::new();
    // Dynamic platform, cached keys, SMT.
    for index in 1..=3 {
        configuration.extend(entry(configuration_id, index, &false)?);
    }

    let instance = platform.manufacturer_key("attestation platform instance ID");
    let fields = [
        entry(SGX, 1, &octets(&pce::ppid(platform))?)?,
        entry(SGX, 2, &Any::new(Tag::Sequence, tcb)?)?,
        entry(SGX, 3, &octets(&pce::PCEID)?)?,
        entry(SGX, 4, &octets(&FMSPC)?)?,
        entry(SGX, 5, &Any::new(Tag::Enumerated, [SCALABLE])?)?,
        entry(SGX, 6, &octets(&instance)?)?,
        entry(SGX, 7, &Any::new(Tag::Sequence, configuration)?)?,
    ];
    let extn_value = OctetString::new(Any::new(Tag::Sequence, fields.concat())?.to_der()?)?;
    Ok(Extension { extn_id: SGX, critical: false, extn_value })
}

/// SEQUENCE { `parent`.`index`, `value` }.
fn entry(parent: ObjectIdentifier, index: u32, value: &impl Encode) -> der::Result<Vec<u8>> {
    let id = parent.push_arc(index)?;
    Any::new(Tag::Sequence, [id.to_der()?, value.to_der()?].concat())?.to_der()
}
