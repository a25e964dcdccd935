//! Signing enclaves: a key of the `rsa` crate behind the interface that `sgxs` signs with.

use std::sync::OnceLock;

use cloister_sgx::layout::SigStruct;
use crypto_bigint::{BoxedUint, NonZero, U3072, U6144};
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::traits::PublicKeyParts as _;
use rsa::{Pkcs1v15Sign, PrivateKey, PublicKey};
use sgxs::crypto::{Hash, SgxHashOps, SgxRsaOps};
use sha2::{Digest as _, Sha256};

/// SHA-256 for `sgxs`.
pub(crate) struct Hasher(Sha256);

impl SgxHashOps for Hasher {
    fn new() -> Self {
        Self(Sha256::new())
    }

    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finish(self) -> Hash {
        self.0.finalize().into()
    }
}

/// An enclave author's key.
pub(crate) struct Signer(PrivateKey);

impl Signer {
    /// An author.
    pub(crate) fn a() -> &'static Self {
        static KEY: OnceLock<Signer> = OnceLock::new();
        KEY.get_or_init(|| Self::from_pem(include_str!("../keys/signer_a.pem")))
    }

    /// Another author.
    pub(crate) fn b() -> &'static Self {
        static KEY: OnceLock<Signer> = OnceLock::new();
        KEY.get_or_init(|| Self::from_pem(include_str!("../keys/signer_b.pem")))
    }

    fn from_pem(pem: &str) -> Self {
        Self(PrivateKey::from_pkcs8_pem(pem).expect("a valid key"))
    }

    /// SHA-256 of the modulus: what IA32_SGXLEPUBKEYHASH holds to trust this author.
    pub(crate) fn mrsigner(&self) -> [u8; 32] {
        Sha256::digest(self.n()).into()
    }
}

impl Signer {
    /// Signs what a SIGSTRUCT says now, whatever that is.
    pub(crate) fn resign(&self, sigstruct: &mut SigStruct) {
        let mut hash = Sha256::new();
        for part in sigstruct.signed_parts() {
            hash.update(part);
        }
        let signed = self.sign_sha256_pkcs1v1_5_with_q1_q2(hash.finalize());
        let (signature, q1, q2) = signed.expect("the key can sign");
        sigstruct.modulus.copy_from_slice(&self.n());
        sigstruct.signature.copy_from_slice(&signature);
        sigstruct.q1.copy_from_slice(&q1);
        sigstruct.q2.copy_from_slice(&q2);
    }
}

/// Q1 and Q2 of a signature under a modulus, both little-endian: by division, where the model
/// checks by multiplication.
fn quotients(modulus: &[u8], signature: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let modulus: U6144 = U3072::from_le_slice(modulus).resize();
    let modulus = NonZero::new(modulus).expect("not zero");
    let signature = U3072::from_le_slice(signature);
    let squared: U6144 = signature.concatenating_square();
    let (q1, rest) = squared.div_rem(&modulus);
    let rest: U3072 = rest.resize();
    let cubed: U6144 = rest.concatenating_mul(&signature);
    let (q2, _) = cubed.div_rem(&modulus);
    let bytes = |value: U6144| value.to_le_bytes().as_ref()[..384].to_vec();
    (bytes(q1), bytes(q2))
}

/// Gives a SIGSTRUCT the Q1 and Q2 that belong to its modulus and signature, whether or not the
/// signature is one.
pub(crate) fn divide(sigstruct: &mut SigStruct) {
    let (q1, q2) = quotients(&sigstruct.modulus, &sigstruct.signature);
    sigstruct.q1.copy_from_slice(&q1);
    sigstruct.q2.copy_from_slice(&q2);
}

/// Whether `rsa` accepts the signature of a SIGSTRUCT under the key in it.
pub(crate) fn rsa_accepts(sigstruct: &SigStruct) -> bool {
    let modulus = BoxedUint::from_le_slice(&sigstruct.modulus, 3072).expect("3072 bits");
    let Ok(key) = PublicKey::new(modulus, BoxedUint::from(3u8)) else {
        return false;
    };
    let mut hash = Sha256::new();
    for part in sigstruct.signed_parts() {
        hash.update(part);
    }
    let mut signature = sigstruct.signature;
    signature.reverse();
    key.verify(Pkcs1v15Sign::new::<Sha256>(), &hash.finalize(), &signature).is_ok()
}

impl SgxRsaOps for Signer {
    type Error = rsa::Error;

    fn len(&self) -> usize {
        self.0.size() * 8
    }

    fn sign_sha256_pkcs1v1_5_with_q1_q2<H: AsRef<[u8]>>(
        &self,
        hash: H,
    ) -> Result<(Vec<u8>, Vec<u8>, Vec<u8>), Self::Error> {
        let mut signature = self.0.sign(Pkcs1v15Sign::new::<Sha256>(), hash.as_ref())?;
        signature.reverse();
        let (q1, q2) = quotients(&self.n(), &signature);
        Ok((signature, q1, q2))
    }

    fn verify_sha256_pkcs1v1_5<S: AsRef<[u8]>, H: AsRef<[u8]>>(
        &self,
        sig: S,
        hash: H,
    ) -> Result<(), Self::Error> {
        let mut signature = sig.as_ref().to_vec();
        signature.reverse();
        self.0.to_public_key().verify(Pkcs1v15Sign::new::<Sha256>(), hash.as_ref(), &signature)
    }

    fn e(&self) -> Vec<u8> {
        vec![3]
    }

    fn n(&self) -> Vec<u8> {
        let mut modulus = self.0.n_bytes().to_vec();
        modulus.reverse();
        modulus
    }
}
