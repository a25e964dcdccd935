//! `cloister pccs`: a provisioning certificate caching service over what `cloister pki` published.

use std::path::{Path, PathBuf};
use std::{fs, process};

use clap::Args;
use cloister_attest::pccs::{Pccs, PublishedPlatform, Refusal};
use cloister_attest::pce;
use cloister_attest::pki::{Collateral, FILES};
use cloister_epc_view::{HttpAddress, HttpResponse, HttpServer};
use libc::c_long;

use super::pki::{DEFAULT_OUT, QE_ID, pck_chain};
use super::{AttestationError, files, is_confined};
use crate::sandbox::{self, Sandbox};
use crate::standard::print;
use crate::terminal::{self, SIGNALLED};

/// What the service asks of the host, beyond what every thread may and the start of threads.
const CALLS: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];
/// What a folder is to be that is read.
const PUBLISHED: &str = "a platform that cloister pki has certified";
const OPTION: &str = "--platform";

/// Options of `cloister pccs`.
#[derive(Args, Debug)]
pub struct PccsArgs {
    /// Where to listen: 127.0.0.1:PORT, [::1]:PORT or unix:PATH
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    listen: String,
    /// Directory of an SGX platform that cloister pki has certified; several of one --authority
    #[arg(long, value_name = "DIR", required = true)]
    platform: Vec<PathBuf>,
    /// Confine the process to the system calls it needs: on or off
    #[arg(long, value_name = "on|off", default_value = "on")]
    sandbox: String,
}

/// Serves until the process is ended.
///
/// # Errors
///
/// [`AttestationError`].
pub fn pccs(args: &PccsArgs) -> Result<String, AttestationError> {
    let confined = is_confined(&args.sandbox)?;
    let address = HttpAddress::parse(&args.listen).map_err(AttestationError::Listen)?;
    let platforms = args.platform.iter().map(|directory| published(&directory.join(DEFAULT_OUT)));
    let platforms = platforms.collect::<Result<Vec<_>, _>>()?;
    let pccs = Pccs::new(platforms).map_err(AttestationError::Together)?;
    terminal::hold_stop_signals().map_err(AttestationError::Host)?;
    let server = HttpServer::bind(&address).map_err(AttestationError::Listen)?;
    let path = server.path().map(ToOwned::to_owned);
    terminal::on_stop_signal(Sandbox::off(), move |signal| {
        if let Some(path) = &path {
            // Nobody is left to tell.
            let _ = fs::remove_file(path);
        }
        process::exit(SIGNALLED + signal);
    })
    .map_err(AttestationError::Host)?;
    print(&format!("PCCS at {}\n", server.address())).map_err(AttestationError::Output)?;
    if confined {
        // This thread and those of clients. That of signals removes the socket's file.
        sandbox::confine_command(CALLS, true).map_err(AttestationError::Sandbox)?;
    }
    server.serve(|target| respond(&pccs, target));
    Ok(String::new())
}

fn respond(pccs: &Pccs, target: &str) -> HttpResponse {
    match pccs.answer(target) {
        Ok(answer) => HttpResponse {
            status: "200 OK",
            content_type: answer.content_type,
            headers: answer.headers,
            body: answer.body,
        },
        Err(refusal) => {
            let status = match refusal {
                Refusal::Invalid => "400 Bad Request",
                Refusal::NotFound => "404 Not Found",
            };
            HttpResponse::error(status, refusal.text())
        }
    }
}

/// What a folder of `cloister pki` says.
fn published(folder: &Path) -> Result<PublishedPlatform, AttestationError> {
    let collateral = read_collateral(OPTION, folder, PUBLISHED)?;
    let text = |name: &str| {
        let bytes = files::read(OPTION, &folder.join(name), PUBLISHED)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let chains = (1..=pce::ISVSVN).map(|pcesvn| text(&pck_chain(pcesvn)));
    let chains = chains.collect::<Result<Vec<_>, AttestationError>>()?;
    PublishedPlatform::new(&text(QE_ID)?, &chains, collateral)
        .map_err(|why| AttestationError::Published { path: folder.to_owned(), why })
}

/// The collateral in the folder that `option` names, which is to be `what`.
pub(super) fn read_collateral(
    option: &'static str,
    folder: &Path,
    what: &'static str,
) -> Result<Collateral, AttestationError> {
    let [a, b, c, d, e, f] = FILES.map(|name| files::read(option, &folder.join(name), what));
    let files = [a?, b?, c?, d?, e?, f?];
    Collateral::from_files(files).map_err(AttestationError::Collateral)
}
