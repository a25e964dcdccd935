//! `cloister quote`: a quote of a REPORT.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use cloister_attest::quote::Quoter;

use super::certified::CertifierArgs;
use super::{AttestationError, files};
use crate::files::is_same;
use crate::platform_dir::{self, own_files};

/// Options of `cloister quote`.
#[derive(Args, Debug)]
pub struct QuoteArgs {
    /// Directory of the SGX platform that the REPORT was made on
    #[arg(long, value_name = "DIR")]
    platform: PathBuf,
    /// REPORT for the platform's quoting enclave, as EREPORT wrote it (432 bytes)
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    /// File for the quote [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    certifier: CertifierArgs,
}

/// Makes the quote.
///
/// # Errors
///
/// [`AttestationError`].
pub fn quote(args: &QuoteArgs) -> Result<(), AttestationError> {
    if args.out.is_none() && io::stdout().is_terminal() {
        return Err(AttestationError::Terminal);
    }
    let report = files::read("--report", &args.report, "a REPORT")?;
    if let Some(out) = &args.out {
        let directories = [Some(&args.platform), args.certifier.authority.as_ref()];
        let of_platforms = directories.into_iter().flatten().flat_map(|of| own_files(of));
        if of_platforms.chain([args.report.clone()]).any(|path| is_same(out, &path)) {
            return Err(AttestationError::Taken(out.clone()));
        }
    }
    // A quote is of a REPORT of a platform that has been there.
    let certified = args.certifier.of(&args.platform);
    let (platform, authority) = certified.open(platform_dir::open_existing)?;
    let quoter = Quoter::new(&platform, &authority)?;
    let quote = quoter.quote(&report).map_err(AttestationError::Quote)?;
    match &args.out {
        Some(path) => files::write(path, &quote),
        None => {
            let mut out = io::stdout().lock();
            out.write_all(&quote).and_then(|()| out.flush()).map_err(AttestationError::Output)
        }
    }
}
