//! Who the subjects of certificates are.

use std::str::FromStr as _;

use x509_cert::der;
use x509_cert::name::Name;

/// Whose names certificates have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Names {
    /// Cloister's own, which nobody takes for a manufacturer of hardware.
    #[default]
    Cloister,
    /// Those of Intel's certificates, for verifiers that compare them and trust by key alone
    /// (Intel's QVL with `--trustedRootCaCert`).
    Intel,
}

/// What a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Subject {
    Root,
    PckCa,
    TcbSigning,
    Pck,
}

impl Names {
    /// The distinguished name of a subject.
    pub(super) fn of(self, subject: Subject) -> der::Result<Name> {
        let common = match subject {
            Subject::Root => "SGX Root CA",
            Subject::PckCa => "SGX PCK Platform CA",
            Subject::TcbSigning => "SGX TCB Signing",
            Subject::Pck => "SGX PCK Certificate",
        };
        Name::from_str(&match self {
            Self::Cloister => format!("CN=Cloister development {common},O=Cloister development"),
            Self::Intel => {
                format!("CN=Intel {common},O=Intel Corporation,L=Santa Clara,ST=CA,C=US")
            }
        })
    }
}
