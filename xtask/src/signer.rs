//! The RSA key that signs the demo's enclave: 3072 bits, exponent 3, as SIGSTRUCT
//! demands. Made on first use; the guest's launch control is unlocked, so any
//! signer will do.

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use crypto_bigint::{ConcatenatingMul, ConcatenatingSquare};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use rsa::pkcs1v15::SigningKey;
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use rsa::signature::SignatureEncoding;
use rsa::signature::hazmat::PrehashSigner;
use rsa::traits::PublicKeyParts;
use rsa::{BoxedUint, PrivateKey};
use sgxs::crypto::{Hash, SgxHashOps, SgxRsaOps};
use sha2::{Digest, Sha256};

use crate::{process, repository};

const BITS: usize = 3072;
/// Bytes of a number modulo the key.
const BYTES: usize = BITS / 8;

/// The `sgxs` crate's view of the `rsa` crate's key.
pub(crate) struct Signer(PrivateKey);

impl Signer {
    /// The key under `target/`, made if there is none.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn get() -> Result<Self> {
        let path = repository::cache().join("enclave-signer.pk8");
        if let Ok(bytes) = fs::read(&path)
            && let Ok(key) = PrivateKey::from_pkcs8_der(&bytes)
        {
            return Ok(Self(key));
        }
        process::step("Making the enclave signer's RSA-3072 key");
        let mut seed = [0; 32];
        fs::File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut seed))
            .context("cannot read /dev/urandom")?;
        let mut random = ChaCha20Rng::from_seed(seed);
        let key = PrivateKey::new_with_exp(&mut random, BITS, BoxedUint::from(3_u64))?;
        let der = key.to_pkcs8_der()?;
        fs::create_dir_all(repository::cache())?;
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        std::io::Write::write_all(&mut file, der.as_bytes())?;
        Ok(Self(key))
    }
}

impl SgxRsaOps for Signer {
    type Error = rsa::Error;

    fn len(&self) -> usize {
        self.0.n().bit_width_vartime() as usize
    }

    fn sign_sha256_pkcs1v1_5_with_q1_q2<H: AsRef<[u8]>>(
        &self,
        hash: H,
    ) -> Result<(Vec<u8>, Vec<u8>, Vec<u8>), Self::Error> {
        let signer = SigningKey::<Sha256>::new(self.0.clone());
        let signature = signer.sign_prehash(hash.as_ref()).map_err(|_| rsa::Error::Internal)?;
        let s = BoxedUint::from_be_slice(&signature.to_vec(), BITS as u32)
            .map_err(|_| rsa::Error::Internal)?;
        let n = self.0.n();
        // q1 = s^2 / n and q2 = (s^3 - q1*s*n) / n = s * (s^2 mod n) / n.
        let (q1, rest) = s.concatenating_square().div_rem_vartime(n);
        let (q2, _) = s.concatenating_mul(&rest).div_rem_vartime(n);
        Ok((little_endian(&s), little_endian(&q1), little_endian(&q2)))
    }

    fn verify_sha256_pkcs1v1_5<S: AsRef<[u8]>, H: AsRef<[u8]>>(
        &self,
        signature: S,
        hash: H,
    ) -> Result<(), Self::Error> {
        let mut bytes = signature.as_ref().to_vec();
        bytes.reverse();
        let scheme = rsa::Pkcs1v15Sign::new::<Sha256>();
        self.0.to_public_key().verify(scheme, hash.as_ref(), &bytes)
    }

    fn e(&self) -> Vec<u8> {
        vec![3]
    }

    fn n(&self) -> Vec<u8> {
        little_endian(self.0.n())
    }
}

fn little_endian(value: &BoxedUint) -> Vec<u8> {
    let mut bytes = value.to_le_bytes().to_vec();
    // q1 comes with the width of the square; its upper half is zero.
    bytes.resize(BYTES, 0);
    bytes
}

/// SHA-256 for the `sgxs` crate.
pub(crate) struct Hasher(Sha256);

impl SgxHashOps for Hasher {
    fn new() -> Self {
        Self(Sha256::new())
    }

    fn update(&mut self, data: &[u8]) {
        Digest::update(&mut self.0, data);
    }

    fn finish(self) -> Hash {
        self.0.finalize().into()
    }
}
