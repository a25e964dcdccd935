//! An enclave that others published, signed and measured with tools that know nothing of this
//! model: `test_enclave.sgxs` and `.sig` of fortanix/rust-sgx. No copy is kept here;
//! `CLOISTER_TEST_ENCLAVE` names the directory of one.

use std::io::Write as _;
use std::path::PathBuf;

use cloister_sgx::layout::{EinitToken, SecInfo, SigStruct};
use cloister_sgx::{EpcIndex, SgxStatus};
use sgxs::sgxs::PageReader;
use sha2::{Digest as _, Sha256};
use zerocopy::FromBytes as _;

use crate::enclave::{Page, Spec};
use crate::machine::Machine;
use crate::signer::rsa_accepts;

/// The published pages, as a [`Spec`] that its SIGSTRUCT allows.
fn spec(stream: &[u8], sigstruct: &SigStruct) -> Spec {
    let mut stream = stream;
    let (create, mut pages) = PageReader::new(&mut stream).expect("an SGXS stream");
    let mut spec = Spec {
        base: create.ecreate.size,
        size: create.ecreate.size,
        ssaframesize: create.ecreate.ssaframesize,
        miscselect: sigstruct.miscselect.get(),
        attributes: sigstruct.attributes,
        pages: Vec::new(),
        isvsvn: sigstruct.isvsvn.get(),
        isvprodid: sigstruct.isvprodid.get(),
        debug_mask: false,
    };
    while let Some((add, chunks, contents)) = pages.read_page().expect("a page") {
        spec.pages.push(Page {
            offset: add.offset,
            secinfo: SecInfo { flags: add.secinfo.flags.bits().into(), reserved: [0; 56] },
            contents: Box::new(contents),
            measured: chunks.0,
        });
    }
    spec
}

#[test]
fn the_published_test_enclave_is_measured_verified_and_initialized() {
    let Some(folder) = std::env::var_os("CLOISTER_TEST_ENCLAVE").map(PathBuf::from) else {
        // Not through the harness, which shows only what failing tests print.
        let line = "the published test enclave is left out: CLOISTER_TEST_ENCLAVE is not set";
        writeln!(std::io::stderr(), "{line}").expect("standard error can be written");
        return;
    };
    let read = |name: &str| {
        let file = folder.join(name);
        std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    };
    let stream = read("test_enclave.sgxs");
    let bytes = read("test_enclave.sig");
    let sigstruct = SigStruct::read_from_bytes(&bytes).expect("a SIGSTRUCT");
    let spec = spec(&stream, &sigstruct);
    let mut machine = Machine::new(spec.pages.len() as u32 + 1);
    machine.memory.le_hash = Sha256::digest(sigstruct.modulus).into();
    spec.load(&mut machine, 0).expect("the enclave can be built");

    let status = spec.einit(&mut machine, 0, &sigstruct, &EinitToken::none());

    assert_eq!(status, Ok(SgxStatus::Success));
    let mut measured = [0; 32];
    machine.platform.page(EpcIndex(0)).read(64, &mut measured);
    assert_eq!(measured, sigstruct.enclavehash);
    assert_eq!(measured, spec.mrenclave(), "sgxs");
    assert!(rsa_accepts(&sigstruct));
}
